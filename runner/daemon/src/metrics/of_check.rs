//! What a plugin reports becomes series of `muster_check_metric`.
use drill::ledger::{CheckEnded, Figure};

/// One series of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    check: Box<str>,
    database: Box<str>,
    metric: Box<str>,
    labels: Box<[(String, String)]>,
}

impl Series {
    /// None where it cannot be a series: what the ledger holds is looked at again.
    pub(super) fn new(ended: &CheckEnded, figure: &Figure) -> Option<Self> {
        let Figure { name, labels, .. } = Figure::new(figure.name.clone(), figure.labels.clone(), figure.value)?;
        Some(Self {
            check: ended.check.as_str().into(),
            database: ended.database.as_str().into(),
            metric: name.into(),
            labels: labels.into(),
        })
    }

    pub(super) fn labels<'a>(&'a self, drill: &'a str) -> Vec<(&'a str, &'a str)> {
        let whose: [(&str, &str); 4] =
            [("drill", drill), ("check", &self.check), ("database", &self.database), ("metric", &self.metric)];
        let labels = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        whose.into_iter().chain(labels).collect()
    }
}
