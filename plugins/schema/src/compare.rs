//! Goes through the pairs and tells what is not as in the backup.
use std::collections::BTreeMap;

use muster_check::report::{Finding, Severity};
use muster_check::text::{count, plural};

use crate::expected::judge;
use crate::merge::Pair;
use crate::object::Object;
use crate::options::Chosen;
use crate::words::changes;

/// From the worst on, with how many of each are listed: what is no failure must not take the place of one.
const SEVERITIES: [(Severity, u64); 3] = [(Severity::Failure, 400), (Severity::Warning, 100), (Severity::Info, 50)];
/// Relations that only one side has, and that are listed; with the above it stays below what a check may report.
const LONE: u64 = 400;

pub(crate) struct Comparison<F> {
    chosen: Chosen,
    tell: F,
    /// As [`SEVERITIES`] has them.
    told: [u64; SEVERITIES.len()],
    /// What was not told because there was too much, apart, because a sum is no worse than its parts.
    untold: [u64; SEVERITIES.len()],
    tables: BTreeMap<String, Lone>,
    tally: Tally,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    same: u64,
    missing: u64,
    added: u64,
    changed: u64,
    moved: u64,
}

/// A relation that only one side has, and what belongs to it: told once, when all of that is known.
struct Lone {
    label: String,
    missing: bool,
    belongings: BTreeMap<String, u64>,
}

