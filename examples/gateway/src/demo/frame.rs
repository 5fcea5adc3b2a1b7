//! What is shown at one moment, as a screen and as a line.

use super::{
    Settings,
    line::{Line, Look, bar, big, curve},
    overload,
    script::{self, Fault, Stage},
    tally::{POINTS, Tally},
    traffic::End,
    watch::{Acts, Change, Reading, Watch},
};
use std::time::Duration;
use tokio::time::Instant;

/// Where the right half of it begins.
const MIDDLE: usize = 42;
/// Changes that are shown.
const CHANGES: usize = 3;

/// One moment.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) settings: Settings,
    pub(crate) elapsed: Duration,
    pub(crate) caption: &'static str,
    pub(crate) clients: Side,
    pub(crate) given: Side,
    /// Each endpoint, and what the script does to it.
    pub(crate) endpoints: Vec<(Reading, Option<Fault>)>,
    /// In the last second.
    pub(crate) acts: Acts,
    /// The last ones, the latest at the end.
    pub(crate) changes: Vec<(Duration, &'static str, String)>,
    /// The cluster that more comes to than it can do.
    pub(crate) overload: overload::Reading,
}

/// What one kind of callers has got so far.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) good: Option<f64>,
    pub(crate) calls: usize,
    pub(crate) history: [Option<f64>; POINTS],
    /// Calls that got another answer, marked as such.
    pub(crate) degraded: usize,
    /// Calls that were no good.
    pub(crate) bad: usize,
}

impl Side {
    fn of(tally: &Tally) -> Self {
        let degraded = tally.count(End::Degraded);
        let bad = tally.calls.len() - tally.count(End::Good) - degraded;
        Self { good: tally.good(), calls: tally.calls.len(), history: tally.history(), degraded, bad }
    }

    fn look(&self) -> Look {
        self.good.map_or(Look::Dim, Look::of)
    }
}

impl Frame {
    pub(crate) fn new(
        settings: Settings,
        stage: Stage,
        now: Instant,
        watch: &Watch,
        [clients, given]: [&Tally; 2],
        changes: &[Change],
        overload: overload::Reading,
    ) -> Self {
        let share = stage.share(now);
        let since = |change: &Change| (change.at - stage.start, change.role, change.text.clone());
        let endpoints = watch.readings().into_iter().map(|seen| {
            let fault = seen.role.fault(share);
            (seen, fault)
        });
        Self {
            settings,
            elapsed: now - stage.start,
            caption: script::caption(share, settings.protection),
            clients: Side::of(clients),
            given: Side::of(given),
            endpoints: endpoints.collect(),
            acts: watch.second(),
            overload,
            changes: changes[changes.len().saturating_sub(CHANGES)..].iter().map(since).collect(),
        }
    }

    /// At most 24 lines.
    pub(crate) fn screen(&self) -> Vec<Line> {
        let mut lines = vec![self.title()];
        lines.extend(self.numbers());
        lines.push(Line::default().put("> ", Look::Dim).put(self.caption, Look::Bold));
        let head = Line::default().put("endpoint   does now     breaker    share  latency", Look::Dim);
        lines.push(head.at(54).put("layers, last second", Look::Dim));
        let mut acts = self.layers().into_iter();
        for (reading, fault) in &self.endpoints {
            let line = endpoint(reading, *fault).at(54);
            lines.push(match acts.next() {
                Some((text, acted)) => line.put(text, if acted { Look::Plain } else { Look::Dim }),
                None => line,
            });
        }
        lines.push(Line::default().put(self.overload.line(), Look::Plain));
        for (at, role, text) in &self.changes {
            let look = if text.contains("-> closed") { Look::Good } else { Look::Plain };
            let line = Line::default().put(format!("{:>6.1}s  {role:<7}", at.as_secs_f64()), Look::Dim);
            lines.push(line.put(text, look));
        }
        lines
    }

