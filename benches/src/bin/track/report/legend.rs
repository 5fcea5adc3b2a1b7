//! What the table's words mean, for those words that occur in it.

use super::table::label;
use crate::{
    contestant::Contestant,
    metric::Metric,
    run::{Sheet, Verdict},
};
use std::{collections::BTreeSet, fmt::Write};

/// A line for each column, contestant and figure there is.
pub fn legend(sheets: &[Sheet], shown: &[Contestant]) -> String {
    let mut text =
        String::from("\ncolumns: the median of the seeds; `never`: not before the run was over; `-`: not measured\n");
    let mut line = |word: &str, meaning: &str| {
        let _ = writeln!(text, "  {word:9} {meaning}");
    };
    line(
        "optimum",
        "the best that anybody could do, by the scenario's own numbers; no contestant: latencies are those of an idle service",
    );
    for one in shown {
        line(one.column(), contestant(*one));
    }
    if shown.contains(&Contestant::Ours) {
        line("worst", "ours in the worst of the seeds");
        line("goal", "what is asked of ours: MISSED fails the track, missed does not");
    }
    let metrics: BTreeSet<_> =
        sheets.iter().flat_map(|sheet| sheet.case.scenario.measures_of(&sheet.case.setup)).collect();
    if !metrics.is_empty() {
        text.push_str("figures\n");
    }
    for metric in metrics {
        let _ = writeln!(text, "  {:9} {}", label(metric), meaning(metric));
    }
    text
}

/// The score with what it is of.
pub fn score(sheets: &[Sheet], verdict: &Verdict) -> Option<String> {
    let cases = sheets.iter().filter(|sheet| sheet.share_of_optimum().is_some()).count();
    let score = verdict.score? * 100.0;
    Some(format!(
        "score: {score:.2} % of the optimum: ours over the optimum in each scenario's first figure, 1 at most; the geometric mean of {cases}\n"
    ))
}

fn contestant(one: Contestant) -> &'static str {
    match one {
        Contestant::None => "no layer; where a scenario has attempts, clients make them at once",
        Contestant::Tower => {
            "tower's ConcurrencyLimit and LoadShed, with a limit that suits the upstream in good health"
        }
        Contestant::TowerTimes4 => "the same with four times that limit",
        Contestant::TowerBy4 => "the same with a fourth of that limit",
        Contestant::Aimd => "the published limit that adds while all is well and takes a share away where calls fail",
        Contestant::Vegas => "the published limit that goes by the queue it estimates",
        Contestant::Gradient2 => "the published limit that goes by short over long means of latency",
        Contestant::Envoy => "the published limit of Envoy, which measures the idle latency now and then",
        Contestant::Breaker => "a circuit breaker with its defaults",
        Contestant::Oracle => {
            "a gate that is told how many calls are inside the upstream, and what its capacity is and becomes"
        }
        Contestant::Ours => {
            "deadline, retry, shed, ramped gate and the deadline of an attempt, with their defaults; told time-outs and attempts alone"
        }
    }
}

/// In a line. Calls are those that came in the time that is looked at; "in time" is before their client gave up.
fn meaning(metric: Metric) -> &'static str {
    match metric {
        Metric::Goodput => {
            "work answered in time, over what could have been: the lesser of offered and capacity, second by second"
        }
        Metric::WorstSecond => "work answered in time in the worst second, over what the workers can do in one",
        Metric::Critical => "critical calls that were answered in time, over all critical ones",
        Metric::Normal => "normal calls that were answered in time, over all normal ones",
        Metric::Sheddable => "sheddable calls that were answered in time, over all sheddable ones",
        Metric::Success => "calls that were answered in time, over all",
        Metric::Quiet => "calls answered in time of the tenants that keep to their share, over all of theirs",
        Metric::Noisy => "the same of the tenant that does not",
        Metric::Shed => "calls that were not answered in time, over all: whether refused, failed or given up",
        Metric::P50 => "median latency of the calls that were answered in time",
        Metric::P99 => "99th percentile of the latency of the calls that were answered in time",
        Metric::Drift => {
            "median latency of the last 10 s, over that from 25 s to 35 s: more than 1 is a limit that creeps up"
        }
        Metric::OfSingle => "median latency, over that with a single gateway in front of the same load",
        Metric::Jain => "Jain's index of the gateways' useful work: 1 if all get the same, 1/n if one gets all",
        Metric::Amplification => {
            "attempts that left the innermost layer that retries (or the clients) during the fault, over calls that came"
        }
        Metric::Load => "calls that reached the upstream during the outage, over calls that came",
        Metric::Recovery => "seconds from the end of the fault until 90 % of the calls end well, and do so for 2 s",
        Metric::Detection => {
            "milliseconds from the beginning of the fault until the upstream gets less than half of the calls that come"
        }
        Metric::Trips => {
            "tenths of a second in which the upstream, though healthy enough, got less than half of the attempts"
        }
    }
}
