//! Opens the backup that a run is about: the source that it was told to take, or the first of the drill's that is there.
//!
//! A source that is gone or cannot be reached gives way to the next one, and that is a finding. A source that is there and is
//! refused does not: a damaged primary is news, and an intact copy elsewhere must not cover it up.
use std::path::Path;
use std::time::{Duration, Instant};

use drill::ledger::{Artifact, Event, PhaseOutcome, Trigger, Vouched};
use drill::manifest::{Manifest, SnapshotTimeFrom};
use drill::phase::Phase;
use drill::port::Opened;
use drill::spec::{Place, Source};
use drill::stop::Stop;
use drill::verdict::Reason;

use super::phases::{Context, interrupted};

/// By how much the clocks of two machines may differ.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// Reads the manifest and checks its signature. Its time counts as part of verify.
pub(super) async fn open(context: &Context<'_>) -> Result<(Opened, Duration), Stop> {
    let begun = Instant::now();
    let result = first_that_is_there(context).await;
    let result = result.and_then(|opened| not_from_the_future(&opened.manifest).map(|()| opened));
    match result {
        Ok(mut opened) => {
            if let Some(volume) = context.request.drill.isolation.volume() {
                // A copy is what lies in both places: the same dumps elsewhere are another.
                opened.location = format!("{} and {volume}", opened.location);
            }
            context.journal.append(Event::Artifact(artifact(&opened))).await?;
            warn_of_what_is_unknown(context, &opened).await?;
            compare_with_primary(context, &opened).await?;
            Ok((opened, begun.elapsed()))
        }
        Err(stop) => {
            context.journal.append(Event::PhaseStarted { phase: Phase::Verify }).await?;
            context.journal.phase_ended(Phase::Verify, begun.elapsed(), PhaseOutcome::Stopped(stop.clone())).await?;
            let is_self_test = matches!(context.request.trigger, Trigger::SelfTest { .. });
            if stop.reason == Reason::ArtifactRefused && !is_self_test {
                let place = context.journal.state().source.unwrap_or_default();
                let places = context.request.drill.source.places();
                let source = places.iter().find(|(known, _)| *known == place).map(|(_, source)| match source {
                    Source::Manifest { path, .. } => path.clone(),
                    Source::Dump(dump) => dump.path.clone(),
                });
                let details = serde_json::json!({ "source": source, "reason": stop.reason });
                context.journal.raise("artifact-refused", &stop, details).await?;
            }
            Err(stop)
        }
    }
}

async fn first_that_is_there(context: &Context<'_>) -> Result<Opened, Stop> {
    let places = context.request.drill.source.places();
    let several = places.len() > 1;
    let wanted = context.request.only;
    let places: Vec<(Place, Source)> =
        places.into_iter().filter(|(place, _)| wanted.is_none_or(|wanted| wanted == *place)).collect();
    // One that hangs must leave time for the others.
    let share = u32::try_from(places.len()).unwrap_or(u32::MAX).max(1);
    let allowed = context.request.drill.deadlines.verify / share;
    let mut gone: Option<(Place, Stop)> = None;
    for (place, source) in places {
        if several {
            context.journal.append(Event::Source { place }).await?;
        }
        match open_one(context, &source, allowed).await {
            Ok(opened) => {
                if let Some((instead_of, stop)) = gone {
                    let message =
                        format!("{instead_of} is gone ({}): this is {place}, {}", stop.message, opened.location);
                    context.journal.warn("verify", "fallback", message).await?;
                }
                return Ok(opened);
            }
            Err(stop) if is_gone(context, &source, &stop).await => {
                // The primary is what people must mend, and so is what is said.
                gone.get_or_insert((place, stop));
            }
            Err(stop) => return Err(stop),
        }
    }
    match gone {
        Some((_, stop)) => Err(stop),
        None => Err(Stop::internal("the drill has no such source")),
    }
}

async fn open_one(context: &Context<'_>, source: &Source, allowed: Duration) -> Result<Opened, Stop> {
    let opening = tokio::time::timeout(allowed, context.ports.artifacts.open(source, base(context)));
    tokio::select! {
        biased;
        () = context.cancel.asked() => Err(interrupted(Phase::Verify)),
        opened = opening => opened.unwrap_or_else(|_| {
            Err(Stop::new(Reason::SourceUnreachable, "the backup's manifest could not be read within the deadline"))
        }),
    }
}

