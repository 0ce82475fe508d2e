use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drill::finding::{Finding, Severity};
use drill::ledger::{Event, Stamped, State};
use drill::phase::Phase;
use drill::unit;
use drill::verdict::{Leftovers, Verdict};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::follow;
use super::lines::{self, Line};
use crate::cli::style::{Mark, Style, clean};
use crate::executor::{Ended, Observer, Update};

/// Live phases on a terminal; the same lines, one by one, on anything else.
pub struct Text {
    inner: Mutex<Inner>,
}

struct Inner {
    state: Option<State>,
    screen: Screen,
    /// Said only if the run does not pass.
    held_back: Option<Vec<Line>>,
    /// Warnings by source, said under the line that they belong to.
    warnings: BTreeMap<String, Vec<Finding>>,
}

impl Text {
    /// `quiet`: nothing is shown unless the run does not pass.
    pub fn new(quiet: bool) -> Self {
        let live = if quiet { None } else { Live::on_stdout() };
        let screen = Screen { live, style: Style::of_stdout(), out: Box::new(std::io::stdout()) };
        Self::on(screen, quiet)
    }

    fn on(screen: Screen, quiet: bool) -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: None,
                screen,
                held_back: quiet.then(Vec::new),
                warnings: BTreeMap::new(),
            }),
        }
    }
}

impl Observer for Text {
    fn update(&self, update: Update<'_>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match update {
            Update::Event(stamped) => inner.event(stamped),
            Update::Progress { phase, done, total, unit } => {
                inner.screen.progress(phase.as_str(), &work(done, total, unit), share(done, total));
            }
            Update::Check { name, done, total, unit, .. } => {
                inner.screen.begin(name);
                inner.screen.progress(name, &work(done, total, unit), share(done, total));
            }
            // The run's own lines say what is wrong; the alert is for whoever is not looking.
            Update::Lease { .. } | Update::Log { .. } | Update::Alert(_) => {}
            Update::NotWritten(ended) => inner.not_written(ended),
            Update::KeyMade { directory } => inner.say([lines::key_made(directory)]),
        }
    }
}

impl Inner {
    fn event(&mut self, stamped: &Stamped) {
        follow(&mut self.state, stamped);
        let Some(state) = &self.state else { return };
        match &stamped.event {
            Event::Started(_) => {
                let lines = lines::head(state);
                self.say(lines);
            }
            Event::PhaseStarted { phase } if *phase != Phase::Validate => self.screen.begin(phase.as_str()),
            Event::PhaseEnded { phase, duration, outcome } => {
                self.screen.finish(phase.as_str());
                if *phase == Phase::Validate {
                    let cut_off = lines::checks_cut_off(state);
                    self.say(cut_off);
                }
                self.say(lines::phase_ended(*phase, *duration, outcome));
                self.say_warnings(phase.as_str());
            }
            Event::Finding(finding) if finding.severity == Severity::Warning => {
                self.warnings.entry(finding.source.clone()).or_default().push(finding.clone());
            }
            Event::CheckEnded(check) => {
                let lines = lines::check_ended(&check.check, state);
                if !lines.is_empty() {
                    self.screen.finish(&check.check);
                    self.say(lines);
                    self.say_warnings(&check.check);
                }
            }
            Event::Ended { leftovers } => {
                let Some(summary) = &state.summary else { return };
                let evidence = state.evidence.as_ref().map(|(path, ..)| path.as_str());
                let lines = lines::end(state, summary, *leftovers, evidence);
                let passed = summary.verdict == Verdict::Passed && *leftovers == Leftovers::None;
                for source in self.warnings.keys().cloned().collect::<Vec<_>>() {
                    self.say_warnings(&source);
                }
                self.say(lines);
                if !passed {
                    self.release_held_back();
                }
            }
            _ => {}
        }
    }

    fn not_written(&mut self, ended: &Ended) {
        let evidence = ended.state.evidence.as_ref().map(|(path, ..)| path.as_str());
        self.say(lines::end(&ended.state, &ended.summary, ended.leftovers, evidence));
        self.say(ended.trouble.as_ref().map(lines::not_written));
        self.release_held_back();
    }

    fn say_warnings(&mut self, source: &str) {
        let warnings = self.warnings.remove(source).unwrap_or_default();
        self.say(lines::warnings(&warnings));
    }

    fn say(&mut self, lines: impl IntoIterator<Item = Line>) {
        for line in lines {
            match &mut self.held_back {
                Some(held) => held.push(line),
                None => self.screen.print(&line),
            }
        }
    }

    fn release_held_back(&mut self) {
        for line in self.held_back.take().into_iter().flatten() {
            self.screen.print(&line);
        }
    }
}

/// Cells of a bar.
const WIDTH: usize = 20;

struct Screen {
    live: Option<Live>,
    style: Style,
    /// Where lines go while nothing is live.
    out: Box<dyn Write + Send>,
}

