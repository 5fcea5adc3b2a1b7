//! Overload over real sockets and in real time, beside the track, which simulates both.
//!
//! ```text
//! cargo run --release -p buttress-benches --bin overload -- [--quick] [--load 3] [--seconds 20] [--workers 20] [--work 20] [--rounds surge,cut,outage]
//! ```
//!
//! An axum server on loopback, whose handler has a fixed pool of workers do its work and which goes on with it when a client has
//! left; clients that come in their own time, whether or not those before them were answered, and wait for 500 ms. Three
//! rounds, each contestant with a fresh server: `surge` is a multiple of the capacity, which is measured first; `cut` and `outage` are
//! scenarios 6 and 10 of the track. Clients and server share the machine, so the generator says how late it was itself.
//!
//! It fails if our goodput in the surge is below 95 % of the capacity.

mod client;
mod drive;
mod pace;
mod pool;
mod protection;
mod report;
mod rounds;
mod server;
mod stats;

use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind};
use report::Report;
use rounds::Arena;
use server::Site;
use std::{error::Error, fs, path::PathBuf, process::ExitCode, time::Duration};
use tokio::runtime::Builder;

const TIME_OUT: Duration = Duration::from_millis(500);
/// More than this one machine cannot bring and answer, and be believed.
const MOST_CALLS: f64 = 20_000.0;

/// Overload over real sockets: goodput, latency and refusals of load shedders, recovery of retries and breakers.
#[derive(Parser)]
struct Options {
    /// How long the surge lasts, in seconds. Default: 20, or 5 with `--quick`.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=600))]
    seconds: Option<u64>,
    /// The load of the surge, over the capacity.
    #[arg(long, default_value_t = 3.0, value_parser = load)]
    load: f64,
    /// Workers behind the handler.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(2..=2000))]
    workers: u16,
    /// What a call takes, in milliseconds, on an average.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=250))]
    work: u64,
    /// 5 s of each, and shorter pauses.
    #[arg(long)]
    quick: bool,
    /// Only these.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "surge,cut,outage")]
    rounds: Vec<Round>,
    /// What arrivals follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figures go.
    #[arg(long, default_value = "target/overload.json")]
    json: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Round {
    Surge,
    Cut,
    Outage,
}

fn load(text: &str) -> Result<f64, String> {
    let load = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.1..=20.0).contains(&load) { Ok(load) } else { Err("allowed: 0.1 to 20".to_owned()) }
}

impl Options {
    /// Calls a second.
    fn on_paper(&self) -> f64 {
        f64::from(self.workers) * 1000.0 / self.work as f64
    }

    fn check(&self) -> Result<(), clap::Error> {
        let most = self.on_paper() * self.load.max(1.0);
        if most <= MOST_CALLS {
            return Ok(());
        }
        let text = format!(
            "{} workers, {} ms of work and {}x are {most:.0} calls a second: more than {MOST_CALLS} one machine cannot bring and answer",
            self.workers, self.work, self.load
        );
        Err(Self::command().error(ErrorKind::ValueValidation, text))
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = options.check() {
        error.exit();
    }
    let mut report = Report {
        load: options.load,
        on_paper: options.on_paper(),
        work: Duration::from_millis(options.work),
        ..Report::default()
    };
    report.load_average[0] = load_average();
    let done = run(&options, &mut report);
    report.load_average[1] = load_average();
    // Also what there is if it came to no end, for want of ports say.
    report.print();
    match done.and_then(|()| Ok(report.write(&options.json)?)) {
        Ok(()) => println!("written to {}", options.json.display()),
        Err(error) => {
            eprintln!("overload: {error}");
            return ExitCode::FAILURE;
        }
    }
    if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(options: &Options, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("clients").enable_all().build()?;
    let site = Site { workers: options.workers.into(), work: report.work, time_out: TIME_OUT };
    let arena = Arena { runtime, site, seed: options.seed, quick: options.quick };
    report.capacity = arena.capacity()?;
    let asked = |round| options.rounds.contains(&round);
    if asked(Round::Surge) {
        let seconds = options.seconds.unwrap_or(if options.quick { 5 } else { 20 });
        arena.surge(report.capacity, options.load, Duration::from_secs(seconds), &mut report.surge)?;
        report.capacity_after = Some(arena.capacity()?);
    }
    if asked(Round::Cut) {
        arena.cut(report.capacity, &mut report.cut)?;
    }
    if asked(Round::Outage) {
        arena.outage(report.capacity, &mut report.outage)?;
    }
    Ok(())
}

/// Of the last minute; `None` where there is no such file.
fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let options = Options::try_parse_from(["overload"].iter().chain(args)).map_err(|error| error.to_string())?;
        options.check().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        for (args, named) in [
            (["--load", "0"], "--load"),
            (["--load", "NaN"], "--load"),
            (["--workers", "1"], "--workers"),
            (["--work", "0"], "--work"),
            (["--seconds", "1"], "--seconds"),
            (["--rounds", "cut,storm"], "--rounds"),
        ] {
            let error = parse(&args).err().expect("is refused");
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn more_calls_than_one_machine_can_bring_are_refused() {
        let error = parse(&["--workers", "400", "--load", "2"]).err().expect("is refused");
        assert!(error.contains("40000 calls a second"), "{error}");
        assert!(parse(&["--workers", "400", "--load", "1"]).is_ok());
    }

    #[test]
    fn by_default_all_rounds_take_place() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.rounds, [Round::Surge, Round::Cut, Round::Outage]);
        assert_eq!(options.on_paper(), 1000.0);
    }
}
