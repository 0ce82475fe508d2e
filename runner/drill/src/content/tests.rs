#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "a method's path is for one lifetime of a group, and not for all"
)]
use std::collections::BTreeSet;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::baseline::{Bucketing, ContentDigest, DigestColumn, Form, Layout};

fn layout(form: Form, columns: usize, bucketing: Bucketing) -> Layout {
    let column = |number| DigestColumn { name: format!("c{number}"), type_name: "bytea".to_owned(), float: None };
    Layout { form, columns: (0..columns).map(column).collect(), bucketing }
}

fn row(place: u64, value: u64) -> Row {
    let mut hasher = RowHasher::new(Form::Binary);
    hasher.update(&place.to_be_bytes());
    hasher.update(&value.to_be_bytes());
    Row { place, digest: hasher.finish() }
}

fn sorted(rows: &[Row]) -> Vec<Entry> {
    let mut collector = Collector::new(MAX_HELD);
    for row in rows {
        assert!(!collector.push(*row));
    }
    collector.sorted().to_vec()
}

/// What `cut` hands on of each block.
fn cut_sorted<T>(
    entries: impl Iterator<Item = Entry>,
    max_held: usize,
    of: impl Fn(&Group<'_>) -> T,
) -> Result<Vec<T>, PlaceTooLarge> {
    let mut all = Vec::new();
    let done = cut(entries.map(Ok::<_, Infallible>), max_held, |groups| {
        all.extend(groups.iter().map(&of));
        Ok(())
    });
    done.expect("nothing fails").map(|()| all)
}

fn blocks(rows: &[Row]) -> Vec<Block> {
    cut_sorted(sorted(rows).into_iter(), MAX_HELD, |group| group.block()).expect("they fit")
}

/// The same with no more than `max_run` rows sorted at a time.
fn in_runs(rows: &[Row], max_run: usize, max_held: usize) -> Result<Vec<Block>, PlaceTooLarge> {
    let mut runs = Vec::new();
    let mut collector = Collector::new(max_run);
    for row in rows {
        if collector.push(*row) {
            assert!(collector.sorted().len() <= max_run);
            runs.push(collector.sorted().to_vec());
            collector.clear();
        }
    }
    runs.push(collector.sorted().to_vec());
    let runs = runs.into_iter().map(|run| run.into_iter().map(Ok::<_, Infallible>)).collect();
    cut_sorted(merge(runs).map(|entry| entry.expect("nothing fails")), max_held, |group| group.block())
}

/// Fields in the wire's form; None is NULL.
fn binary_row(fields: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = u16::try_from(fields.len()).expect("few").to_be_bytes().to_vec();
    for field in fields {
        match field {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(field) => {
                bytes.extend(i32::try_from(field.len()).expect("short").to_be_bytes());
                bytes.extend(field);
            }
        }
    }
    bytes
}

fn text_row(fields: &[Option<Vec<u8>>]) -> Vec<u8> {
    let field = |field: &Option<Vec<u8>>| match field {
        None => b"\\N".to_vec(),
        Some(field) => field
            .iter()
            .flat_map(|byte| match byte {
                b'\\' => b"\\\\".to_vec(),
                b'\t' => b"\\t".to_vec(),
                b'\n' => b"\\n".to_vec(),
                other => vec![*other],
            })
            .collect(),
    };
    let mut bytes = fields.iter().map(field).collect::<Vec<_>>().join(&b'\t');
    bytes.push(b'\n');
    bytes
}

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Messages as PostgreSQL sends them: the header is in the first row's message.
fn messages(form: Form, rows: &[Vec<Option<Vec<u8>>>]) -> Vec<Vec<u8>> {
    match form {
        Form::Text => rows.iter().map(|row| text_row(row)).collect(),
        Form::Binary => {
            let mut all: Vec<_> = rows.iter().map(|row| binary_row(row)).chain([vec![0xff, 0xff]]).collect();
            all[0].splice(0..0, HEADER.iter().copied());
            all
        }
    }
}

fn read(layout: &Layout, messages: &[Vec<u8>], piece: usize) -> Result<Vec<Row>, Malformed> {
    let mut reader = RowReader::new(layout)?;
    let mut rows = Vec::new();
    for message in messages {
        for piece in message.chunks(piece) {
            reader.feed(piece)?;
        }
        rows.extend(reader.end()?);
    }
    reader.finish()?;
    Ok(rows)
}

fn fields() -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    let hostile = prop::sample::select(b"\\\t\n\rN\0.a\xff".to_vec());
    prop::collection::vec(prop::option::of(prop::collection::vec(hostile, 0..6)), 3)
}

