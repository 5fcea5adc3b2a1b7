//! The table on stdout, and the same as JSON.

use crate::{
    contest::{Contestant, Fate, Who},
    measure::{Cost, Costs},
};
use serde_json::json;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// What a contestant adds to the bare service, on one thread and on two.
pub struct Row<'a> {
    contestant: &'a Contestant,
    added: Costs,
}

/// Compares every contestant with the bare service of its protocol, path and fate.
pub fn rows<'a>(contestants: &'a [Contestant], costs: &[Costs]) -> Vec<Row<'a>> {
    let measured = || contestants.iter().zip(costs);
    let mut rows = Vec::new();
    for (contestant, cost) in measured().filter(|(c, _)| c.title.who != Who::Bare) {
        let same = |c: &Contestant| {
            c.title.who == Who::Bare
                && (c.protocol, c.path, c.fate) == (contestant.protocol, contestant.path, contestant.fate)
        };
        let (_, bare) = measured().find(|(c, _)| same(c)).expect("a bare service of every kind");
        let added = std::array::from_fn(|threads| Cost {
            ns: cost[threads].ns - bare[threads].ns,
            allocs: cost[threads].allocs - bare[threads].allocs,
        });
        rows.push(Row { contestant, added });
    }
    rows
}

/// Prints the table, and below it what the bare services cost.
pub fn print(rows: &[Row<'_>], contestants: &[Contestant], costs: &[Costs]) {
    println!(
        "{:15} {:13} {:8} {:9} {:17} {:>10} {:>10} {:>6} {:>7}",
        "case", "config", "protocol", "path", "contestant", "1 thread", "2 threads", "ratio", "allocs"
    );
    for Row { contestant: c, added: [one, two] } in rows {
        // Below 2 ns a quotient is noise over noise.
        let ratio = if one.ns < 2.0 { "-".to_owned() } else { format!("{:.2}", two.ns / one.ns) };
        println!(
            "{:15} {:13} {:8} {:9} {:17} {:>10.1} {:>10.1} {ratio:>6} {:>7.2}",
            c.title.case,
            c.title.config,
            c.protocol,
            c.path.as_str(),
            c.title.who.as_str(),
            one.ns,
            two.ns,
            one.allocs,
        );
    }
    println!("\nns and allocations per call, added to these bare services (ns on one thread, on two):");
    for (c, [one, two]) in contestants.iter().zip(costs).filter(|(c, _)| c.title.who == Who::Bare) {
        let what = if c.fate == Fate::Refused { "request dropped" } else { "answered" };
        println!("  {:8} {:9} {what:16} {:>7.1} {:>7.1}", c.protocol, c.path.as_str(), one.ns, two.ns);
    }
}

/// Writes the rows to `overhead.json` in the workspace's target folder.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(rows: &[Row<'_>]) -> io::Result<PathBuf> {
    let entries: Vec<_> = rows
        .iter()
        .flat_map(|Row { contestant: c, added }| {
            added.iter().zip(1..).map(|(cost, threads)| {
                json!({
                    "case": c.title.case,
                    "config": c.title.config,
                    "protocol": c.protocol,
                    "path": c.path.as_str(),
                    "contestant": c.title.who.as_str(),
                    "threads": threads,
                    "added_ns": (cost.ns * 10.0).round() / 10.0,
                    "allocs": (cost.allocs * 100.0).round() / 100.0,
                })
            })
        })
        .collect();
    let folder = target_folder();
    fs::create_dir_all(&folder)?;
    let file = folder.join("overhead.json");
    fs::write(&file, serde_json::to_vec_pretty(&entries)?)?;
    Ok(file)
}

/// A bench runs in its package's folder, cargo's target folder is the workspace's; `CARGO_TARGET_DIR` overrides it, and
/// a relative one is meant from where cargo was started, which is best guessed to be the workspace.
fn target_folder() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = package.ancestors().filter(|folder| folder.join("Cargo.lock").exists()).last().unwrap_or(package);
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) if !folder.is_empty() => workspace.join(folder),
        _ => workspace.join("target"),
    }
}
