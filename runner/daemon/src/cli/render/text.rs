use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drill::ledger::{Event, Stamped, State};
use drill::phase::Phase;
use drill::unit;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::lines::{self, Line, Mark};
use crate::executor::{Observer, Update};

/// Live phases on a terminal; the same lines, one by one, on anything else.
pub struct Text {
    inner: Mutex<Inner>,
}

struct Inner {
    state: Option<State>,
    screen: Screen,
    /// Said only if the run does not pass.
    held_back: Option<Vec<Line>>,
}

impl Text {
    /// `quiet`: nothing is shown unless the run does not pass.
    pub fn new(quiet: bool) -> Self {
        let live = !quiet && std::io::stdout().is_terminal();
        let screen = Screen { live: live.then(Live::default), colour: colour() };
        Self { inner: Mutex::new(Inner { state: None, screen, held_back: quiet.then(Vec::new) }) }
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
            Update::Log { .. } | Update::Alert(_) => {}
            Update::KeyMade { directory } => inner.say([lines::key_made(directory)]),
        }
    }
}

impl Inner {
    fn event(&mut self, stamped: &Stamped) {
        match (&mut self.state, &stamped.event) {
            (state @ None, Event::Started(started)) => *state = Some(State::new(started.clone())),
            (Some(state), _) => {
                // The journal has applied it already; a view of it never decides anything.
                let _ = state.apply(stamped);
            }
            (None, _) => {}
        }
        let Some(state) = self.state.clone() else { return };
        match &stamped.event {
            Event::Started(_) => self.say(lines::head(&state)),
            Event::PhaseStarted { phase } if *phase != Phase::Validate => self.screen.begin(phase.as_str()),
            Event::PhaseEnded { phase, duration, outcome } => {
                self.screen.finish(phase.as_str());
                self.say(lines::phase_ended(*phase, *duration, outcome));
            }
            Event::Finding(finding) => self.say(lines::finding(finding)),
            Event::CheckEnded(check) => {
                self.screen.finish(&check.check);
                self.say(lines::check_ended(check, &state));
            }
            Event::Ended { leftovers } => {
                if let Some(summary) = &state.summary {
                    let evidence = state.evidence.as_ref().map(|(path, ..)| path.as_str());
                    self.say(lines::end(&state, summary, *leftovers, evidence));
                    if summary.verdict != drill::verdict::Verdict::Passed
                        || *leftovers == drill::verdict::Leftovers::Some
                    {
                        self.release_held_back();
                    }
                }
            }
            _ => {}
        }
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
    colour: bool,
}

#[derive(Default)]
struct Live {
    bars: MultiProgress,
    running: BTreeMap<String, ProgressBar>,
}

impl Screen {
    fn begin(&mut self, name: &str) {
        let Some(live) = &mut self.live else { return };
        if live.running.contains_key(name) {
            return;
        }
        let bar = live.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("  {spinner} {prefix:<10} {elapsed:>7}   {wide_msg}"));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        live.running.insert(name.to_owned(), bar);
    }

    fn progress(&mut self, name: &str, text: &str, share: Option<usize>) {
        let Some(bar) = self.live.as_ref().and_then(|live| live.running.get(name)) else { return };
        match share {
            Some(done) => bar.set_message(format!("{}{}  {text}", "█".repeat(done), "░".repeat(WIDTH - done))),
            None => bar.set_message(text.to_owned()),
        }
    }

    fn finish(&mut self, name: &str) {
        let Some(live) = &mut self.live else { return };
        if let Some(bar) = live.running.remove(name) {
            bar.finish_and_clear();
            live.bars.remove(&bar);
        }
    }

    fn print(&self, line: &Line) {
        let text = self.dress(line);
        match &self.live {
            Some(screen) => {
                // A terminal that is gone is noticed by the signal that follows.
                let _ = screen.bars.println(text);
            }
            None => {
                let _ = writeln!(std::io::stdout().lock(), "{text}");
            }
        }
    }

    fn dress(&self, line: &Line) -> String {
        if line.text.is_empty() {
            return String::new();
        }
        let sign = line.mark.sign();
        match (self.colour, line.mark) {
            (false, _) | (_, Mark::None) => format!("  {sign} {}", line.text),
            (true, Mark::Good) => format!("  \u{1b}[32m{sign}\u{1b}[0m {}", line.text),
            (true, Mark::Bad) => format!("  \u{1b}[31m{sign}\u{1b}[0m {}", line.text),
            (true, Mark::Unsure | Mark::Warning) => format!("  \u{1b}[33m{sign}\u{1b}[0m {}", line.text),
        }
    }
}

fn colour() -> bool {
    let asked_not_to = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !asked_not_to
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn share(done: u64, total: Option<u64>) -> Option<usize> {
    let total = total.filter(|total| *total > 0)?;
    usize::try_from(done.min(total).saturating_mul(20) / total).ok()
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