#[test]
fn a_header_may_come_alone_and_an_empty_table_has_no_rows() {
    let layout = layout(Form::Binary, 1, Bucketing::RowDigest);
    let one = binary_row(&[Some(b"x".to_vec())]);
    let together = vec![[HEADER, &one].concat(), vec![0xff, 0xff]];
    let alone = vec![HEADER.to_vec(), one, vec![0xff, 0xff]];
    assert_eq!(read(&layout, &together, 7), read(&layout, &alone, 64));
    assert_eq!(read(&layout, &together, 7).expect("well formed").len(), 1);
    assert_eq!(read(&layout, &[[HEADER, &[0xff, 0xff]].concat()], 64), Ok(vec![]));
}

#[test]
fn a_row_that_is_none_is_refused() {
    let binary = layout(Form::Binary, 1, Bucketing::RowDigest);
    let row = |bytes: &[u8]| {
        let messages = [[HEADER, bytes].concat(), vec![0xff, 0xff]];
        let [pieces, whole] = [5, 64].map(|piece| read(&binary, &messages, piece).map(drop));
        assert_eq!(pieces, whole);
        whole
    };
    assert_eq!(row(&[0, 1, 0, 0, 0, 1, 7]), Ok(()));
    assert_eq!(row(&[0, 2, 0, 0, 0, 1, 7]), Err(Malformed::Columns));
    assert_eq!(row(&[0, 1, 0, 0, 0, 2, 7]), Err(Malformed::Length));
    assert_eq!(row(&[0, 1, 0, 0, 0, 1, 7, 0]), Err(Malformed::Length));
    assert_eq!(row(&[0, 1, 0xff, 0xff, 0xff, 0xfe]), Err(Malformed::Length));
    assert_eq!(row(&[0xff, 0xff, 0]), Err(Malformed::AfterEnd));
    assert_eq!(read(&binary, &[b"PGCOPY\n\xff\r\n\0\0\0\0\x01\0\0\0\0".to_vec()], 64), Err(Malformed::Header));
    assert_eq!(read(&binary, &[HEADER.to_vec()], 64), Err(Malformed::Truncated));
    let text = layout(Form::Text, 2, Bucketing::RowDigest);
    let row = |bytes: &[u8]| read(&text, &[bytes.to_vec()], 2).map(drop);
    assert_eq!(row(b"a\\\tb\tc\n"), Ok(()));
    assert_eq!(row(b"a\tb\tc\n"), Err(Malformed::Columns));
    assert_eq!(row(b"a\n"), Err(Malformed::Columns));
    assert_eq!(row(b"a\tb"), Err(Malformed::Length));
    assert_eq!(row(b"a\tb\\\n"), Err(Malformed::Length));
    assert_eq!(row(b"a\tb\nc"), Err(Malformed::Length));
}

#[test]
fn an_integer_key_is_a_place_that_sorts_as_it_does() {
    let place = |form, bytes: &[u8]| {
        let layout = layout(form, 2, Bucketing::KeyRange { column: 1 });
        let rows = messages(form, &[vec![None, Some(bytes.to_vec())]]);
        let whole = read(&layout, &rows, 1000);
        assert_eq!(read(&layout, &rows, 3), whole);
        whole.expect("well formed")[0].place
    };
    let keys = [i64::MIN, -32_768, -1, 0, 1, 32_767];
    let binary = keys.map(|key| place(Form::Binary, &key.to_be_bytes()));
    assert!(binary.is_sorted());
    assert_eq!(binary, keys.map(|key| place(Form::Text, key.to_string().as_bytes())));
    for key in [-32_768_i16, -1, 0, 7] {
        let wide = place(Form::Binary, &i64::from(key).to_be_bytes());
        assert_eq!(place(Form::Binary, &key.to_be_bytes()), wide);
        assert_eq!(place(Form::Binary, &i32::from(key).to_be_bytes()), wide);
    }
    for none in [&b""[..], b"abc", &[0xff; 30]] {
        assert_eq!((place(Form::Binary, none), place(Form::Text, none)), (u64::MAX, u64::MAX));
    }
}