struct Live {
    bars: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
}

impl Live {
    /// None where nothing can be drawn, which is on whatever is no terminal, and on one that cannot move its cursor: what is
    /// said over hidden bars would be lost.
    fn on_stdout() -> Option<Self> {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        (!bars.is_hidden()).then(|| Self { bars, running: BTreeMap::new() })
    }
}

impl Screen {
    fn begin(&mut self, name: &str) {
        let Some(live) = &mut self.live else { return };
        if live.running.contains_key(name) {
            return;
        }
        let bar = live.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("  {spinner} {prefix:<10} {elapsed:>7}   {wide_msg}"));
        bar.set_prefix(clean(name));
        bar.enable_steady_tick(Duration::from_millis(120));
        live.running.insert(name.to_owned(), bar);
    }

    fn progress(&mut self, name: &str, text: &str, share: Option<usize>) {
        let Some(bar) = self.live.as_ref().and_then(|live| live.running.get(name)) else { return };
        let text = clean(text);
        match share.filter(|_| !self.style.is_narrow()) {
            Some(done) => bar.set_message(format!("{}{}  {text}", "█".repeat(done), "░".repeat(WIDTH - done))),
            None => bar.set_message(text),
        }
    }

    fn finish(&mut self, name: &str) {
        let Some(live) = &mut self.live else { return };
        if let Some(bar) = live.running.remove(name) {
            bar.finish_and_clear();
            live.bars.remove(&bar);
        }
    }

    fn print(&mut self, line: &Line) {
        let text = self.dress(line);
        match &self.live {
            Some(screen) => {
                // A terminal that is gone is noticed by the signal that follows.
                let _ = screen.bars.println(text);
            }
            None => {
                let _ = writeln!(self.out, "{text}");
            }
        }
    }

    fn dress(&self, line: &Line) -> String {
        if line.text.is_empty() && line.lead.is_empty() {
            return String::new();
        }
        let lead = match line.mark {
            Mark::None => format!("  {}", line.lead),
            mark => format!("  {} {}", self.style.sign(mark), line.lead),
        };
        self.style.hang(&lead, &line.text)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn share(done: u64, total: Option<u64>) -> Option<usize> {
    let total = total.filter(|total| *total > 0)?;
    usize::try_from(done.min(total).saturating_mul(WIDTH as u64) / total).ok()
}

fn work(done: u64, total: Option<u64>, what: &str) -> String {
    match (what, total) {
        ("", _) => String::new(),
        ("bytes", Some(total)) => format!("{} of {}", unit::size(done), unit::size(total)),
        ("bytes", None) => unit::size(done),
        (_, Some(total)) => format!("{} of {} {what}", unit::count(done), unit::count(total)),
        (_, None) => format!("{} {what}", unit::count(done)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::needless_raw_string_hashes,
        reason = "a test; expect-test writes the hashes"
    )]
    use std::path::Path;
    use std::sync::Arc;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::sample;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(events: Vec<Event>, quiet: bool) -> String {
        shown_with(Style::plain(), events, quiet)
    }

    fn shown_with(style: Style, events: Vec<Event>, quiet: bool) -> String {
        let page = Page::default();
        let screen = Screen { live: None, style, out: Box::new(page.clone()) };
        let view = Text::on(screen, quiet);
        let started = sample::started("orders", Path::new("evidence"));
        for stamped in sample::stamp(&started, events) {
            view.update(Update::Event(&stamped));
        }
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn golden(events: Vec<Event>, expected: &Expect) {
        // A first line without a margin keeps the margins of the others.
        expected.assert_eq(&format!("$ muster run orders.yaml\n{}", shown(events, false)));
    }

    #[test]
    fn a_run_that_passed() {
        golden(
            sample::passed(),
            &expect![[r#"
                $ muster run orders.yaml

                  orders-20261122t021500z-j8y2   fidelity production

                  ✓ preflight    0.1 s   PostgreSQL 15.18, 3 extensions, 2 roles
                  ✓ verify       0.9 s   1.2 GiB, signed by backup.pub
                  ✓ sandbox      0.4 s   sandbox up
                  ✓ probe        0.1 s   isolated: 1 probe closed, 1 control open
                  ✓ restore     20.1 s   1,204 entries, 1 database
                  !                      audit.remote: blocked by isolation: foreign table
                  ✓ lease        0.2 s   read-only role for 15 m
                  ✓ rows         0.6 s   38 tables, 12,402,118 rows
                  ✓ teardown     0.3 s   lease revoked and refused, sandbox gone

                  ✓ PASSED   recovery time 21.4 s of 30 m   recovery point 6 h 12 m of 1 d   boundaries cost 0.9 s (4 %)
                  evidence /var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json
            "#]],
        );
    }

    #[test]
    fn a_run_that_failed_says_what_to_do_next() {
        golden(
            sample::failed(),
            &expect![[r#"
                $ muster run orders.yaml

                  orders-20261122t021500z-j8y2   fidelity production

                  ✓ preflight    0.1 s   PostgreSQL 15.18, 3 extensions, 2 roles
                  ✓ verify       0.9 s   1.2 GiB, signed by backup.pub
                  ✓ sandbox      0.4 s   sandbox up
                  ✓ probe        0.1 s   isolated: 1 probe closed, 1 control open
                  ✓ restore     20.1 s   1,204 entries, 1 database
                  !                      audit.remote: blocked by isolation: foreign table
                  ✓ lease        0.2 s   read-only role for 15 m
                  ✗ rows         0.6 s   public.orders: 12 rows, and 13 in the backup's baseline
                  ? teardown     0.3 s   directory runs/orders is busy

                  ✗ FAILED   recovery time 21.4 s of 30 m   recovery point 6 h 12 m of 1 d   boundaries cost 0.9 s (4 %)
                  check rows failed: public.orders has 12 rows and should have 13
                  what to do: compare the backup with its source before you rely on it
                  ! something is left over: `muster reap` removes it
                  evidence /var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json
            "#]],
        );
    }

    #[test]
    fn a_narrow_terminal_breaks_between_words() {
        for columns in [40, 60] {
            let shown = shown_with(Style::of_columns(columns), sample::failed(), false);
            for line in shown.lines() {
                let whole_words = line.split_whitespace().count();
                assert!(whole_words <= 1 || textwrap::core::display_width(line) <= columns, "{columns}: {line}");
            }
            assert!(shown.contains("/var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json"), "{shown}");
        }
        expect![[r#"
            $ muster run orders.yaml
              orders-20261122t021500z-j8y2
              fidelity production

              ✓ preflight    0.1 s   PostgreSQL
                15.18, 3 extensions, 2 roles
              ✓ verify       0.9 s   1.2 GiB, signed
                by backup.pub
              ✓ sandbox      0.4 s   sandbox up
              ✓ probe        0.1 s   isolated: 1
                probe closed, 1 control open
              ✓ restore     20.1 s   1,204 entries,
                1 database
              ! audit.remote: blocked by isolation:
                foreign table
              ✓ lease        0.2 s   read-only role
                for 15 m
              ✗ rows         0.6 s   public.orders:
                12 rows, and 13 in the backup's
                baseline
              ? teardown     0.3 s   directory
                runs/orders is busy

              ✗ FAILED
                recovery time 21.4 s of 30 m
                recovery point 6 h 12 m of 1 d
                boundaries cost 0.9 s (4 %)
              check rows failed: public.orders has
              12 rows and should have 13
              what to do: compare the backup with
                          its source before you rely
                          on it
              ! something is left over: `muster
                reap` removes it
              evidence
              /var/lib/muster/evidence/orders-20261122t021500z-j8y2.dsse.json
        "#]]
        .assert_eq(&format!("$ muster run orders.yaml{}", shown_with(Style::of_columns(40), sample::failed(), false)));
    }

    #[test]
    fn a_check_has_one_line_for_all_databases_and_one_for_each_failure() {
        let row = |events| {
            let shown = shown(events, false);
            let lines = shown.lines().skip_while(|line| !line.contains(" lease ")).skip(1);
            lines
                .take_while(|line| !line.contains("teardown"))
                .fold("$ muster run".to_owned(), |all, line| all + "\n" + line)
        };
        expect![[r#"
            $ muster run
              ✓ rows         1.2 s   orders: 38 tables, 12,402,118 rows; stock: 38 tables, 12,402,118 rows"#]]
        .assert_eq(&row(sample::of_databases(&["orders", "stock"], false)));
        expect![[r#"
            $ muster run
              ✓ rows         4.8 s   a: 38 tables, 12,402,118 rows; b: 38 tables, 12,402,118 rows; c: 38 tables, 12,402,118 rows; d: 38 tables, 12,402,118 rows; e: 38 tables, 12,402,118 rows; and 3 databases more, all in the evidence"#]].assert_eq(&row(sample::of_databases(&["a", "b", "c", "d", "e", "f", "g", "h"], false)));
        expect![[r#"
            $ muster run
              ✗ rows         1.2 s   stock: public.orders: 12 rows, and 13 in the backup's baseline
              ? content      0.0 s   orders: unreachable"#]]
        .assert_eq(&row(sample::of_databases(&["orders", "stock"], true)));
    }

    #[test]
    fn nothing_hostile_reaches_the_terminal() {
        let shown = shown(sample::hostile(), false);
        assert!(shown.contains("\\u{1b}[2J"), "{shown}");
        let raw = shown.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(raw, None, "{shown}");
    }

    #[test]
    fn quiet_shows_all_of_a_failure_and_nothing_of_a_success() {
        assert_eq!(shown(sample::passed(), true), "");
        assert_eq!(shown(sample::failed(), true), shown(sample::failed(), false));
    }
}
