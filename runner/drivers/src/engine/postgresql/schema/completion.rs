//! What stands in no catalog: the state of a sequence and the bytes of a large object. Whoever reads asks once an object, and
//! puts the answer into its content.
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    Sequence,
    LargeObject,
}

/// Bytes of a page of a large object: LOBLKSIZE, a quarter of the server's block.
const PAGE: u64 = 2048;
/// Zeros that are hashed at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Completion {
    /// What to ask for the object of this identity. Of a sequence: `last_value` and `is_called` as text. Of a large object: the
    /// number and the bytes of each page, in order.
    pub fn statement(self, identity: &str) -> String {
        match self {
            Self::Sequence => {
                format!("SELECT pg_catalog.concat(last_value), pg_catalog.concat(is_called) FROM {identity}")
            }
            // Digits only, whatever the server calls it.
            Self::LargeObject => {
                let number: String = identity.chars().filter(char::is_ascii_digit).collect();
                format!(
                    "SELECT l.pageno, l.data FROM pg_catalog.pg_largeobject l \
                     WHERE l.loid OPERATOR(pg_catalog.=) '{number}'::pg_catalog.oid ORDER BY l.pageno"
                )
            }
        }
    }
}

/// False where a standby cannot read it.
pub fn readable(content: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(content).is_ok_and(|content| !content.contains_key("readable"))
}

/// The content with the state of its sequence. None where either is not what PostgreSQL would write.
pub fn with_state(content: &str, last_value: &str, is_called: &str) -> Option<String> {
    let called = match is_called {
        "t" => true,
        "f" => false,
        _ => return None,
    };
    let last = last_value.parse::<i64>().ok()?;
    with(content, [("lastValue", last.into()), ("called", called.into())])
}

/// The content with the digest of a large object's bytes.
pub fn with_bytes(content: &str, bytes: LargeObject) -> Option<String> {
    let (size, digest) = bytes.finish();
    with(content, [("size", size.into()), ("sha256", digest.into())])
}

fn with<const N: usize>(content: &str, more: [(&str, Value); N]) -> Option<String> {
    let mut content: Map<String, Value> = serde_json::from_str(content).ok()?;
    content.extend(more.map(|(key, value)| (key.to_owned(), value)));
    serde_json::to_string(&content).ok()
}

/// Hashes the pages of one large object as the bytes that a reader would get: what was never written is zeros.
#[derive(Default)]
pub struct LargeObject {
    hasher: Sha256,
    size: u64,
    /// Zeros that are still to be hashed before `page`.
    hole: u64,
    page: Vec<u8>,
}

impl LargeObject {
    /// False where pages do not come in order, or are larger than pages are.
    pub fn page(&mut self, number: u32, bytes: &[u8]) -> bool {
        let begin = u64::from(number) * PAGE;
        let Some(hole) = begin.checked_sub(self.size) else { return false };
        if bytes.len() as u64 > PAGE {
            return false;
        }
        self.hole = hole;
        self.page = bytes.to_vec();
        self.size = begin + bytes.len() as u64;
        true
    }

    /// Hashes a piece of what is still to be hashed; true while there is more. A hole can be terabytes long: whoever calls gives
    /// others a turn in between.
    pub fn step(&mut self) -> bool {
        let piece = self.hole.min(ZEROS.len() as u64);
        self.hole -= piece;
        self.hasher.update(&ZEROS[..usize::try_from(piece).unwrap_or(0)]);
        if self.hole == 0 {
            self.hasher.update(&self.page);
            self.page.clear();
        }
        self.hole > 0
    }

    fn finish(mut self) -> (u64, String) {
        while self.step() {}
        (self.size, hex::encode(self.hasher.finalize()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pages: &[(u32, &[u8])]) -> (u64, String) {
        let mut object = LargeObject::default();
        for (number, bytes) in pages {
            assert!(object.page(*number, bytes));
            while object.step() {}
        }
        object.finish()
    }

    #[test]
    fn holes_are_zeros() {
        let full = [0; 2048];
        let sparse = digest(&[(50, b"end")]);
        let mut written: Vec<(u32, &[u8])> = (0..50).map(|page| (page, full.as_slice())).collect();
        written.push((50, b"end"));
        assert_eq!(sparse, digest(&written));
        assert_eq!(sparse.0, 50 * 2048 + 3);
        // A short page in the middle is a hole, too.
        let mut page = [0; 2048];
        page[..1].copy_from_slice(b"a");
        assert_eq!(digest(&[(0, b"a"), (1, b"b")]), digest(&[(0, &page), (1, b"b")]));
        assert_ne!(digest(&[(0, b"a")]), digest(&[(0, b"a\0")]));
        assert_eq!(digest(&[]).1, hex::encode(Sha256::digest(b"")));
        assert!(!LargeObject::default().page(0, &[0; 2049]), "no page is so long");
    }

    #[test]
    fn what_was_asked_is_put_into_the_content() {
        let content = r#"{"start": 1, "increment": 1}"#;
        let with = with_state(content, "9223372036854775807", "t").expect("a state");
        assert_eq!(with, r#"{"called":true,"increment":1,"lastValue":9223372036854775807,"start":1}"#);
        assert_eq!(with_state(content, "1", "maybe"), None);
        assert!(readable(content) && !readable(r#"{"readable": false}"#));
        assert!(Completion::LargeObject.statement("1'; DROP").contains("'1'::pg_catalog.oid"));
    }
}