#[test]
fn a_layout_that_names_no_column_of_its_own_is_refused() {
    let keys = [
        Bucketing::KeyRange { column: 2 },
        Bucketing::KeyHash { columns: vec![0, 2] },
        Bucketing::KeyHash { columns: vec![] },
    ];
    for bucketing in keys {
        assert_eq!(RowReader::new(&layout(Form::Binary, 2, bucketing)).err(), Some(Malformed::Layout));
    }
    assert!(RowReader::new(&layout(Form::Text, 0, Bucketing::RowDigest)).is_err());
}

#[test]
fn a_block_ends_after_a_thousand_rows_with_its_place() {
    let rows: Vec<_> = (0..2500).map(|key| row(key, 0)).chain((0..3000).map(|value| row(999, value))).collect();
    let blocks = blocks(&rows);
    let shape: Vec<_> = blocks.iter().map(|block| (block.first, block.rows)).collect();
    assert_eq!(shape, [(0, 3999 + 1), (1000, 1000), (2000, 500)]);
}

#[test]
fn twenty_million_equal_rows_are_one_entry() {
    let mut collector = Collector::new(1000);
    for _ in 0..20_000_000 {
        assert!(!collector.push(Row { place: 7, digest: [1; 32] }), "it is never full");
    }
    let entries = collector.sorted().to_vec();
    assert_eq!(entries.len(), 1);
    assert_eq!(Entry::from_bytes(&entries[0].bytes()), entries[0]);
    let seen = cut_sorted(entries.into_iter(), 1000, |group| (group.block().rows, group.prefixes())).expect("it fits");
    assert_eq!(seen, [(20_000_000, vec![Prefixes { prefix: u64::from_be_bytes([1; 8]), rows: 20_000_000 }])]);
    assert_eq!((row_digests(20_000_000), row_digests(1_000_000)), (0, 1_000_000));
}

#[test]
fn a_place_that_holds_more_than_can_be_held_is_seen() {
    let rows: Vec<_> = (0..100).map(|value| row(5, value)).collect();
    assert_eq!(in_runs(&rows, 16, 99), Err(PlaceTooLarge));
    assert_eq!(in_runs(&rows, 16, 100), Ok(blocks(&rows)));
}

#[test]
fn what_cannot_be_read_of_a_run_is_no_end_of_it() {
    let entry = |place| Entry { row: row(place, 0), count: 1 };
    let runs = vec![vec![Ok(entry(1)), Err("gone"), Ok(entry(9))], vec![Ok(entry(2))]];
    let merged: Vec<_> = merge(runs.into_iter().map(Vec::into_iter).collect()).take(3).collect();
    assert!(merged.contains(&Err("gone")), "{merged:?}");
    let cut = cut(merged.into_iter(), MAX_HELD, |_| Ok(()));
    assert_eq!(cut, Err("gone"));
}

#[test]
fn the_tree_is_that_of_rfc_6962() {
    // Roots over the leaves d0, d0 d1, … of our own encoding, computed leaf by leaf.
    use sha2::{Digest, Sha256};
    let block = |rows| Block { first: rows, rows, digest: [0; 32] };
    let leaf = |rows| Sha256::new_with_prefix([0]).chain_update(block(rows).bytes()).finalize();
    let node = |a: &[u8], b: &[u8]| Sha256::new_with_prefix([1]).chain_update(a).chain_update(b).finalize();
    let all: Vec<_> = (0..5).map(block).collect();
    let four = node(&node(&leaf(0), &leaf(1)), &node(&leaf(2), &leaf(3)));
    assert_eq!(super::root::tree(&all)[..], node(&four, &leaf(4))[..]);
    assert_eq!(super::root::tree(&all[..3])[..], node(&node(&leaf(0), &leaf(1)), &leaf(2))[..]);
    assert_eq!(super::root::tree(&[])[..], Sha256::digest([])[..]);
}

