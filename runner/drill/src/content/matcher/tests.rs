use std::convert::Infallible;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;
use crate::content::rows::LISTED;
use crate::content::{Collector, Group, cut, rows_different};

fn row(place: u64, seed: u64) -> Row {
    Row { place, digest: Sha256::digest(seed.to_be_bytes()).into() }
}

fn rows(range: std::ops::Range<u64>) -> Vec<Row> {
    range.map(|number| row(number, number)).collect()
}

/// In an order that no key has, as the rows of a table whose keys are hashed.
fn shuffled(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_unstable_by_key(|row| row.digest);
    rows
}

/// The blocks that a capture would make.
fn blocks(rows: &[Row]) -> Arc<[Block]> {
    let mut collector = Collector::new(usize::MAX);
    for row in rows {
        assert!(!collector.push(*row));
    }
    let mut all = Vec::new();
    let entries = collector.sorted().iter().copied().map(Ok::<_, Infallible>);
    let done = cut(entries, usize::MAX, |groups| {
        all.extend(groups.iter().map(Group::block));
        Ok(())
    });
    assert_eq!(done, Ok(Ok(())));
    all.into()
}

#[derive(Debug, PartialEq, Eq)]
struct Looked {
    different: Vec<Found>,
    passes: usize,
}

/// All passes, as a scan does them.
fn look(expected: &Arc<[Block]>, rows: &[Row], max_held: usize, detail: usize) -> Result<Looked, BlockTooLarge> {
    let mut matcher = Matcher::new(expected, max_held, detail);
    for passes in 1.. {
        for row in rows {
            matcher.push(row);
            assert!(matcher.held <= max_held);
        }
        assert_eq!(matcher.held, matcher.blocks.iter().map(State::held).sum::<usize>());
        assert!(passes < 10_000, "a pass got no further");
        if !matcher.end_pass() {
            let found = matcher.finish()?;
            assert_eq!(found.seen, rows.len() as u64);
            return Ok(Looked { different: found.different, passes });
        }
    }
    unreachable!("the last pass returns")
}

fn looked(different: Vec<Found>, passes: usize) -> Looked {
    Looked { different, passes }
}

fn unknown(index: usize, rows: u64) -> Found {
    Found { index, rows, detail: Detail::Unknown }
}

fn nothing() -> Arc<[Block]> {
    Arc::from([])
}

#[test]
fn an_empty_table_is_one_block_of_whatever_comes() {
    assert_eq!(look(&nothing(), &[], 10, 1), Ok(looked(vec![], 1)));
    let found = look(&nothing(), &[row(5, 1), row(9, 2)], 10, 1).expect("it fits").different;
    assert_eq!((found.len(), found[0].index, found[0].rows), (1, 0, 2));
}

#[test]
fn a_table_that_should_be_empty_needs_no_room_for_what_it_holds() {
    assert_eq!(look(&nothing(), &rows(0..50_000), 100, 0), Ok(looked(vec![unknown(0, 50_000)], 1)));
    assert_eq!(look(&nothing(), &rows(0..50_000), 100, 1), Ok(looked(vec![unknown(0, 50_000)], 1)), "nor with detail");
}

#[test]
fn rows_that_come_after_their_block_was_whole_are_found_and_told() {
    let expected = blocks(&rows(0..3000));
    let more = [rows(0..3000), vec![row(7, 99_999), row(8, 99_999)]].concat();
    let found = Found { index: 0, rows: 1002, detail: Detail::Added };
    assert_eq!(look(&expected, &more, 1_000_000, 1), Ok(looked(vec![found], 1)));
}

#[test]
fn a_table_whose_every_row_differs_is_read_once_where_it_lies_in_order() {
    let expected = blocks(&rows(0..100_000));
    let other: Vec<Row> = (0..100_000).map(|number| row(number, number + 1_000_000)).collect();
    let found = look(&expected, &other, 3000, 0).expect("it fits");
    assert_eq!((found.different.len(), found.passes), (100, 1));
    let less = look(&expected, &rows(0..1), 3000, 0).expect("it fits");
    assert_eq!((less.different.len(), less.passes), (100, 1));
}

/// The room of a pass is taken by whole blocks, so that less than one of it stays empty.
#[test]
fn a_table_in_no_order_is_read_as_often_as_it_fills_the_room() {
    let expected = blocks(&rows(0..100_000));
    let intact = shuffled(rows(0..100_000));
    assert_eq!(look(&expected, &intact, 20_000, 10), Ok(looked(vec![], 5)));
    assert_eq!(look(&expected, &intact, 20_999, 10), Ok(looked(vec![], 5)));
    assert_eq!(look(&expected, &intact, 34_000, 10), Ok(looked(vec![], 3)));
    assert_eq!(look(&expected, &intact, 100_000, 10), Ok(looked(vec![], 1)));
    let other = shuffled((0..100_000).map(|number| row(number, number + 1_000_000)).collect());
    let found = look(&expected, &other, 20_000, 0).expect("it fits");
    assert_eq!((found.different.len(), found.passes), (100, 5));
    let found = look(&expected, &other, 20_000, 50).expect("it fits");
    assert_eq!(found.different.len(), 100);
    assert!(found.passes <= 8, "{} passes: detail took the room", found.passes);
}

