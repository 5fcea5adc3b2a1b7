//! The three rounds: each contestant with a server of its own, one after the other.

use crate::{
    client::Clients,
    drive::{Driven, Load, capacity, drive},
    protection::Protection,
    server::{Server, Site},
    stats::Tally,
};
use std::{error::Error, ops::Range, time::Duration};
use tokio::runtime::Runtime;

const SECOND: Duration = Duration::from_secs(1);
/// The load when nothing is wrong, over the capacity.
const CALM: f64 = 0.7;
/// Which workers are left when the capacity is cut, as a share.
const LEFT: f64 = 0.2;

/// Our layers in the server and in its clients.
pub const BOTH_SIDES: &str = "buttress, both sides";

/// Where rounds take place.
pub struct Arena {
    /// The clients'.
    pub runtime: Runtime,
    pub site: Site,
    pub seed: u64,
    pub quick: bool,
}

/// What a contestant came to.
pub struct Row {
    pub name: String,
    /// Of the span in which something was wrong.
    pub tally: Tally,
    /// Answers in time over what could be answered in that span.
    pub goodput: f64,
    /// What came after it; `None`: nothing.
    pub after: Option<After>,
    pub detection: Option<Duration>,
    /// Answers in time of the whole run, second by second.
    pub series: Vec<usize>,
    /// The generator's lateness.
    pub late_p99: Duration,
    pub late_max: Duration,
    /// Attempts that found no port or no file.
    pub scarce: usize,
}

/// When the fault is over.
pub struct After {
    /// The share of the calls that ended well.
    pub good: f64,
    /// `None`: not within `seen`.
    pub recovery: Option<Duration>,
    pub seen: Duration,
}

/// When what happens in a run.
struct Spans {
    fault: Range<Duration>,
    end: Duration,
}

impl Spans {
    fn new(warm_up: Duration, fault: Duration, after: Duration) -> Self {
        Self { fault: warm_up..warm_up + fault, end: warm_up + fault + after }
    }
}

impl Arena {
    /// How many calls a second the bare server answers.
    pub fn capacity(&self) -> Result<f64, Box<dyn Error>> {
        let server = Server::start(self.site, Protection::None)?;
        let length = if self.quick { 3 * SECOND } else { 6 * SECOND };
        capacity(&self.runtime, &server, 3 * self.site.workers, SECOND, length)
    }

    /// So many times the capacity for so long.
    pub fn surge(
        &self,
        capacity: f64,
        load_over: f64,
        length: Duration,
        rows: &mut Vec<Row>,
    ) -> Result<(), Box<dyn Error>> {
        let warm_up = if self.quick { 2 * SECOND } else { 5 * SECOND };
        let spans = Spans::new(warm_up, length, Duration::ZERO);
        let phases = vec![(warm_up, CALM * capacity), (length, load_over * capacity)];
        let row = |protection: Protection| {
            let load = Load { clients: Clients::Naive(1), phases: phases.clone(), seed: self.seed };
            let mut server = Server::start(self.site, protection)?;
            let driven = drive(&self.runtime, &mut server, self.site.time_out, &load, |_, _| Ok(()))?;
            // No more can be answered than is asked.
            Ok(row(protection.name().to_owned(), &driven, &spans, capacity * load_over.min(1.0), capacity))
        };
        each("surge", Protection::ALL, |one| one.name().to_owned(), row, rows)
    }

