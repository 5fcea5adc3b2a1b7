//! The table, the verdict, and the same as JSON.

use crate::turn::Measured;
use serde_json::json;
use std::{fs, io, path::Path};

/// CPU per request, ours over hyper's.
const GOAL: f64 = 1.15;
/// Of hyper's own figures, largest less smallest over the median: above it, the machine was not quiet.
const QUIET: f64 = 0.08;

/// A contestant's turns, one per repetition.
pub struct Row {
    name: &'static str,
    turns: Vec<Measured>,
}

impl Row {
    pub fn new(name: &'static str) -> Self {
        Self { name, turns: Vec::new() }
    }

    pub fn add(&mut self, measured: Measured) {
        self.turns.push(measured);
    }

    fn median(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        median(self.turns.iter().map(of))
    }

    fn cpu(&self) -> f64 {
        self.median(|turn| turn.cpu_us_per_request)
    }

    fn spread(&self) -> f64 {
        let cpu = || self.turns.iter().map(|turn| turn.cpu_us_per_request);
        (cpu().fold(f64::MIN, f64::max) - cpu().fold(f64::MAX, f64::min)) / self.cpu()
    }

    /// The median of the ratios within each repetition.
    fn ratio(&self, hyper: &Row) -> f64 {
        let pairs = self.turns.iter().zip(&hyper.turns);
        median(pairs.map(|(own, hyper)| own.cpu_us_per_request / hyper.cpu_us_per_request))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let mid = values.len() / 2;
    if values.len() % 2 == 1 { values[mid] } else { (values[mid - 1] + values[mid]) / 2.0 }
}

fn hyper(rows: &[Row]) -> &Row {
    rows.iter().find(|row| row.name == "hyper").expect("always measured")
}

/// Whether the machine was too busy for a verdict.
pub fn is_thrown_out(rows: &[Row]) -> bool {
    hyper(rows).spread() > QUIET
}

pub fn print(rows: &[Row]) {
    let hyper = hyper(rows);
    println!(
        "{:10} {:>9} {:>12} {:>7} {:>7} {:>8} {:>8} {:>7}",
        "contestant", "rps", "cpu us/req", "ratio", "spread", "p50 us", "p99 us", "rss MB"
    );
    for row in rows {
        println!(
            "{:10} {:>9.0} {:>12.2} {:>7.3} {:>6.1}% {:>8.0} {:>8.0} {:>7.1}",
            row.name,
            row.median(|turn| turn.rps),
            row.cpu(),
            row.ratio(hyper),
            row.spread() * 100.0,
            row.median(|turn| turn.p50_us),
            row.median(|turn| turn.p99_us),
            row.median(|turn| turn.rss_mb),
        );
    }
    println!();
    if is_thrown_out(rows) {
        let (spread, quiet) = (hyper.spread() * 100.0, QUIET * 100.0);
        println!("thrown out: hyper's own spread is {spread:.1} %, more than {quiet} %: measure on a quiet machine");
        return;
    }
    if let Some(buttress) = rows.iter().find(|row| row.name == "buttress") {
        let ratio = buttress.ratio(hyper);
        let verdict = if ratio <= GOAL { "met" } else { "missed" };
        println!("buttress takes {ratio:.3} x the CPU of a bare hyper proxy; the goal is {GOAL}: {verdict}");
    }
}

/// Writes the medians.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(rows: &[Row], path: &Path) -> io::Result<()> {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let entries: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "contestant": row.name,
                "rps": row.median(|turn| turn.rps).round(),
                "cpu_us_per_request": rounded(row.cpu()),
                "p50_us": row.median(|turn| turn.p50_us).round(),
                "p99_us": row.median(|turn| turn.p99_us).round(),
                "rss_mb": rounded(row.median(|turn| turn.rss_mb)),
            })
        })
        .collect();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, serde_json::to_string_pretty(&entries)? + "\n")
}