#[test]
fn one_changed_row_of_a_table_that_takes_passes_is_told() {
    let was = rows(0..50_000);
    let mut is = was.clone();
    is[12_345] = row(12_345, 99_999_999);
    let found = look(&blocks(&was), &shuffled(is), 10_000, 10).expect("it fits").different;
    assert_eq!((found.len(), found[0].index, found[0].rows), (1, 12, 1000));
    let Detail::Rows(prefixes) = &found[0].detail else { panic!("no detail: {found:?}") };
    let mut known: Vec<u64> = was[12_000..13_000].iter().map(|row| crate::content::first_eight(&row.digest)).collect();
    known.sort_unstable();
    assert_eq!(rows_different(known, prefixes.iter().flat_map(|prefixes| prefixes.each())), 1);
}

#[test]
fn equal_rows_need_no_room_and_no_list_of_them_is_made() {
    let many = vec![row(3, 3); 1_100_000];
    let expected = blocks(&many);
    assert_eq!(look(&expected, &many, 10_000, 1), Ok(looked(vec![], 1)));
    assert_eq!(look(&expected, &many[1..], 10_000, 1), Ok(looked(vec![unknown(0, 1_099_999)], 1)));
    // A COPY that has no end.
    let endless = look(&blocks(&many[..5]), &many, 10_000, 1).expect("it fits");
    assert_eq!(endless.different, [Found { index: 0, rows: 1_100_000, detail: Detail::Added }]);
    let other = [vec![row(4, 4)], many].concat();
    assert_eq!(look(&blocks(&other[2..7]), &other, 10_000, 1), Ok(looked(vec![unknown(0, 1_100_001)], 1)));
    let few = look(&blocks(&other[2..7]), &other[..100_000], 10_000, 1).expect("it fits").different;
    assert!(matches!(&few[0].detail, Detail::Rows(prefixes) if prefixes.len() <= LISTED), "{few:?}");
}

/// Expected are a hundred thousand equal rows; others came in their place.
#[test]
fn a_block_that_has_no_room_is_a_difference_unless_its_rows_are_as_many_as_they_should_be() {
    let expected = blocks(&vec![row(1, 1); 100_000]);
    let other = |count| (0..count).map(|seed| row(1, seed)).collect::<Vec<_>>();
    assert_eq!(look(&expected, &other(99_999), 10_000, 1), Ok(looked(vec![unknown(0, 99_999)], 1)));
    assert_eq!(look(&expected, &other(100_001), 10_000, 1), Ok(looked(vec![unknown(0, 100_001)], 1)));
    assert_eq!(look(&expected, &other(100_000), 10_000, 1), Err(BlockTooLarge));
    // Another block that differs decides for the table.
    let two = blocks(&[vec![row(1, 1); 100_000], vec![row(2, 2); 7]].concat());
    let found = look(&two, &[other(100_000), vec![row(2, 2); 6]].concat(), 10_000, 0).expect("it differs");
    assert_eq!(found.different, [unknown(1, 6)]);
}

proptest! {
    #[test]
    fn what_is_found_does_not_depend_on_order_or_room(
        places in proptest::collection::vec(0u64..5_000, 1..4_000),
        lost in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        gained in proptest::collection::vec(0u64..5_000, 0..4),
        room in 1_500usize..5_000,
        order in 0..3,
    ) {
        let rows: Vec<Row> = places.iter().enumerate().map(|(at, place)| row(*place, at as u64)).collect();
        let expected = blocks(&rows);
        let mut restored = rows.clone();
        for index in lost {
            restored.remove(index.index(restored.len()));
            if restored.is_empty() { break; }
        }
        restored.extend(gained.iter().map(|place| row(*place, place + 1_000_000)));
        match order {
            0 => {}
            1 => restored.reverse(),
            _ => restored = shuffled(restored),
        }
        let found = look(&expected, &restored, room, 1).expect("no block is that large");
        // The other way to the same answer: sort everything, then compare.
        let mut collector = Collector::new(usize::MAX);
        for row in &restored {
            assert!(!collector.push(*row));
        }
        let entries = collector.sorted();
        let mut differing = Vec::new();
        for (index, wanted) in expected.iter().enumerate() {
            let end = expected.get(index + 1).map_or(u64::MAX, |next| next.first);
            let within = |place: u64| entries.partition_point(|entry| entry.row.place < place);
            let group = Group { first: wanted.first, entries: &entries[within(wanted.first)..within(end)] };
            let block = group.block();
            if block != *wanted {
                differing.push((index, block.rows));
            }
        }
        let found: Vec<(usize, u64)> = found.different.into_iter().map(|found| (found.index, found.rows)).collect();
        prop_assert_eq!(found, differing);
    }
}