async fn is_gone(context: &Context<'_>, source: &Source, stop: &Stop) -> bool {
    match stop.reason {
        Reason::SourceUnreachable => true,
        Reason::ArtifactRefused => !context.ports.artifacts.is_there(source, base(context)).await,
        _ => false,
    }
}

pub(super) fn base<'a>(context: &Context<'a>) -> &'a Path {
    context.request.drill_file.parent().unwrap_or(Path::new("/"))
}

/// A fallback should hold the same backup. Where the primary can be read, that is known.
async fn compare_with_primary(context: &Context<'_>, opened: &Opened) -> Result<(), Stop> {
    let used = context.journal.state().source;
    let Some(Place::Fallback(_)) = used else { return Ok(()) };
    let Some((_, primary)) = context.request.drill.source.places().into_iter().next() else { return Ok(()) };
    let allowed = context.request.drill.deadlines.preflight;
    let taken = opened.manifest.snapshot_time.map_or_else(|| "nobody knows when".to_owned(), |time| time.to_string());
    let message = match open_one(context, &primary, allowed).await {
        Ok(primary) if primary.digest == opened.digest => return Ok(()),
        Ok(primary) => {
            let other =
                primary.manifest.snapshot_time.map_or_else(|| "nobody knows when".to_owned(), |time| time.to_string());
            format!("it holds another backup than the primary: taken {taken}, and the primary's {other}")
        }
        Err(_) => format!(
            "whether it is the same backup as the primary's cannot be known, as that cannot be read: this one was taken {taken}"
        ),
    };
    context.journal.warn("verify", "fallback", message).await
}

/// What a person must not overlook in a result.
async fn warn_of_what_is_unknown(context: &Context<'_>, opened: &Opened) -> Result<(), Stop> {
    match opened.vouched {
        Vouched::Signature { .. } => {}
        Vouched::Sha256 => {
            let message =
                "nobody signed this dump: the drill pins its digest, and whoever writes the drill vouches for it";
            context.journal.warn("verify", "UNSIGNED", message.to_owned()).await?;
        }
        Vouched::Nobody => {
            let message = "nobody vouches for this dump: anybody who can write to its place can have made it; pin its digest or sign it";
            context.journal.warn("verify", "UNSIGNED", message.to_owned()).await?;
        }
    }
    let message = match opened.manifest.snapshot_time_from {
        SnapshotTimeFrom::Capture | SnapshotTimeFrom::DumpHeader | SnapshotTimeFrom::DumpHeaderInNamedZone => {
            return Ok(());
        }
        SnapshotTimeFrom::DumpHeaderReadAsUtc => {
            "the recovery point is measured from the dump's own header, which names no time zone: it was read as UTC"
        }
        SnapshotTimeFrom::Unknown => {
            "the recovery point is unknown: the dump does not say when it was begun, or not in which time zone"
        }
    };
    context.journal.warn("verify", "recovery point", message.to_owned()).await
}

/// A wrong clock must not make a backup look newer than it is.
fn not_from_the_future(manifest: &Manifest) -> Result<(), Stop> {
    let now = jiff::Timestamp::now();
    let Some(taken) = manifest.snapshot_time.filter(|taken| *taken > now + CLOCK_SKEW) else { return Ok(()) };
    let now = now.round(jiff::Unit::Second).unwrap_or(now);
    if manifest.snapshot_time_from == SnapshotTimeFrom::DumpHeaderReadAsUtc {
        let problem =
            format!("the dump's header, read as UTC, says that it was begun at {taken}, and here it is {now}");
        return Err(Stop::internal(problem)
            .advise("the header names no time zone: name the one of the machine that made the dump, as `timezone` or --timezone"));
    }
    Err(Stop::internal(format!("the backup was taken at {taken}, and here it is {now}: one of the clocks is wrong"))
        .advise("set the clock of this machine, or of the one that the backup was made from"))
}

fn artifact(opened: &Opened) -> Artifact {
    let manifest = &opened.manifest;
    Artifact {
        digest: opened.digest,
        name: manifest.name.clone(),
        location: opened.location.clone(),
        vouched: opened.vouched.clone(),
        size: manifest.total_size(),
        snapshot_time: manifest.snapshot_time,
        snapshot_time_from: manifest.snapshot_time_from,
        source_version: manifest.source.version.clone(),
        databases: manifest.parts.iter().map(|part| part.database.clone()).collect(),
    }
}
