//! What was to be shown, and whether it was.

use super::{
    Settings, Told,
    script::{Fault, Stage},
    tally::{good, quantile},
    traffic::End,
};
use std::time::Duration;

/// One thing that was to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) holds: bool,
    pub(crate) text: String,
}

/// What clients are promised.
const PROMISED: f64 = 0.97;
/// What upstreams may give at most, or else there is nothing to protect from.
const GIVEN: f64 = 0.70;
/// What clients may get without protection, or else the layers are of no use.
const UNPROTECTED: f64 = 0.85;
/// Kinds of faults that must have been met.
const KINDS: usize = 3;
/// From here on all is to be well again.
const AFTER: f64 = 0.955;
/// Half of what an attempt gets: who is late by as much measures the machine.
const BUSY: Duration = Duration::from_millis(250);
/// In a demo shorter than this some layers may have had nothing to do: scenes last a second.
const SHORT: Duration = Duration::from_secs(15);

pub(super) fn of(settings: Settings, stage: Stage, told: &Told) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut say = |holds: bool, text: String| lines.push(Line { holds, text });
    let (clients, given) = (told.clients.good().unwrap_or(0.0), told.given.good().unwrap_or(1.0));
    let (all, asked) = (told.clients.calls.len(), told.given.calls.len());
    let gave =
        format!("upstreams gave {} good answers to {asked} calls in turn (at most {})", percent(given), percent(GIVEN));
    let kinds = kinds(told);
    let names: Vec<_> = kinds.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    let met = format!("{} kinds of faults were met: {}", kinds.len(), names.join(", "));
    if !settings.protection {
        say(
            clients < UNPROTECTED,
            format!(
                "as expected without protection: {} of {all} calls were good (below {})",
                percent(clients),
                percent(UNPROTECTED)
            ),
        );
        say(given <= GIVEN, gave);
        say(kinds.len() >= KINDS, met);
        told.overload.verdict(stage, false, AFTER, &mut say);
        return lines;
    }

    let (served, degraded) = (told.clients.served().unwrap_or(0.0), told.clients.count(End::Degraded));
    say(
        served >= PROMISED,
        format!(
            "clients got {} of {all} calls good, and {degraded} degraded and marked: {} served (at least {})",
            percent(clients),
            percent(served),
            percent(PROMISED)
        ),
    );
    say(given <= GIVEN, gave);
    say(kinds.len() >= KINDS, met);
    let ends = [End::Refused, End::Failed, End::Overloaded, End::Cut, End::Hung, End::Unreachable, End::Late];
    let words = ["refused", "failed", "overloaded", "cut short", "given up", "unreachable", "late"];
    let lost = ends.into_iter().zip(words).map(|(end, word)| (told.clients.count(end), word));
    let lost: Vec<_> = lost.filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let once: Vec<_> = told.clients.calls.iter().filter(|call| call.once).copied().collect();
    let (posts, well) = (once.len(), once.iter().filter(|call| call.end == End::Good).count());
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
    let p99 = quantile(&told.clients.calls, 0.99);
    say(told.unanswered == 0, format!("every call ended: lost were {lost}; p99 of all {} ms", p99.as_millis()));
    say(true, format!("of {posts} POSTs, which nobody may repeat, {} went wrong, counted above", posts - well));

    told.overload.verdict(stage, true, AFTER, &mut say);
    let short = settings.length < SHORT;
    let acts = told.acts;
    let mut acted = |did: bool, text: String| {
        let why = if did || !short { "" } else { ": a demo of less than 15s may not come to it" };
        say(did || short, format!("{text}{why}"));
    };
    acted(acts.retried > 0, format!("retry: {} further attempts", acts.retried));
    acted(acts.denied > 0, format!("budget: {} retries denied", acts.denied));
    acted(acts.cut > 0, format!("deadline: {} attempts cut off", acts.cut));
    let closed = told.changes.iter().filter(|change| change.closed).count();
    acted(
        acts.opened > 0 && closed > 0,
        format!("breaker: opened {} times, closed {closed} times, refused {} calls", acts.opened, acts.refused),
    );
    acted(acts.full > 0, format!("bulkhead: {} calls refused", acts.full));
    acted(acts.tripped > 0, format!("canary: given up after {} calls", acts.canary));
    acted(acts.stale > 0, format!("stale: {} last good answers in place of failures", acts.stale));
    acted(acts.fixed > 0, format!("fallback: {} answers made beforehand", acts.fixed));
    let levels = told.changes.iter().filter(|change| change.role == "levels").count();
    acted(
        acts.off > 0 && levels > 1,
        format!("levels: changed {levels} times; the toggle of extras kept {} calls away", acts.off),
    );
    let astray = told.astray;
    acted(
        (astray.calls as f64) < astray.equal / 2.0,
        format!("balance: {} calls went to failing endpoints; equal shares were {:.0}", astray.calls, astray.equal),
    );

    let last = told.clients.calls.iter().filter(|call| call.began >= stage.at(AFTER));
    let after = good(last).unwrap_or(0.0);
    let open: Vec<_> =
        told.readings.iter().filter(|seen| seen.breaker == Some("open")).map(|seen| seen.role.name).collect();
    let state = if open.is_empty() { "no breaker is open".to_owned() } else { format!("open: {}", open.join(", ")) };
    say(
        after >= PROMISED && open.is_empty(),
        format!("after the faults {} of the calls were good, and {state}", percent(after)),
    );
    if told.lag >= BUSY && lines.iter().any(|line| !line.holds) {
        let text = format!("this machine was too busy: the demo itself was late by up to {} ms", told.lag.as_millis());
        lines.push(Line { holds: false, text });
    }
    lines
}

/// The faults that the unprotected client has met, and how often.
fn kinds(told: &Told) -> Vec<(Fault, usize)> {
    let met = |fault| match fault {
        Fault::Slow => End::Late,
        Fault::Errors => End::Failed,
        Fault::Refuses => End::Unreachable,
        Fault::Hangs => End::Hung,
        Fault::Cuts => End::Cut,
        Fault::Overload => End::Overloaded,
    };
    let kinds = Fault::ALL.map(|fault| (fault, told.given.count(met(fault))));
    kinds.into_iter().filter(|(_, count)| *count > 0).collect()
}

pub(super) fn percent(share: f64) -> String {
    // Never better than it is.
    format!("{:.1} %", (share * 1000.0).floor() / 10.0)
}