#[test]
fn blocks_that_are_not_the_baselines_are_refused() {
    let rows: Vec<_> = (0..3000).map(|key| row(key, 0)).collect();
    let blocks = blocks(&rows);
    let content = digest(layout(Form::Binary, 1, Bucketing::RowDigest), &blocks, 0, None);
    let bytes = encode(&blocks);
    assert_eq!(decode(&bytes, &content), Ok(blocks.clone()));
    assert_eq!(decode(&bytes[1..], &content), Err(BadBlocks::Length));
    assert_eq!(decode(&bytes[48..], &content), Err(BadBlocks::Length));
    let mut changed = bytes.clone();
    changed[47] ^= 1;
    assert_eq!(decode(&changed, &content), Err(BadBlocks::Root));
    changed[48..56].fill(0);
    assert_eq!(decode(&changed, &content), Err(BadBlocks::Order));
    let json = serde_json::to_string(&content).expect("serializes");
    assert_eq!(serde_json::from_str::<ContentDigest>(&json).expect("parses"), content);
}

#[test]
fn how_the_rows_were_read_is_part_of_the_root() {
    let blocks = blocks(&[row(1, 1)]);
    let base = layout(Form::Binary, 2, Bucketing::KeyRange { column: 0 });
    let mut others = vec![base.clone(); 6];
    others[0].form = Form::Text;
    others[1].bucketing = Bucketing::KeyRange { column: 1 };
    others[2].bucketing = Bucketing::KeyHash { columns: vec![0] };
    others[3].bucketing = Bucketing::RowDigest;
    others[4].columns[1].type_name = "text".to_owned();
    others[5].columns[1].name = "c2".to_owned();
    let roots: BTreeSet<_> = others.iter().chain([&base]).map(|layout| root(layout, &blocks)).collect();
    assert_eq!(roots.len(), 7);
}

#[test]
fn rows_are_counted_as_different_once() {
    assert_eq!(rows_different([1, 2, 3], [1, 2, 3]), 0);
    assert_eq!(rows_different([1, 2, 3], [1, 3, 9]), 1);
    assert_eq!(rows_different([1, 2, 3], [2]), 2);
    assert_eq!(rows_different([2], [1, 2, 2]), 2);
    assert_eq!(rows_different([], []), 0);
}

