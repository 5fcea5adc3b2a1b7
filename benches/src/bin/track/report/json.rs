//! The same as JSON.

use crate::{
    contestant::Contestant,
    goals::Target,
    metric::{Metrics, Sense},
    run::Sheet,
    scenario::NotBuilt,
};
use serde_json::{Map, Value, json};

/// An array with an entry for each contestant of each case: `scenario`, `contestant`, `seeds`, `median` and `worst` (figures by
/// name; `null` is a time that never came), `optimum`, `goal` (`at_least` or `at_most` by figure) and `met` (whether all of them
/// are; `null` without one). What is not built has an entry of ours without figures and with what it `lacks`; its `met` is `null`.
pub fn json(sheets: &[Sheet], not_built: &[NotBuilt]) -> String {
    let mut entries = Vec::new();
    for sheet in sheets {
        for row in &sheet.rows {
            entries.push(json!({
                "scenario": sheet.case.name(),
                "contestant": row.contestant.name(),
                "seeds": row.seeds,
                "median": figures(&row.median),
                "worst": figures(&row.worst),
                "optimum": figures(&sheet.optimum),
                "goal": goal(&sheet.targets),
                "met": if sheet.targets.is_empty() { Value::Null } else { Value::Bool(row.met.iter().all(|met| *met)) },
            }));
        }
    }
    for NotBuilt { name, lacks, .. } in not_built {
        entries.push(json!({
            "scenario": name,
            "contestant": Contestant::Ours.name(),
            "seeds": [],
            "median": {},
            "worst": {},
            "optimum": {},
            "goal": {},
            "met": null,
            "lacks": lacks,
        }));
    }
    format!("{:#}\n", Value::Array(entries))
}

fn figures(metrics: &Metrics) -> Value {
    Value::Object(metrics.iter().map(|(metric, value)| (metric.name().to_owned(), rounded(*value))).collect())
}

fn goal(targets: &[Target]) -> Value {
    let mut goals = Map::new();
    for target in targets {
        let bound = if target.metric.sense() == Sense::Higher { "at_least" } else { "at_most" };
        goals.insert(target.metric.name().to_owned(), json!({ bound: rounded(target.value) }));
    }
    Value::Object(goals)
}

/// To six digits behind the point: what is behind them is of no use.
fn rounded(value: f64) -> Value {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded.is_finite() { json!(rounded) } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report,
        run::{self, Case, Verdict},
        scenario::{NOT_BUILT, SCENARIOS},
        setup::Setup,
    };
    use std::{sync::Arc, time::Duration};

    #[test]
    fn the_same_seeds_give_the_same_bytes_and_every_entry_has_the_same_keys() {
        let second = Duration::from_secs(1);
        let setup = Arc::new(Setup { workers: 4, warm_up: second, measured: second, ..Setup::default() });
        let chosen = ["1", "9/50%", "22/2"];
        let cases = || {
            let of = |scenario| Case { scenario, setup: setup.clone(), is_grid: false };
            SCENARIOS.iter().filter(|s| chosen.contains(&s.name)).map(of).collect::<Vec<_>>()
        };
        let all = [Contestant::None, Contestant::Oracle, Contestant::Ours];
        let bytes = || {
            let sheets = run::play(cases(), &all, &[1, 2], 2, |_, _| {});
            let plots: String = sheets.iter().map(report::plot).collect();
            json(&sheets, &[]) + &report::table(&sheets, &Verdict::of(&sheets), &[]) + &plots
        };
        let first = bytes();
        assert_eq!(first, bytes());
        let sheets = run::play(cases(), &all, &[1, 2], 2, |_, _| {});
        let entries: Vec<Map<String, Value>> = serde_json::from_str(&json(&sheets, &[])).unwrap();
        assert_eq!(entries.len(), 9);
        let keys = ["contestant", "goal", "median", "met", "optimum", "scenario", "seeds", "worst"];
        for entry in entries {
            let mut there: Vec<_> = entry.keys().map(String::as_str).collect();
            there.sort_unstable();
            assert_eq!(there, keys);
        }
        let table = report::table(&sheets, &Verdict::of(&sheets), &[]);
        for line in table.lines() {
            assert!(line.chars().count() <= 160, "{line}");
        }
        // Each of its words is explained once, and no other.
        let explained = |word: &str| table.lines().filter(|line| line.starts_with(&format!("  {word:9} "))).count();
        let words =
            ["optimum", "none", "oracle", "ours", "worst", "goal", "goodput %", "p99 ms", "trips", "jain", "p50 x"];
        assert!(words.iter().all(|word| explained(word) == 1), "{table}");
        assert!(["tower", "drift x", "load x"].iter().all(|word| explained(word) == 0), "{table}");
        assert!(table.contains("each scenario's first figure"), "{table}");
    }

    #[test]
    fn what_is_not_built_has_an_entry_that_says_what_it_lacks() {
        let entries: Vec<Map<String, Value>> = serde_json::from_str(&json(&[], &NOT_BUILT)).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| &entry["scenario"]).collect();
        assert_eq!(names, ["15", "16", "18", "20"]);
        assert!(entries.iter().all(|entry| entry["met"].is_null() && entry["lacks"].as_str().unwrap().len() > 20));
    }

    #[test]
    fn what_never_came_is_null() {
        assert_eq!(rounded(f64::INFINITY), Value::Null);
        assert_eq!(rounded(0.123_456_789), json!(0.123457));
    }
}