    /// Four of five workers go, and come back.
    pub fn cut(&self, capacity: f64, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
        let spans = if self.quick {
            Spans::new(2 * SECOND, 5 * SECOND, 6 * SECOND)
        } else {
            Spans::new(5 * SECOND, 10 * SECOND, 15 * SECOND)
        };
        let gone = self.site.workers - ((self.site.workers as f64 * LEFT).round() as usize).max(1);
        let left = capacity * (self.site.workers - gone) as f64 / self.site.workers as f64;
        let row = |(protection, clients): (Protection, Clients)| {
            let load = self.calm(clients, capacity, &spans);
            let mut server = Server::start(self.site, protection)?;
            let driven = drive(&self.runtime, &mut server, self.site.time_out, &load, |server, time| {
                time.until(spans.fault.start);
                server.pool.remove(gone);
                time.until(spans.fault.end);
                server.pool.add(gone);
                Ok(())
            })?;
            Ok(row(both((protection, clients)), &driven, &spans, left, capacity))
        };
        let contestants = [
            (Protection::None, Clients::Naive(3)),
            (Protection::Tower, Clients::Naive(3)),
            (Protection::Aimd, Clients::Naive(3)),
            (Protection::Ours, Clients::Naive(3)),
            (Protection::Ours, Clients::Ours),
        ];
        each("cut", contestants, both, row, rows)
    }

    /// The server is gone, refuses connections, and is there again.
    pub fn outage(&self, capacity: f64, rows: &mut Vec<Row>) -> Result<(), Box<dyn Error>> {
        let spans = if self.quick {
            Spans::new(3 * SECOND, 5 * SECOND, 6 * SECOND)
        } else {
            // Windows of breakers are 10 s: they are full when it begins.
            Spans::new(10 * SECOND, 10 * SECOND, 14 * SECOND)
        };
        let row = |clients: Clients| {
            let load = self.calm(clients, capacity, &spans);
            let mut server = Server::start(self.site, Protection::None)?;
            let driven = drive(&self.runtime, &mut server, self.site.time_out, &load, |server, time| {
                time.until(spans.fault.start);
                server.stop();
                time.until(spans.fault.end);
                server.restart(self.site, Protection::None)
            })?;
            Ok(row(clients.name().to_owned(), &driven, &spans, capacity, capacity))
        };
        let contestants = [
            Clients::Naive(3),
            Clients::StandardBreaker(3),
            Clients::FastFailBreaker(3),
            Clients::Breaker(3),
            Clients::OursWithGate,
        ];
        each("outage", contestants, |one| one.name().to_owned(), row, rows)
    }

    fn calm(&self, clients: Clients, capacity: f64, spans: &Spans) -> Load {
        Load { clients, phases: vec![(spans.end, CALM * capacity)], seed: self.seed }
    }
}

fn both((protection, clients): (Protection, Clients)) -> String {
    match (protection, clients) {
        (Protection::Ours, Clients::Ours) => BOTH_SIDES.to_owned(),
        _ => format!("{}; {}", protection.name(), clients.name()),
    }
}

/// One after the other, each announced, as it takes minutes. What was measured stays, also if the next one fails.
fn each<C: Copy>(
    round: &str,
    contestants: impl IntoIterator<Item = C>,
    name: impl Fn(C) -> String,
    run: impl Fn(C) -> Result<Row, Box<dyn Error>>,
    rows: &mut Vec<Row>,
) -> Result<(), Box<dyn Error>> {
    for contestant in contestants {
        let name = name(contestant);
        eprintln!("{round}: {name}");
        rows.push(run(contestant).map_err(|error| format!("{round}, {name}: {error}"))?);
    }
    Ok(())
}

fn row(name: String, driven: &Driven, spans: &Spans, achievable: f64, capacity: f64) -> Row {
    let Driven { run, scarce } = driven;
    // 50 ms, or what it takes to see fifty calls.
    let width = Duration::from_secs_f64((50.0 / (CALM * capacity)).max(0.05));
    let tally = run.tally(&spans.fault);
    Row {
        goodput: tally.rate / achievable,
        after: (spans.end > spans.fault.end).then(|| After {
            good: run.tally(&(spans.fault.end..spans.end)).good,
            recovery: run.recovery(spans.fault.end, spans.end, width),
            seen: spans.end - spans.fault.end,
        }),
        series: run.tally(&(Duration::ZERO..spans.end)).series,
        detection: run.detection(spans.fault.clone(), width),
        late_p99: run.late(0.99),
        late_max: run.late(1.0),
        scarce: *scarce,
        name,
        tally,
    }
}