proptest! {
    #[test]
    fn the_two_forms_find_the_same_fields(rows in prop::collection::vec(fields(), 1..5), piece in 1_usize..9) {
        let keyed = |form| layout(form, 3, Bucketing::KeyHash { columns: vec![0, 2] });
        let binary = read(&keyed(Form::Binary), &messages(Form::Binary, &rows), piece).expect("well formed");
        let text = read(&keyed(Form::Text), &messages(Form::Text, &rows), piece).expect("well formed");
        prop_assert_eq!(&binary, &read(&keyed(Form::Binary), &messages(Form::Binary, &rows), 1000).expect("whole"));
        prop_assert_eq!(&text, &read(&keyed(Form::Text), &messages(Form::Text, &rows), 1000).expect("whole"));
        for other in [Bucketing::RowDigest, Bucketing::KeyRange { column: 1 }] {
            let (layout, messages) = (layout(Form::Binary, 3, other), messages(Form::Binary, &rows));
            let pieces = read(&layout, &messages, piece);
            prop_assert!(pieces.is_ok());
            prop_assert_eq!(pieces, read(&layout, &messages, 1000));
        }
        for (a, one) in rows.iter().enumerate() {
            for (b, other) in rows.iter().enumerate() {
                let same_key = one[0] == other[0] && one[2] == other[2];
                for read in [&binary, &text] {
                    prop_assert_eq!(read[a].place == read[b].place, same_key);
                    prop_assert_eq!(read[a].digest == read[b].digest, one == other);
                }
            }
        }
    }

    #[test]
    fn garbage_is_the_same_in_pieces_of_any_size(
        begins in any::<bool>(),
        messages in prop::collection::vec(prop::collection::vec(prop::sample::select(b"\0\x01\x02\x03\xff\\\t\na7".to_vec()), 0..30), 0..4),
        piece in 1_usize..9,
    ) {
        for form in [Form::Binary, Form::Text] {
            for bucketing in [Bucketing::RowDigest, Bucketing::KeyRange { column: 1 }, Bucketing::KeyHash { columns: vec![0, 1] }] {
                let mut all = messages.clone();
                if begins {
                    all.insert(0, HEADER.to_vec());
                }
                let layout = layout(form, 2, bucketing);
                prop_assert_eq!(read(&layout, &all, piece), read(&layout, &all, 1000));
            }
        }
    }

    #[test]
    fn a_copy_that_is_cut_is_an_error(rows in prop::collection::vec(fields(), 1..4), cut in 0.0..1.0_f64) {
        for form in [Form::Binary, Form::Text] {
            let mut all = messages(form, &rows);
            let last = all.last_mut().expect("at least one");
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small length")]
            last.truncate(((last.len() as f64) * cut) as usize);
            let keyed = layout(form, 3, Bucketing::KeyHash { columns: vec![1] });
            let is_text_and_gone = form == Form::Text && all.last().is_some_and(Vec::is_empty);
            prop_assert!(is_text_and_gone || read(&keyed, &all, 5).is_err());
        }
    }

    #[test]
    fn neither_order_nor_runs_matter(
        places in prop::collection::vec((0_u64..4000, 0_u64..3), 0..6000),
        max_run in 2_usize..8000,
        max_held in 2500_usize..8000,
    ) {
        let mut rows: Vec<_> = places.iter().map(|(place, value)| row(place * 3, *value)).collect();
        let expected = blocks(&rows);
        prop_assert_eq!(expected.iter().map(|block| block.rows).sum::<u64>(), rows.len() as u64);
        prop_assert!(expected.is_sorted_by(|a, b| a.first < b.first));
        rows.reverse();
        prop_assert_eq!(&blocks(&rows), &expected);
        prop_assert_eq!(in_runs(&rows, max_run, max_held), Ok(expected));
    }

    #[test]
    fn one_row_changes_the_root_and_its_own_block(
        places in prop::collection::vec((0_u64..4000, 0_u64..2), 1..5000),
        which in any::<prop::sample::Index>(),
        change in 0..4,
    ) {
        let rows: Vec<_> = places.iter().map(|(place, value)| row(*place, *value)).collect();
        let expected = blocks(&rows);
        let layout = layout(Form::Binary, 1, Bucketing::KeyRange { column: 0 });
        let at = which.index(rows.len());
        let mut now = rows.clone();
        match change {
            0 => now[at] = row(rows[at].place, 99),
            1 => { now.remove(at); }
            2 => now.push(rows[at]),
            _ => now.push(row(rows[at].place, 99)),
        }
        prop_assert_ne!(root(&layout, &blocks(&now)), root(&layout, &expected));
        let first = |index: usize| expected.get(index).map(|block| block.first);
        let mut matcher = Matcher::new(&expected.clone().into(), MAX_HELD, 1);
        for row in &now {
            matcher.push(row);
        }
        prop_assert!(!matcher.end_pass());
        let different = matcher.finish().expect("it fits").different;
        prop_assert_eq!(different.len(), 1);
        let one = &different[0];
        let within = |place: u64| first(one.index).is_some_and(|first| first <= place)
            && first(one.index + 1).is_none_or(|end| place < end);
        prop_assert!(within(rows[at].place));
        prop_assert_eq!(one.rows + rows.len() as u64, expected[one.index].rows + now.len() as u64);
        let was = cut_sorted(sorted(&rows).into_iter(), MAX_HELD, |group| group.prefixes()).expect("they fit").swap_remove(one.index);
        let each = |all: &[Prefixes]| all.iter().flat_map(|prefixes| prefixes.each()).collect::<Vec<_>>();
        match &one.detail {
            Detail::Rows(is) => prop_assert_eq!(rows_different(each(&was), each(is)), 1),
            Detail::Added => prop_assert_eq!(one.rows, expected[one.index].rows + 1),
            Detail::Unknown => prop_assert!(false, "there was room"),
        }
    }
}