impl<F: FnMut(Finding)> Comparison<F> {
    pub(crate) fn new(chosen: Chosen, tell: F) -> Self {
        Self {
            chosen,
            tell,
            told: [0; SEVERITIES.len()],
            untold: [0; SEVERITIES.len()],
            tables: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn pair(&mut self, pair: &Pair) {
        match pair {
            Pair::Missing(object) if self.chosen.takes(object) => self.missing(object),
            Pair::Added(object) if self.chosen.takes(object) => self.added(object),
            Pair::Both(expected, found) if self.chosen.takes(expected) => self.both(expected, found),
            Pair::Missing(_) | Pair::Added(_) | Pair::Both(..) => {}
        }
    }

    fn missing(&mut self, object: &Object) {
        if object.kind == "function in pg_catalog" {
            let message = "no dump carries what was put into pg_catalog, so it was not restored";
            return self.say(object, Severity::Warning, message.to_owned());
        }
        self.tally.missing += 1;
        if !self.lone(object, true) {
            self.say(object, Severity::Failure, "missing".to_owned());
        }
    }

    fn added(&mut self, object: &Object) {
        match (object.kind.as_str(), object.identity.as_str()) {
            ("schema", "public") => {
                let message = "not in the backup: every new database has it, and no dump removes it";
                return self.say(object, Severity::Info, message.to_owned());
            }
            ("function in pg_catalog", _) => {
                self.tally.added += 1;
                let message = "was put into pg_catalog, where it can answer for PostgreSQL's own";
                return self.say(object, Severity::Failure, message.to_owned());
            }
            _ => {}
        }
        self.tally.added += 1;
        if !self.lone(object, false) {
            self.say(object, Severity::Failure, "not in the backup".to_owned());
        }
    }

    /// True where it is a relation, or belongs to one that only the same side has.
    fn lone(&mut self, object: &Object, missing: bool) -> bool {
        if object.kind == "relation" {
            let lone = Lone { label: object.label(), missing, belongings: BTreeMap::new() };
            self.tables.insert(object.identity.clone(), lone);
            return true;
        }
        let Some(table) = object.table().and_then(|table| self.tables.get_mut(&table)) else { return false };
        if table.missing != missing {
            return false;
        }
        // Its columns say all about their order.
        if object.kind != "relation column order" {
            *table.belongings.entry(object.counted().to_owned()).or_default() += 1;
        }
        true
    }

    fn both(&mut self, expected: &Object, found: &Object) {
        if expected.content == found.content {
            self.tally.same += 1;
            return;
        }
        let (before, after) = (expected.content(), found.content());
        let judged = judge(&expected.kind, &before, &after, changes(&before, &after));
        self.tally.moved += u64::from(judged.moved);
        let failed = judged.told.iter().any(|(severity, _)| *severity == Severity::Failure);
        *(if failed { &mut self.tally.changed } else { &mut self.tally.same }) += 1;
        for (severity, message) in judged.told {
            self.say(expected, severity, message);
        }
    }

    fn say(&mut self, object: &Object, severity: Severity, message: String) {
        let (at, most) = rank(severity);
        if self.told[at] == most {
            self.untold[at] += 1;
            return;
        }
        self.told[at] += 1;
        let details = vec![("kind".to_owned(), object.kind.clone()), ("identity".to_owned(), object.identity.clone())];
        (self.tell)(Finding { severity, subject: object.label(), message, details });
    }

    /// Tells what waited for the end. The summary, or why there is none.
    pub(crate) fn finish(mut self) -> Result<String, String> {
        let tables = std::mem::take(&mut self.tables);
        for (told, (identity, lone)) in (0..).zip(tables) {
            if told >= LONE {
                self.untold[rank(Severity::Failure).0] += 1;
                continue;
            }
            let details = vec![("kind".to_owned(), "relation".to_owned()), ("identity".to_owned(), identity)];
            let message = lone.message();
            (self.tell)(Finding { severity: Severity::Failure, subject: lone.label, message, details });
        }
        for (untold, (severity, _)) in self.untold.into_iter().zip(SEVERITIES).filter(|(untold, _)| *untold > 0) {
            let noun = match severity {
                Severity::Failure => "failure",
                Severity::Warning => "warning",
                Severity::Info => "remark",
            };
            let verb = if untold == 1 { "is" } else { "are" };
            let message = format!("{} beyond these {verb} not listed", plural(untold, noun));
            (self.tell)(Finding { severity, subject: "more".to_owned(), message, details: Vec::new() });
        }
        if self.tally.moved > 0 {
            let message =
                format!("{} stood in a tablespace; a drill restores without", plural(self.tally.moved, "relation"));
            let details = Vec::new();
            (self.tell)(Finding { severity: Severity::Info, subject: "tablespaces".to_owned(), message, details });
        }
        match self.chosen.unmatched() {
            Some((option, glob)) => {
                Err(format!("`{option}`: `{glob}` matches nothing on either side, is it misspelled?"))
            }
            None => Ok(self.tally.summary()),
        }
    }
}

/// Where it stands among the severities, and how many of it are listed.
fn rank(severity: Severity) -> (usize, u64) {
    match severity {
        Severity::Failure => (0, SEVERITIES[0].1),
        Severity::Warning => (1, SEVERITIES[1].1),
        Severity::Info => (2, SEVERITIES[2].1),
    }
}

impl Lone {
    fn message(&self) -> String {
        let what = if self.missing { "missing" } else { "not in the backup" };
        let belongings: Vec<String> = self.belongings.iter().map(|(kind, number)| several(*number, kind)).collect();
        match belongings.split_last() {
            None => what.to_owned(),
            Some((last, [])) => format!("{what}, and so {} {last}", are(&self.belongings)),
            Some((last, rest)) => format!("{what}, and so are {} and {last}", rest.join(", ")),
        }
    }
}

fn are(belongings: &BTreeMap<String, u64>) -> &'static str {
    if belongings.values().all(|number| *number == 1) { "is" } else { "are" }
}

/// `1 index`, `2 indexes`, `2 policies`.
fn several(number: u64, kind: &str) -> String {
    match (number, kind) {
        (2.., "index") => format!("{} indexes", count(number)),
        (2.., "policy") => format!("{} policies", count(number)),
        (_, "statistics") => format!("{} statistics", count(number)),
        _ => plural(number, kind),
    }
}

impl Tally {
    fn summary(&self) -> String {
        if self.missing + self.added + self.changed == 0 {
            return format!("{} as in the backup", plural(self.same, "object"));
        }
        let expected = self.same + self.missing + self.changed;
        let different = [(self.missing, "missing"), (self.added, "added"), (self.changed, "changed")];
        let different = different.iter().filter(|(number, _)| *number > 0);
        let different: Vec<String> = different.map(|(number, word)| format!("{} {word}", count(*number))).collect();
        format!("{} of {} as in the backup, {}", count(self.same), plural(expected, "object"), different.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, identity: &str, content: &str) -> Object {
        Object { kind: kind.to_owned(), identity: identity.to_owned(), content: content.to_owned() }
    }

    /// What is told of these pairs, and the summary.
    fn compared(options: &str, pairs: &[Pair]) -> (Vec<String>, Result<String, String>) {
        let mut told = Vec::new();
        let chosen = Chosen::new(serde_json::from_str(options).expect("options"));
        let tell = |finding: Finding| told.push(format!("{}: {}", finding.subject, finding.message));
        let mut comparison = Comparison::new(chosen, tell);
        pairs.iter().for_each(|pair| comparison.pair(pair));
        let summary = comparison.finish();
        (told, summary)
    }

    #[test]
    fn what_is_as_in_the_backup_is_counted() {
        let same = || Pair::Both(object("schema", "app", "{}"), object("schema", "app", "{}"));
        assert_eq!(compared("{}", &[same(), same()]), (vec![], Ok("2 objects as in the backup".to_owned())));
        let spaced = Pair::Both(object("schema", "app", r#"{"a": 1}"#), object("schema", "app", r#"{"a":1}"#));
        assert_eq!(compared("{}", &[spaced]), (vec![], Ok("1 object as in the backup".to_owned())));
    }

    #[test]
    fn every_difference_is_told_in_words() {
        let pairs = [
            Pair::Missing(object("relation index", "public.orders_customer", r#"{"table": "public.orders"}"#)),
            Pair::Both(
                object("relation column", "public.orders.total", r#"{"type": "numeric(10,2)"}"#),
                object("relation column", "public.orders.total", r#"{"type": "numeric(12,2)"}"#),
            ),
            Pair::Both(
                object("relation trigger", "stamp on public.orders", r#"{"enabled": "enabled"}"#),
                object("relation trigger", "stamp on public.orders", r#"{"enabled": "disabled"}"#),
            ),
            Pair::Added(object("function in pg_catalog", "format(text,public.pair)", "{}")),
            Pair::Added(object("schema", "public", "{}")),
        ];
        let (told, summary) = compared("{}", &pairs);
        let expected = [
            "index public.orders_customer: missing",
            "column public.orders.total: type numeric(10,2) expected, numeric(12,2) found",
            "trigger stamp on public.orders: is disabled, was enabled",
            "function format(text,public.pair): was put into pg_catalog, where it can answer for PostgreSQL's own",
            "schema public: not in the backup: every new database has it, and no dump removes it",
        ];
        assert_eq!(told, expected);
        assert_eq!(summary, Ok("0 of 3 objects as in the backup, 1 missing, 1 added, 2 changed".to_owned()));
    }

    #[test]
    fn what_belongs_to_a_missing_table_is_counted_with_it() {
        let of = |table: &str| format!(r#"{{"table": "{table}"}}"#);
        let pairs = [
            Pair::Missing(object("relation", "public.orders", r#"{"kind": "table"}"#)),
            Pair::Added(object("relation", "public.seen", r#"{"kind": "view"}"#)),
            Pair::Missing(object("relation column", "public.orders.id", &of("public.orders"))),
            Pair::Missing(object("relation column", "public.orders.total", &of("public.orders"))),
            Pair::Missing(object("relation column", "public.lines.id", &of("public.lines"))),
            Pair::Added(object("relation column", "public.seen.id", &of("public.seen"))),
            Pair::Missing(object("relation column order", "public.orders", &of("public.orders"))),
            Pair::Missing(object("relation index", "public.orders_pkey", &of("public.orders"))),
            Pair::Missing(object("sequence", "public.orders_id_seq", &of("public.orders"))),
        ];
        let (told, summary) = compared("{}", &pairs);
        let expected = [
            "column public.lines.id: missing",
            "table public.orders: missing, and so are 2 columns, 1 index and 1 sequence",
            "view public.seen: not in the backup, and so is 1 column",
        ];
        assert_eq!(told, expected);
        assert_eq!(summary, Ok("0 of 7 objects as in the backup, 7 missing, 2 added".to_owned()));
    }

    #[test]
    fn findings_end_before_a_check_may_have_no_more() {
        let numbers = 0..3000;
        let missing =
            |kind: &str, number| Pair::Missing(object(kind, &format!("public.a{number:05}"), r#"{"kind": "table"}"#));
        let pairs: Vec<Pair> = numbers
            .clone()
            .map(|number| missing("cast", number))
            .chain(numbers.map(|number| missing("relation", number)))
            .collect();
        let (told, summary) = compared("{}", &pairs);
        assert_eq!(told.len(), 801);
        assert_eq!(told[800], "more: 5,200 failures beyond these are not listed");
        assert_eq!(summary, Ok("0 of 6,000 objects as in the backup, 6,000 missing".to_owned()));
    }

    #[test]
    fn what_is_not_listed_is_no_worse_than_it_was() {
        let order = |names: &str| format!(r#"{{"columns": {names}, "inherits": true}}"#);
        let remark = |number: u64| {
            let object = |names| object("relation column order", &format!("public.c{number:03}"), &order(names));
            Pair::Both(object(r#"["a", "b"]"#), object(r#"["b", "a"]"#))
        };
        let warning = |number: u64| Pair::Missing(object("function in pg_catalog", &format!("f{number:03}()"), "{}"));
        let failure = std::iter::once(Pair::Missing(object("cast", "(a AS b)", "{}")));
        let pairs: Vec<Pair> = (0..451).map(remark).chain((0..102).map(warning)).chain(failure).collect();
        let mut told = Vec::new();
        let mut comparison = Comparison::new(Chosen::new(serde_json::from_str("{}").expect("options")), |finding| {
            told.push((finding.severity, finding.message));
        });
        pairs.iter().for_each(|pair| comparison.pair(pair));
        assert_eq!(comparison.finish(), Ok("451 of 452 objects as in the backup, 1 missing".to_owned()));
        assert_eq!(
            told[150..],
            [
                (Severity::Failure, "missing".to_owned()),
                (Severity::Warning, "2 warnings beyond these are not listed".to_owned()),
                (Severity::Info, "401 remarks beyond these are not listed".to_owned()),
            ]
        );
    }

    #[test]
    fn a_glob_that_chose_nothing_is_no_pass() {
        let (_, summary) = compared(r#"{"kinds": ["tables"]}"#, &[Pair::Missing(object("relation", "public.t", "{}"))]);
        assert!(summary.expect_err("inconclusive").contains("`kinds`: `tables` matches nothing"));
    }
}
