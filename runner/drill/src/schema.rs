//! The schema of a database as the backup's baseline has it: JSON lines, a [`Header`] first, then one [`Object`] a line, sorted by
//! the bytes of kind and identity, so that neither side ever holds it as one text.
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub const VERSION: u32 = 1;
/// Bytes of an identity: a function may have a hundred arguments.
pub const MAX_IDENTITY: usize = 64 << 10;
/// Bytes of a content. What would be larger has its length and digest there.
pub const MAX_CONTENT: usize = 264 << 10;
/// What a line holds beside both, and what escapes add to the identity.
const MAX_LINE: usize = MAX_CONTENT + 6 * MAX_IDENTITY + 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    pub schema: u32,
    pub database: String,
    /// What muster itself revoked from the restored database before anybody looked. Never in a backup: the runner adds it for
    /// the agent, which counts it as still granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<Taken>,
}

/// One privilege, as it stood in the `acl` of an object, or as it differed from what a system object came with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taken {
    pub kind: String,
    pub identity: String,
    /// Such as `SELECT to PUBLIC`.
    pub entry: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    /// Such as `relation column`.
    pub kind: String,
    /// Names it among its kind, such as `public.orders.total`.
    pub identity: String,
    /// A JSON object of what counts.
    pub content: Box<RawValue>,
}

impl Object {
    pub fn key(&self) -> (&str, &str) {
        (&self.kind, &self.identity)
    }

    /// What was read of a server, checked: it is not trusted. The error says what is wrong.
    pub fn new(kind: &str, identity: String, content: String) -> Result<Self, String> {
        if identity.len() > MAX_IDENTITY || content.len() > MAX_CONTENT {
            return Err(format!("a {kind} has a name or a description that is larger than any could be"));
        }
        let content = RawValue::from_string(content).ok().filter(|content| content.get().starts_with('{'));
        let content = content.ok_or_else(|| format!("the description of {kind} {identity} is no JSON object"))?;
        Ok(Self { kind: kind.to_owned(), identity, content })
    }
}

/// Sees that objects come in order. The error says where they do not.
#[derive(Debug, Default)]
pub struct Order {
    last: Option<(String, String)>,
}

impl Order {
    pub fn follows(&mut self, object: &Object) -> Result<(), String> {
        if let Some((kind, identity)) = &self.last
            && (kind.as_str(), identity.as_str()) >= object.key()
        {
            return Err(format!("{} {} stands after {kind} {identity}", object.kind, object.identity));
        }
        self.last = Some((object.kind.clone(), object.identity.clone()));
        Ok(())
    }
}

/// Reads a schema file one object at a time.
#[derive(Debug)]
pub struct Reader<B> {
    bytes: B,
    at: usize,
    line: u64,
    header: Header,
    order: Order,
}

impl<B: AsRef<[u8]>> Reader<B> {
    pub fn new(bytes: B) -> Result<Self, String> {
        let (line, at) = next_line(bytes.as_ref(), 0).ok_or("the schema file is empty")?;
        let header: Header =
            serde_json::from_slice(line).map_err(|error| format!("line 1 of the schema file: {error}"))?;
        if header.schema != VERSION {
            return Err(format!("the schema file has version {}, this muster reads {VERSION}", header.schema));
        }
        Ok(Self { bytes, at, line: 1, header, order: Order::default() })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// None at the end. After an error there is nothing more to read.
    pub fn next_object(&mut self) -> Option<Result<Object, String>> {
        let (line, at) = next_line(self.bytes.as_ref(), self.at)?;
        self.line += 1;
        let object = parse(line).and_then(|object| self.order.follows(&object).map(|()| object));
        self.at = if object.is_ok() { at } else { usize::MAX };
        Some(object.map_err(|why| format!("line {} of the schema file: {why}", self.line)))
    }
}

fn parse(line: &[u8]) -> Result<Object, String> {
    if line.len() > MAX_LINE {
        return Err("it is larger than any object could be".to_owned());
    }
    let object: Object = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let content: Box<str> = object.content.into();
    Object::new(&object.kind, object.identity, content.into())
}

/// The line that begins at `at`, and where the next one does.
fn next_line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    Some((&rest[..length], at.saturating_add(length + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"schema":1,"database":"orders"}
{"kind":"relation","identity":"public.lines","content":{"kind": "table"}}
{"kind":"relation","identity":"public.orders","content":{}}
{"kind":"relation column","identity":"public.lines.a","content":{"type":"text"}}
"#;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let mut reader = Reader::new(text.as_bytes())?;
        let objects = std::iter::from_fn(|| reader.next_object());
        objects.map(|object| object.map(|object| (object.identity, object.content.get().to_owned()))).collect()
    }

    #[test]
    fn objects_are_read_in_order_and_content_stays_as_it_was_written() {
        let objects = read(GOOD).expect("a good file");
        assert_eq!(objects[0], ("public.lines".to_owned(), r#"{"kind": "table"}"#.to_owned()));
        assert_eq!(objects.len(), 3);
        assert_eq!(read(GOOD.trim_end()).expect("without the last line's end").len(), 3);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| read(text).expect_err("a bad file");
        assert_eq!(wrong(""), "the schema file is empty");
        assert!(wrong(&GOOD.replace(":1,", ":2,")).contains("version 2"));
        assert!(wrong(&GOOD.replace("lines\",\"content", "zebras\",\"content")).starts_with("line 3 "));
        assert!(wrong(&GOOD.replace("orders\",\"content", "lines\",\"content")).contains("stands after"));
        assert!(wrong(&GOOD.replace("{}", "[]")).contains("no JSON object"));
        assert!(wrong(&GOOD.replace("{}", "{},\"x\":1")).contains("unknown field `x`"));
        let long = format!("\"{}\"", "x".repeat(MAX_CONTENT));
        assert!(wrong(&GOOD.replace("{}", &format!("{{\"a\":{long}}}"))).contains("larger than any"));
    }

    #[test]
    fn nothing_follows_an_error() {
        let bad = GOOD.replace("{}", "[]");
        let mut reader = Reader::new(bad.as_bytes()).expect("a header");
        let read: Vec<_> = std::iter::from_fn(|| reader.next_object()).take(9).map(|object| object.is_ok()).collect();
        assert_eq!(read, [true, false]);
    }
}
