//! Names that mean something: each is checked where it is made and cannot be confused with another.
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{given}` is not {wanted}")]
pub struct BadName {
    given: String,
    wanted: &'static str,
}

/// The name of a drill: a DNS label of at most 30 characters, because `dr-sandbox-<run>` must be a DNS label too. Shared, because a
/// daemon has it in many places at one time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DrillName(Arc<str>);

impl DrillName {
    pub const MAX: usize = 30;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DrillName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if is_dns_label(text) && text.len() <= Self::MAX {
            Ok(Self(text.into()))
        } else {
            Err(BadName { given: text.to_owned(), wanted: "a DNS label of at most 30 characters (a-z, 0-9 and -)" })
        }
    }
}

/// One execution of a drill, such as `orders-nightly-20261122t021500z-k7x2`: a DNS label of at most 52 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(Arc<str>);

impl RunId {
    const SUFFIX: &'static [u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

    /// `entropy` tells runs of one second apart; it need not be secret.
    pub fn new(drill: &DrillName, started: jiff::Timestamp, entropy: [u8; 4]) -> Self {
        let suffix: String = entropy.iter().map(|byte| char::from(Self::SUFFIX[usize::from(byte % 32)])).collect();
        Self(format!("{drill}-{}-{suffix}", started.strftime("%Y%m%dt%H%M%Sz")).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last four characters, for names too short to hold a whole run id.
    pub fn suffix(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl FromStr for RunId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if is_dns_label(text) && text.len() <= 52 && text.len() > 4 {
            Ok(Self(text.into()))
        } else {
            Err(BadName { given: text.to_owned(), wanted: "a run, such as `orders-nightly-20261122t021500z-k7x2`" })
        }
    }
}

/// SHA-256 of some bytes; written `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Enough for a person to compare at a glance: `3fb1…9c2e`.
    pub fn short(&self) -> String {
        let hex = self.hex();
        format!("{}…{}", &hex[..4], &hex[60..])
    }
}

impl FromStr for Sha256Digest {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad =
            || BadName { given: text.to_owned(), wanted: "a SHA-256 digest (`sha256:` and 64 hexadecimal digits)" };
        let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

macro_rules! text_conversions {
    ($($name:ident),*) => {$(
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> { text.parse() }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String { name.to_string() }
        }
    )*};
}
text_conversions!(DrillName, RunId, Sha256Digest);

impl fmt::Display for DrillName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_is_a_dns_label_that_fits_behind_the_sandbox_prefix() {
        let drill: DrillName = "a".repeat(30).parse().expect("30 characters are allowed");
        let run = RunId::new(&drill, "2026-11-22T02:15:00Z".parse().expect("a time"), [255, 0, 7, 31]);
        assert_eq!(run.as_str(), format!("{}-20261122t021500z-9ah9", "a".repeat(30)));
        assert!(is_dns_label(&format!("dr-sandbox-{run}")));
        assert_eq!(run.as_str().parse::<RunId>().as_ref(), Ok(&run));
    }

    #[test]
    fn names_that_would_leave_a_path_or_a_label_are_refused() {
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "..", "a.b", &"a".repeat(31)] {
            assert!(bad.parse::<DrillName>().is_err(), "{bad}");
        }
    }
}