    fn title(&self) -> Line {
        let Settings { length, seed, protection } = self.settings;
        let share = self.elapsed.as_secs_f64() / length.as_secs_f64();
        let time = format!("{:>5.1} of {} s", self.elapsed.as_secs_f64(), length.as_secs());
        let name = if protection { "Buttress gateway" } else { "Buttress gateway, PROTECTION OFF" };
        let line = Line::default().put(name, Look::Bold).at(34);
        // A long seed is cut off, and nothing else.
        line.put(bar(share, 16), Look::Plain)
            .put(format!(" {time}"), Look::Plain)
            .put(format!("  seed {seed}"), Look::Dim)
    }

    /// The two numbers everything is about.
    fn numbers(&self) -> Vec<Line> {
        let [left, right] = [&self.clients, &self.given];
        let heads = ["what clients get, through the gateway", "what upstreams give, asked in turn"];
        let mut lines = vec![Line::default().put(heads[0], Look::Bold).at(MIDDLE).put(heads[1], Look::Bold)];
        let [l, r] = [left, right].map(|side| big(&format!("{}%", number(side.good))));
        for (l, r) in l.iter().zip(&r) {
            lines.push(Line::default().put(l, left.look()).at(MIDDLE).put(r, right.look()));
        }
        let line = Line::default().put(curve(&left.history), left.look()).at(MIDDLE);
        lines.push(line.put(curve(&right.history), right.look()));
        let counts = |side: &Side| match side.degraded {
            0 => format!("{} of {} calls were no good", side.bad, side.calls),
            degraded => format!("of {} calls {} no good, {degraded} degraded", side.calls, side.bad),
        };
        lines.push(Line::default().put(counts(left), Look::Dim).at(MIDDLE).put(counts(right), Look::Dim));
        lines
    }

    /// What each layer did, and whether it did anything.
    fn layers(&self) -> Vec<(String, bool)> {
        let acts = self.acts;
        let mut lines: Vec<_> = [
            ("retry", acts.retried, "repeated"),
            ("budget", acts.denied, "denied"),
            ("deadline", acts.cut, "cut off"),
            ("breaker", acts.opened, "opened"),
            ("", acts.refused, "refused"),
            ("bulkhead", acts.full, "refused"),
        ]
        .map(|(layer, count, did)| (format!("{layer:<9}{count:>4} {did}"), count > 0))
        .into();
        let (ailing, share) = self.ailing();
        lines.push((format!("balance  {share:>3.0}% to ailing", share = share * 100.0), ailing > 0));
        lines.push((format!("canary   {:>4} calls", acts.canary), acts.canary > 0));
        let degraded = acts.stale + acts.fixed;
        lines.push((format!("fallback {degraded:>4} degraded"), degraded > 0));
        lines
    }

    /// Endpoints with a fault, and the share of all calls that they got.
    fn ailing(&self) -> (usize, f64) {
        let cast = || self.endpoints.iter().filter(|(reading, _)| reading.role.name != script::CANARY.name);
        let ailing = || cast().filter(|(_, fault)| fault.is_some());
        let share = ailing().filter_map(|(reading, _)| reading.share).fold(0.0, |sum, share| sum + share);
        (ailing().count(), share / super::CLUSTERS.len() as f64)
    }

    /// One line, for where there is no screen.
    pub(crate) fn row(&self) -> String {
        let acts = self.acts;
        let mut did = Vec::new();
        for (count, what) in [
            (acts.retried, "retried"),
            (acts.denied, "denied"),
            (acts.cut, "cut"),
            (acts.opened, "opened"),
            (acts.refused, "refused"),
            (acts.full, "full"),
            (acts.shed, "shed"),
            (acts.stale, "stale"),
            (acts.fixed, "fallback"),
            (acts.tripped, "canary tripped"),
        ] {
            if count > 0 {
                did.push(format!("{what} {count}"));
            }
        }
        let faults = self.endpoints.iter().filter_map(|(reading, fault)| Some((reading.role.name, (*fault)?)));
        let faults: Vec<_> = faults.map(|(name, fault)| format!("{name} {fault}")).collect();
        let is_over = (overload::SCENE.0..overload::SCENE.1 + 0.02)
            .contains(&(self.elapsed.as_secs_f64() / self.settings.length.as_secs_f64()));
        let overload = if is_over { format!(" | {}", self.overload.say()) } else { String::new() };
        let faults = if faults.is_empty() { "nothing fails".to_owned() } else { faults.join(", ") };
        let did = if did.is_empty() { "no layer acted".to_owned() } else { did.join(", ") };
        let (clients, given) = (number(self.clients.good), number(self.given.good));
        let seconds = self.elapsed.as_secs_f64();
        format!("{seconds:>5.0}s | clients {clients:>5} % | upstreams {given:>5} % | {did} | {faults}{overload}")
    }
}

