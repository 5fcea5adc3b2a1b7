//! What the demo prints.

use super::{
    SIDES,
    layers::Acts,
    traffic::{Call, End},
};
use std::{fmt::Write as _, io::IsTerminal, time::Duration};

/// Lines on standard output, coloured where somebody looks at a terminal.
pub(crate) struct View {
    colours: bool,
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

impl View {
    pub(crate) fn new() -> Self {
        Self { colours: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    fn paint(&self, text: impl Into<String>, colour: &str) -> String {
        let text = text.into();
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text }
    }

    pub(crate) fn intro(&self, length: Duration, seed: u64, rate: f64, limit: u32, per_try: Duration, ratio: f64) {
        println!("{}", self.paint(format!("Buttress gateway, a demo of {length:?} (seed {seed})"), BOLD));
        println!();
        println!("   clients --> gateway --+--> breaker > bulkhead > deadline --> upstream A");
        println!("                         +--> breaker > bulkhead > deadline --> upstream B");
        println!("                         +--> retry > balance --> one of three endpoints of C");
        println!();
        for line in [
            format!(
                "All of it over real sockets on this machine, {rate} calls a second to each upstream. A bulkhead admits"
            ),
            format!(
                "{limit} calls at a time, a deadline gives each {per_try:?}, a budget pays for {:.0} retries per 100 calls.",
                ratio * 100.0
            ),
            "All upstreams misbehave on a script.".to_owned(),
            String::new(),
            "Each row is a second. p50 and p99 are of the calls that went well.".to_owned(),
            "  refused      at once, with a 503: by the open breaker, or (\"full\") by a full bulkhead".to_owned(),
            "  failed       500, 502, 504, or an upstream's own 503; while a breaker is open, these few are its probes"
                .to_owned(),
            "  cut          by the deadline: a 504, one of the failed".to_owned(),
            "  retried      to another endpoint; denied: the budget was empty".to_owned(),
            "  without it   the same upstreams asked without the gateway".to_owned(),
        ] {
            println!("{line}");
        }
        println!();
        let head = format!("{:>4} | {:^33} | {:^26} | the layers", "", "what clients get", "without it");
        println!("{}", self.paint(head, BOLD));
        let names = format!(
            "{:>4} | {:>4} {:>7} {:>6} {:>6} {:>6} | {:<8} {:<8} {:<8} |",
            "time", "ok", "refused", "failed", "p50", "p99", "A", "B", "C"
        );
        println!("{}", self.paint(names, BOLD));
    }

    pub(crate) fn caption(&self, at: Duration, text: &str) {
        // Not rounded up: 6.96 comes before the row of second 7.
        let tenths = (at.as_millis() + 1) / 100;
        println!("{}", self.paint(format!("---- at {}.{}s: {text}", tenths / 10, tenths % 10), BOLD));
    }

    /// One second.
    pub(crate) fn second(&self, at: Duration, clients: &[Call], given: [&[Call]; 3], acts: [&Acts; 3]) {
        let count = |end| clients.iter().filter(|call| call.end == end).count();
        let (ok, refused) = (count(End::Ok), count(End::Refused));
        let failed = clients.len() - ok - refused;
        let well: Vec<Call> = clients.iter().filter(|call| call.end == End::Ok).copied().collect();
        let quantile = |share| if well.is_empty() { "-".to_owned() } else { millis(quantile(&well, share)) };
        let tint = |n: usize, text: String, colour| if n > 0 { self.paint(text, colour) } else { text };
        let mut line = format!(
            "{:>3.0}s | {} {} {} {:>6} {:>6} |",
            at.as_secs_f64(),
            tint(ok, format!("{ok:>4}"), GREEN),
            tint(refused, format!("{refused:>7}"), YELLOW),
            tint(failed, format!("{failed:>6}"), RED),
            quantile(0.5),
            quantile(0.99)
        );
        for (i, calls) in given.into_iter().enumerate() {
            // Of several endpoints, how many calls went well.
            let (text, fine) = if i == 2 { share(calls) } else { health(calls) };
            let _ = write!(line, " {}", self.paint(format!("{text:<8}"), if fine { GREEN } else { RED }));
        }
        let mut said = Vec::new();
        for (side, acts) in SIDES.into_iter().zip(acts) {
            let text = acts.to_string();
            if !text.is_empty() {
                said.push(format!("{side} {text}"));
            }
        }
        let said = if said.is_empty() { self.paint("all calls pass", DIM) } else { said.join("; ") };
        println!("{line} | {said}");
    }

    /// One line of the verdict.
    pub(crate) fn verdict(&self, holds: bool, text: &str) {
        let mark = if holds { self.paint("ok  ", GREEN) } else { self.paint("FAIL", RED) };
        println!("  {mark}  {text}");
    }

    pub(crate) fn end(&self, holds: bool) {
        println!();
        if holds {
            println!("{}", self.paint("It held.", BOLD));
        } else {
            println!("{}", self.paint("It did not hold: see above.", RED));
        }
    }

    pub(crate) fn heading(&self, text: &str) {
        println!("\n{}", self.paint(text, BOLD));
    }
}

/// How many of the probes went well.
fn share(calls: &[Call]) -> (String, bool) {
    let ok = calls.iter().filter(|call| call.end == End::Ok).count();
    match calls.len() {
        0 => ("-".to_owned(), true),
        all => (format!("ok {}%", 100 * ok / all), ok == all),
    }
}

/// What most of the probes met.
fn health(calls: &[Call]) -> (String, bool) {
    let most = [End::Ok, End::Failed, End::Broken, End::Hung, End::Unreachable]
        .into_iter()
        .max_by_key(|end| calls.iter().filter(|call| call.end == *end).count());
    let ok: Vec<Call> = calls.iter().filter(|call| call.end == End::Ok).copied().collect();
    let p50 = quantile(&ok, 0.5);
    match most {
        _ if calls.is_empty() => ("-".to_owned(), true),
        Some(End::Ok) if p50 > Duration::from_millis(50) => (format!("ok {}", millis(p50)), false),
        Some(End::Ok) => (format!("ok {}", millis(p50)), true),
        Some(End::Hung) => ("hangs".to_owned(), false),
        Some(End::Broken) => ("breaks".to_owned(), false),
        Some(End::Unreachable) => ("down".to_owned(), false),
        _ => ("500".to_owned(), false),
    }
}

/// The latency that this share of calls stayed below.
pub(crate) fn quantile(calls: &[Call], share: f64) -> Duration {
    let mut all: Vec<Duration> = calls.iter().map(|call| call.latency).collect();
    all.sort_unstable();
    let at = (all.len() as f64 * share).ceil() as usize;
    all.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

pub(crate) fn millis(span: Duration) -> String {
    format!("{:.0}ms", span.as_secs_f64() * 1e3)
}
