//! The track: behaviour under failure, measured in virtual time.
//!
//! ```text
//! cargo run --release -p buttress-benches --bin track -- [--quick] [--scenario 4]... [--contestant ours]... [--seeds 10]
//! cargo run --release -p buttress-benches --bin track -- --grid
//! cargo run --release -p buttress-benches --bin track -- --scenario 1 --c 50 --mean 3ms --dist bimodal --timeout 200ms
//! ```
//!
//! Every contestant sees the same calls, with the same work, at the same moments. A figure is the median of the seeds, and for
//! ours the worst one beside it; the optimum follows from the scenario's own numbers. The same seeds give the same bytes.
//!
//! It prints a table, writes the same as JSON and a plot for each scenario, and fails when a goal that must not be missed is
//! missed by ours (`goals.rs`), or when ours is worth less than half of the optimum anywhere.

mod chain;
mod contestant;
mod goals;
mod metric;
mod options;
mod progress;
mod report;
mod run;
mod scenario;
mod setup;

use buttress_core::TokioClock;
use clap::Parser;
use options::Options;
use run::Verdict;
use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = options.check() {
        error.exit();
    }
    measure(&options).unwrap_or_else(|error| {
        eprintln!("track: {error}");
        ExitCode::FAILURE
    })
}

fn measure(options: &Options) -> io::Result<ExitCode> {
    let progress = progress::Progress::new(&TokioClock);
    let tell = |done: usize, all: usize| {
        if done.is_multiple_of((all / 20).max(1)) || done == all {
            eprintln!("{}", progress.line(done, all, &TokioClock));
        }
    };
    let sheets = run::play(options.cases(), &options.contestants(), &options.seeds(), options.threads(), tell);
    let verdict = Verdict::of(&sheets);
    let not_built = if options.is_whole() { &scenario::NOT_BUILT[..] } else { &[] };
    let mut out = io::stdout().lock();
    write!(out, "{}", report::table(&sheets, &verdict, not_built))?;
    if let Some(folder) = options.json.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&options.json, report::json(&sheets, not_built))?;
    fs::create_dir_all(&options.plots)?;
    for sheet in &sheets {
        let name = sheet.case.name().replace(['/', ' ', ':', '='], "-").replace('%', "pc");
        fs::write(options.plots.join(name + ".svg"), report::plot(sheet))?;
    }
    writeln!(out, "written to {} and {}", options.json.display(), options.plots.display())?;
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