fn number(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        // 99.96 is not 100.
        Some(share) => format!("{:.1}", (share * 1000.0).floor() / 10.0),
    }
}

fn endpoint(reading: &Reading, fault: Option<Fault>) -> Line {
    let line = Line::default().put(format!("{:<9}  ", reading.role.name), Look::Bold);
    let line = match fault {
        Some(fault) => line.put(format!("{fault:<12} "), Look::Bad),
        None => line.put(format!("{:<12} ", "works"), Look::Good),
    };
    let (state, look) = match reading.breaker {
        None => ("-", Look::Dim),
        Some("half_open") => ("half-open", Look::Fair),
        Some(state @ ("open" | "tripped")) => (state, Look::Bad),
        Some("splitting") => ("canary", Look::Plain),
        Some(state) => (state, Look::Plain),
    };
    let line = line.put(format!("{state:<10} "), look);
    let share = reading.share.map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0));
    let latency = reading.latency.map_or("-".to_owned(), |span| match span.as_millis() {
        0 => "<1 ms".to_owned(),
        millis => format!("{millis} ms"),
    });
    line.put(format!("{share:>5} {latency:>8}"), Look::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::{line::WIDTH, script::CAST};

    fn frame() -> Frame {
        let side = |good| Side { good: Some(good), calls: 1234, history: [Some(good); POINTS], degraded: 7, bad: 9 };
        let reading = |i: usize| Reading {
            role: &CAST[i],
            breaker: Some(if i == 1 { "half_open" } else { "closed" }),
            share: Some(if i == 1 { 0.06 } else { 0.47 }),
            latency: (i != 1).then_some(Duration::from_millis(3)),
        };
        let mut endpoints: Vec<_> = (0..8).map(|i| (reading(i), (i == 1).then_some(Fault::Cuts))).collect();
        endpoints.push((Reading { role: &script::CANARY, ..reading(0) }, None));
        let change =
            |at| (Duration::from_millis(at), "a/2", "breaker half-open -> closed: its probes went well".to_owned());
        Frame {
            settings: Settings { length: Duration::from_secs(3600), seed: u64::MAX, protection: false },
            elapsed: Duration::from_secs(1800),
            caption: script::caption(0.34, false),
            clients: side(0.9996),
            given: side(0.61),
            endpoints,
            acts: Acts { retried: 12, cut: 3, ..Acts::default() },
            changes: vec![change(3_000_000); CHANGES],
            overload: overload::Reading::sample(),
        }
    }

    #[test]
    fn a_screen_fits_80_columns_and_24_rows() {
        let lines: Vec<String> = frame().screen().iter().map(|line| line.render(false)).collect();
        assert_eq!(lines.len(), 24, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        let screen = lines.join("\n");
        for said in
            ["PROTECTION OFF", "1800.0 of 3600 s", "a/2        cuts bodies  half-open", "12 repeated", "2% to ailing"]
        {
            assert!(screen.contains(said), "{said}: {screen}");
        }
        assert!(!screen.contains('\x1b'));
    }

    #[test]
    fn a_row_says_what_fails_and_who_did_what_and_never_rounds_up() {
        assert_eq!(frame().row(), " 1800s | clients  99.9 % | upstreams  61.0 % | retried 12, cut 3 | a/2 cuts bodies");
    }
}
