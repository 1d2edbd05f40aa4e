//! Totals and failures for people.

use std::fmt::Write;
use std::time::Duration;

use warren_engine::metrics::{BIND_KINDS, BIND_WHYS};

use crate::cover::{Cover, Path};
use crate::fault::Expected;
use crate::scenario::Between;
use crate::world::Totals;
use crate::{Failure, Settings};

/// Paths that a long run must have taken, whatever stands between: each is a reason for the simulation to exist.
const IMPORTANT: [Path; 40] = [
    Path::Session,
    Path::LoginRefused,
    Path::VhostRefused,
    Path::PipelinedOpen,
    Path::SmallFrames,
    Path::NumberReused,
    Path::ChannelClosed,
    Path::ConnectionClosed,
    Path::VanishedInContent,
    Path::VanishedInFrame,
    Path::PublishedLarge,
    Path::PublishedEmpty,
    Path::Interleaved,
    Path::Proved,
    Path::ConfirmSingle,
    Path::ConfirmMultiple,
    Path::Returned,
    Path::Committed,
    Path::RolledBack,
    Path::MissingExchange,
    Path::CrossingClose,
    Path::SentAfterError,
    Path::Redelivered,
    Path::GetOk,
    Path::GetEmpty,
    Path::AckMultiple,
    Path::AckAll,
    Path::Requeued,
    Path::Recovered,
    Path::Cancelled,
    Path::CancelledByBroker,
    Path::ServerNamedNoWait,
    Path::EmptyName,
    Path::Locked,
    Path::ReadOwnWrite,
    Path::ControlThenPublish,
    Path::PublishThenConsume,
    Path::ConsumeThenPublish,
    Path::Reply,
    Path::HeartbeatReceived,
];

/// What must have befallen a long run with faults.
const MISFORTUNES: [Path; 9] = [
    Path::Lost,
    Path::LostWhenQuiet,
    Path::LostAgain,
    Path::Hung,
    Path::BrokerClosed,
    Path::BrokerClosedForCause,
    Path::Outage,
    Path::Alarm,
    Path::ClosedByLoss,
];

/// What an engine that resumes must have done in one.
const RESUMED: [Path; 8] = [
    Path::KeptThroughLoss,
    Path::NackedAtLoss,
    Path::MovedUnsent,
    Path::ConsumerResumed,
    Path::AckSwallowed,
    Path::SettledAgain,
    Path::ReplayRefused,
    Path::SuspectSpared,
];

/// Runs from which on an important path that was never taken is a failure.
pub const ENOUGH_SEEDS: u64 = 2000;

/// Important paths that were never taken.
pub fn missed(totals: &Totals, settings: Settings) -> Vec<String> {
    let between = settings.between;
    let cover: &Cover = &totals.cover;
    let names = crate::cover::NAMES;
    let faults: &[Path] = match settings.faults {
        None => &[],
        Some(Expected::Closes) => &MISFORTUNES,
        Some(Expected::Resumes) => &RESUMED,
    };
    let always = if settings.faults == Some(Expected::Resumes) { &MISFORTUNES[..] } else { &[] };
    let never = IMPORTANT.iter().chain(faults).chain(always).filter(|&&path| cover.count(path) == 0);
    let mut missed: Vec<String> = never.map(|&path| names[path as usize].to_owned()).collect();
    if between == Between::Warren {
        let m = &totals.metrics;
        for (kind, row) in BIND_KINDS.iter().zip(&m.binds) {
            if row.iter().sum::<u64>() == 0 {
                missed.push(format!("bind {kind}"));
            }
        }
        missed.extend((cover.count(Path::Waited) == 0).then(|| "waited for a cap".to_owned()));
        missed.extend((m.barriers == 0).then(|| "barrier".to_owned()));
        missed.extend((m.hand_offs == 0).then(|| "hand-off".to_owned()));
    }
    missed
}

/// Totals of many runs.
pub fn totals(seeds: u64, totals: &Totals, took: Duration, between: Between) -> String {
    let mut text = String::new();
    let seconds = took.as_secs_f64().max(0.001);
    let _ = writeln!(
        text,
        "{seeds} seeds, {} steps, {} messages ({} taken by the broker), {} frames at the broker, in {seconds:.1} s \
         ({:.0} steps/s)",
        totals.steps,
        totals.messages,
        totals.accepted,
        totals.frames,
        totals.steps as f64 / seconds
    );
    for row in totals.cover.rows().collect::<Vec<_>>().chunks(4) {
        let cells: String = row.iter().map(|(name, count)| format!("  {name:<24}{count:>9}")).collect();
        let _ = writeln!(text, "{cells}");
    }
    if between == Between::Warren {
        let m = &totals.metrics;
        for (kind, row) in BIND_KINDS.iter().zip(&m.binds) {
            let cells: String =
                BIND_WHYS.iter().zip(row).map(|(why, count)| format!("  {why} {count}")).collect();
            let _ = writeln!(text, "  binds {kind}:{cells}");
        }
        let _ = writeln!(
            text,
            "  barriers {}  hand-offs {}  upstream connects {}  client connects {}  channel errors {}",
            m.barriers, m.hand_offs, m.upstream_connects, m.client_connects, m.channel_errors
        );
    }
    text
}

/// A failure, with the command that shows it again.
pub fn failure(failure: &Failure, settings: Settings) -> String {
    let mut text = String::new();
    for line in &failure.story {
        let _ = writeln!(text, "{line}");
    }
    let direct = if settings.between == Between::Nothing { " --direct" } else { "" };
    let steps = settings.steps.map(|steps| format!(" --steps {steps}")).unwrap_or_default();
    let clients = settings.clients.map(|clients| format!(" --clients {clients}")).unwrap_or_default();
    let faults = match settings.faults {
        None => "",
        Some(Expected::Closes) => " --closes",
        Some(Expected::Resumes) => " --resumes",
    };
    let options = format!("{steps}{clients}{faults}{direct}");
    let seed = failure.seed;
    let _ = writeln!(text, "seed {seed} failed at {}: {}", failure.when, failure.what);
    let _ = writeln!(text, "again: cargo run --release -p warren-sim -- --seed {seed}{options} --trace");
    text
}
