//! The table.

use super::{figure_to, legend, places_to_differ};
use crate::{
    contestant::Contestant,
    goals::{Over, is_must},
    metric::{Metric, Sense},
    run::{Sheet, Verdict},
    scenario::NotBuilt,
};
use std::fmt::Write;

/// Every case with a line for each of its figures, 160 columns wide at most. Contestants show their medians, ours also its worst
/// seed.
pub fn table(sheets: &[Sheet], verdict: &Verdict, not_built: &[NotBuilt]) -> String {
    let is_there = |one: &Contestant| sheets.iter().any(|sheet| sheet.of(*one).is_some());
    let shown: Vec<_> = Contestant::ALL.into_iter().filter(is_there).collect();
    let wide = sheets.iter().map(|sheet| title(sheet).chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!("{:wide$} {:9} {:>7}", "scenario", "figure", "optimum");
    for one in &shown {
        let _ = write!(text, " {:>6}", one.column());
    }
    let _ = writeln!(text, " {:>6} {:>8}", "worst", "goal");
    for sheet in sheets {
        lines(&mut text, sheet, &shown, wide);
    }
    foot(&mut text, sheets, verdict, not_built, &shown);
    text
}

fn lines(text: &mut String, sheet: &Sheet, shown: &[Contestant], wide: usize) {
    for (n, metric) in sheet.case.scenario.measures_of(&sheet.case.setup).iter().enumerate() {
        let name = if n == 0 { title(sheet) } else { String::new() };
        let ours = sheet.of(Contestant::Ours);
        let at = sheet.targets.iter().position(|target| target.metric == *metric);
        let judged = at.map(|at| (sheet.targets[at], ours.map(|row| (row, row.met[at]))));
        // What is missed by little is written with as many digits as it takes to see by how much.
        let places = |over| match judged {
            Some((target, Some((row, false)))) if target.over == over => {
                let seen = if over == Over::Worst { &row.worst } else { &row.median };
                seen.get(metric).map_or(0, |value| places_to_differ(*metric, *value, target.value))
            }
            _ => 0,
        };
        let value =
            |value: Option<&f64>, places| value.map_or("-".to_owned(), |value| figure_to(*metric, *value, places));
        let _ = write!(text, "{name:wide$} {:9} {:>7}", label(*metric), value(sheet.optimum.get(metric), 0));
        for one in shown {
            let places = if *one == Contestant::Ours { places(Over::Median) } else { 0 };
            let _ = write!(text, " {:>6}", value(sheet.of(*one).and_then(|row| row.median.get(metric)), places));
        }
        let _ = write!(text, " {:>6}", value(ours.and_then(|row| row.worst.get(metric)), places(Over::Worst)));
        if let Some((target, met)) = judged {
            let sign = if metric.sense() == Sense::Higher { ">=" } else { "<=" };
            let of = if target.over == Over::Worst { "w" } else { "" };
            let moved = if target.is_moved { "*" } else { "" };
            let goal = figure_to(*metric, target.value, places(target.over));
            let _ = write!(text, " {:>8}", format!("{of}{sign}{goal}{moved}"));
            let said = match met.map(|(_, met)| met) {
                Some(true) => " met",
                Some(false) if is_must(sheet.case.scenario.name) => " MISSED",
                Some(false) => " missed",
                None => "",
            };
            text.push_str(said);
        }
        text.push('\n');
    }
}

fn foot(text: &mut String, sheets: &[Sheet], verdict: &Verdict, not_built: &[NotBuilt], shown: &[Contestant]) {
    text.push_str(&legend::legend(sheets, shown));
    text.push('\n');
    if sheets.iter().flat_map(|sheet| &sheet.targets).any(|target| target.is_moved) {
        text.push_str("* all others miss the goal, which is therefore a point worse than the best of them\n");
    }
    if sheets.iter().flat_map(|sheet| &sheet.targets).any(|target| target.over == Over::Worst) {
        text.push_str("w of the worst seed\n");
    }
    for NotBuilt { name, title, lacks } in not_built {
        let _ = writeln!(text, "{name} is not built yet, {title}: {lacks}");
    }
    text.extend(legend::score(sheets, verdict));
    let met = |met: bool| {
        let ours = sheets.iter().filter_map(|sheet| sheet.of(Contestant::Ours));
        ours.flat_map(|row| &row.met).filter(|one| **one == met).count()
    };
    let _ = writeln!(text, "goals: {} met, {} missed", met(true), met(false));
    if !verdict.missed.is_empty() {
        let _ = writeln!(text, "missed, and must not be: {}", verdict.missed.join(", "));
    }
    if !verdict.failed.is_empty() {
        let _ = writeln!(text, "less than half of the optimum: {}", verdict.failed.join(", "));
    }
}

fn title(sheet: &Sheet) -> String {
    if sheet.case.is_grid {
        return sheet.case.name();
    }
    // Where times are not those that the title has, they are said.
    let story = sheet.case.scenario.story_of(&sheet.case.setup);
    let took = story.spell_length().filter(|_| (story.factor - 1.0).abs() > 1e-9);
    let took = took.map_or(String::new(), |took| format!(" ({took:.1?})"));
    format!("{:10} {}{took}", sheet.case.name(), sheet.case.scenario.title)
}

/// The name with its unit, in nine letters.
pub(super) fn label(metric: Metric) -> &'static str {
    match metric {
        Metric::Goodput => "goodput %",
        Metric::WorstSecond => "worst s %",
        Metric::Critical => "critic. %",
        Metric::Normal => "normal %",
        Metric::Sheddable => "shedd. %",
        Metric::Success => "success %",
        Metric::Quiet => "quiet %",
        Metric::Noisy => "noisy %",
        Metric::Shed => "shed %",
        Metric::P50 => "p50 ms",
        Metric::P99 => "p99 ms",
        Metric::Drift => "drift x",
        Metric::OfSingle => "p50 x",
        Metric::Jain => "jain",
        Metric::Amplification => "amplif. x",
        Metric::Load => "load x",
        Metric::Recovery => "recover s",
        Metric::Detection => "detect ms",
        Metric::Trips => "trips",
    }
}
