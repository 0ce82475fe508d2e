//! What a plugin reports becomes series of `muster_check_metric`. The agent's word is checked again here: one label that Prometheus
//! does not take, or that comes twice, would cost the whole scrape.

/// Labels that say whose figure it is; a plugin cannot speak for another.
const OURS: [&str; 4] = ["drill", "check", "database", "metric"];
const NAME: usize = 100;
const LABELS: usize = 10;
/// Bytes of a label's value.
const VALUE: usize = 256;

/// One series of a drill.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    check: Box<str>,
    database: Box<str>,
    metric: Box<str>,
    labels: Box<[(String, String)]>,
}

impl Series {
    /// None where it cannot be a series.
    pub(super) fn new(check: &str, database: &str, metric: &str, labels: &[(String, String)]) -> Option<Self> {
        let mut labels = labels.to_vec();
        labels.sort();
        let names = labels.iter().map(|(name, _)| name.as_str());
        let are_new = names.clone().zip(names.clone().skip(1)).all(|(one, next)| one != next);
        let are_good = names.clone().all(|name| is_word(name) && !name.starts_with("__") && !OURS.contains(&name));
        let are_short = labels.len() <= LABELS && labels.iter().all(|(_, value)| value.len() <= VALUE);
        (is_word(metric) && are_new && are_good && are_short).then(|| Self {
            check: check.into(),
            database: database.into(),
            metric: metric.into(),
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

fn is_word(text: &str) -> bool {
    text.len() <= NAME
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prometheus_would_not_take_is_no_series() {
        let series = |metric: &str, labels: &[(&str, &str)]| {
            let labels: Vec<_> = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Series::new("freshness", "shop", metric, &labels)
        };
        let good = series("rows", &[("table", "public.orders"), ("kind", "x")]);
        assert_eq!(
            good.as_ref().map(|series| series.labels("orders")),
            Some(vec![
                ("drill", "orders"),
                ("check", "freshness"),
                ("database", "shop"),
                ("metric", "rows"),
                ("kind", "x"),
                ("table", "public.orders")
            ])
        );
        assert_eq!(good, series("rows", &[("kind", "x"), ("table", "public.orders")]), "their order says nothing");
        let long = "x".repeat(VALUE + 1);
        for labels in [
            &[("drill", "stock")][..],
            &[("metric", "other")],
            &[("a", "1"), ("b", "2"), ("a", "3")],
            &[("__name__", "muster_runs_total")],
            &[("a b", "1")],
            &[("", "1")],
            &[("a", &long)],
        ] {
            assert_eq!(series("rows", labels), None, "{labels:?}");
        }
        for metric in ["", "9", "a-b", "a\nb", "é", &long] {
            assert_eq!(series(metric, &[]), None, "{metric}");
        }
    }
}
