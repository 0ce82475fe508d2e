//! What checks report for whoever watches a drill over time. It decides nothing, and evidence does not hold it.
use serde::{Deserialize, Serialize};

/// Figures that are kept of one run.
pub const FIGURES: usize = 200;

/// Labels that say whose figure it is; a check cannot speak for another.
const OURS: [&str; 4] = ["drill", "check", "database", "metric"];
/// Bytes of a name.
const NAME: usize = 100;
const LABELS: usize = 10;
/// Bytes of a label's value.
const VALUE: usize = 256;

/// A number that a check reports of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    pub name: String,
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Figure {
    /// None where Prometheus would not take it: one such series would cost the whole scrape.
    pub fn new(name: String, mut labels: Vec<(String, String)>, value: f64) -> Option<Self> {
        labels.sort();
        let names = labels.iter().map(|(name, _)| name.as_str());
        let are_new = names.clone().zip(names.clone().skip(1)).all(|(one, next)| one != next);
        let are_good = names.clone().all(|name| is_word(name) && !name.starts_with("__") && !OURS.contains(&name));
        let are_short = labels.len() <= LABELS && labels.iter().all(|(_, value)| value.len() <= VALUE);
        // The ledger is JSON, which has no word for the others.
        let is_good = is_word(&name) && are_new && are_good && are_short && value.is_finite();
        is_good.then_some(Self { name, labels, value })
    }

    /// Whether `other` is a newer or an older value of the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.name, &self.labels) == (&other.name, &other.labels)
    }
}

fn is_word(text: &str) -> bool {
    text.len() <= NAME
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_would_not_take_is_no_figure() {
        let figure = |name: &str, labels: &[(&str, &str)], value| {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Figure::new(name.to_owned(), labels, value)
        };
        let good = figure("rows", &[("table", "public.orders"), ("kind", "x")], 1.0);
        assert!(good.is_some());
        assert_eq!(good, figure("rows", &[("kind", "x"), ("table", "public.orders")], 1.0), "their order says nothing");
        let long = "x".repeat(VALUE + 1);
        for labels in [
            &[("drill", "stock")][..],
            &[("metric", "other")],
            &[("a", "1"), ("b", "2"), ("a", "3")],
            &[("__name__", "muster_runs_total")],
            &[("a b", "1")],
            &[("", "1")],
            &[("a", &long)],
            &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"].map(|name| (name, "1")),
        ] {
            assert_eq!(figure("rows", labels, 1.0), None, "{labels:?}");
        }
        for name in ["", "9", "a-b", "a\nb", "é", &long] {
            assert_eq!(figure(name, &[], 1.0), None, "{name}");
        }
        for value in [f64::NAN, f64::INFINITY] {
            assert_eq!(figure("rows", &[], value), None, "{value}");
        }
    }
}
