//! Where copies of one backup are, and which of them a run takes.
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Drill, Source, TrustedKey};

/// Another place of the same backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// Path of its `manifest.json`.
    pub path: String,
    /// Never empty; where the file names none, the primary's.
    pub trusted_keys: Vec<TrustedKey>,
}

/// What runs of a drill with fallbacks try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exercise {
    /// One run, of the first source that can be reached.
    #[default]
    First,
    /// One run a source, one after the other.
    All,
}

/// One of a drill's sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    #[default]
    Primary,
    /// From 1, as the drill file lists them.
    Fallback(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Fallback(number) => write!(f, "fallback {number}"),
        }
    }
}

impl Source {
    /// The primary, then each fallback, as sources of their own.
    pub fn places(&self) -> Vec<(Place, Self)> {
        let alone = |path: &String, trusted_keys: &Vec<TrustedKey>| Self::Manifest {
            path: path.clone(),
            trusted_keys: trusted_keys.clone(),
            fallbacks: Vec::new(),
            exercise: Exercise::First,
        };
        match self {
            Self::Dump(_) => vec![(Place::Primary, self.clone())],
            Self::Manifest { path, trusted_keys, fallbacks, .. } => {
                let others = (1..)
                    .zip(fallbacks)
                    .map(|(number, fallback)| (Place::Fallback(number), alone(&fallback.path, &fallback.trusted_keys)));
                std::iter::once((Place::Primary, alone(path, trusted_keys))).chain(others).collect()
            }
        }
    }
}

impl Drill {
    /// The runs that one order to drill means, one after the other. None: of the first source that can be reached; else of that
    /// source alone.
    pub fn runs(&self) -> Vec<Option<Place>> {
        match &self.source {
            Source::Manifest { exercise: Exercise::All, .. } => {
                self.source.places().into_iter().map(|(place, _)| Some(place)).collect()
            }
            Source::Manifest { exercise: Exercise::First, .. } | Source::Dump(_) => vec![None],
        }
    }
}
