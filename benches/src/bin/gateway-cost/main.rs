//! What the gateway costs: CPU time per request, beside a bare hyper proxy, nginx and haproxy.
//!
//! ```text
//! cargo run --release -p buttress-benches --bin gateway-cost -- [--seconds 5] [--repetitions 5] [--endpoints 2] [--json FILE]
//! ```
//!
//! Every contestant is a process of its own on one core; the clients (64 connections that are kept, each with one request
//! at a time) and the upstream (1 KiB answers) share the other. Contestants take turns, each turn with a fresh process and a
//! warm-up. What counts is the median over the repetitions of CPU per request divided by that of bare hyper in the same
//! repetition; if hyper's own spread is larger than 8 %, the machine was not quiet and nothing is said.

mod contestant;
mod load;
mod proxy;
mod report;
mod turn;
mod upstream;

use clap::Parser;
use contestant::Contestant;
use report::Row;
use std::{
    error::Error,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

/// The core of whoever is measured.
const PROXY_CORE: &str = "0";
/// The core of clients and upstream.
const OTHER_CORE: &str = "1";

/// Measures CPU per request of the gateway beside a bare hyper proxy, nginx and haproxy.
#[derive(Parser)]
struct Options {
    /// How long each turn is measured, in seconds.
    #[arg(long, default_value = "5", value_parser = seconds)]
    seconds: Duration,
    /// How many turns each contestant gets.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Endpoints of the upstream. With one, the gateway's chain has no balancer.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    endpoints: u8,
    /// Where the figures go.
    #[arg(long, default_value = "target/gateway-cost.json")]
    json: PathBuf,
    /// Only these: hyper (always there), buttress, nginx, haproxy.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The gateway's binary, instead of the one that cargo builds.
    #[arg(long)]
    gateway: Option<PathBuf>,
    /// Is the bare hyper proxy: listens here, and asks these.
    #[arg(long, hide = true, num_args = 2.., value_names = ["LISTEN", "UPSTREAM"])]
    bare: Vec<SocketAddr>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let length = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if length < Duration::from_millis(100) { Err("at least 0.1".to_owned()) } else { Ok(length) }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.bare.split_first() {
        Some((listen, upstreams)) => proxy::run(*listen, upstreams).map(|never| match never {}),
        None => measure(&options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("gateway-cost: {error}");
        ExitCode::FAILURE
    })
}

fn measure(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    // Before there are threads: they inherit it.
    let own = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-c", "-p", OTHER_CORE, &own]).output()?;
    if !pinned.status.success() {
        return Err("`taskset` cannot pin to a second core: two are needed".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let contestants = Contestant::all(&options.only, options.gateway.clone())?;
    let mut rows: Vec<_> = contestants.iter().map(|contestant| Row::new(contestant.name())).collect();
    runtime.block_on(async {
        let upstreams = upstream::spawn(options.endpoints).await?;
        for repetition in 0..options.repetitions as usize {
            // Whoever was first is last in the next one: nobody always follows the same neighbour.
            for place in 0..contestants.len() {
                let index = (repetition + place) % contestants.len();
                let measured = turn::take(&contestants[index], &upstreams, options.seconds).await?;
                rows[index].add(measured);
            }
            eprintln!("repetition {} of {}", repetition + 1, options.repetitions);
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    report::print(&rows);
    if report::is_thrown_out(&rows) {
        return Ok(ExitCode::FAILURE);
    }
    report::write(&rows, &options.json)?;
    println!("\nwritten to {}", options.json.display());
    Ok(ExitCode::SUCCESS)
}
