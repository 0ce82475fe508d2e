use bytes::{BufMut, Bytes, BytesMut};
use drill::agent::FromAgent;
use tokio::sync::mpsc;

use super::*;
use crate::agent::pieces::Waiting;
use crate::agent::report::Outbox;

fn block(first: u64, rows: u64) -> Block {
    Block { first, rows, digest: [0; 32] }
}

fn bytes(prefixes: &[u64]) -> Bytes {
    let mut bytes = BytesMut::new();
    for prefix in prefixes {
        bytes.put_u64(*prefix);
    }
    bytes.freeze()
}

/// The runner: gives one piece after the other. Where the agent asked for them.
async fn give(waiting: Waiting, mut asked: mpsc::Receiver<FromAgent>, pieces: Vec<Bytes>) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    let mut pieces = pieces.into_iter();
    while let Some(FromAgent::Want { id, at, length, .. }) = asked.recv().await {
        all.push((at, length));
        assert!(waiting.deliver(id, pieces.next().unwrap_or_default()));
    }
    all
}

#[tokio::test]
async fn how_many_rows_differ_is_left_out_where_it_cannot_be_known() {
    let expected = [block(0, 2), block(10, 1_000_001), block(20, 3), block(30, 1), block(40, 1)];
    let (send, receive) = mpsc::channel(1);
    let waiting = Waiting::default();
    let runner = tokio::spawn(give(waiting.clone(), receive, vec![bytes(&[5, 6]), bytes(&[1, 2, 3])]));
    let pieces = Pieces::new("shop", waiting, Outbox::new(send));
    let mut row_digests = RowDigests::new(&pieces, Some(800));
    let found = [Prefixes { prefix: 5, rows: 2 }, Prefixes { prefix: 9, rows: 1 }];
    assert_eq!(row_digests.different(&expected, 0, &found).await, Some(2));
    assert_eq!(row_digests.different(&expected, 2, &found).await, Some(3));
    assert_eq!(row_digests.different(&expected, 3, &found).await, None, "there is no more of the file");
    assert_eq!(row_digests.different(&expected, 4, &found).await, None);
    drop(pieces);
    // Of the block of a million rows there are none; after one that is missing, nobody asks again.
    assert_eq!(runner.await.expect("it ends"), [(800, 16), (816, 24), (840, 8)]);

    let pieces = Pieces::new("shop", Waiting::default(), Outbox::new(mpsc::channel(1).0));
    assert_eq!(RowDigests::new(&pieces, Some(0)).different(&[], 0, &found).await, Some(3), "of a table without rows");
    assert_eq!(RowDigests::new(&pieces, None).different(&expected, 0, &found).await, None);
}
