//! The tables, the verdict, and the same as JSON.

use crate::{
    client::Clients,
    protection::Protection,
    rounds::{After, BOTH_SIDES, Row},
};
use serde_json::{Value, json};
use std::{fs, io, path::Path, time::Duration};

/// Answers in time over capacity.
const GOODPUT: f64 = 0.95;
/// Times are for calls of 10 ms, and grow with what a call takes, as in the track.
const RECOVERED_AFTER_CUT: Duration = Duration::from_secs(1);
const AMPLIFICATION: f64 = 1.1;
const OUTAGE_LOAD: f64 = 0.05;
const RECOVERED_AFTER_OUTAGE: Duration = Duration::from_millis(1500);
const DETECTED: Duration = Duration::from_millis(300);
const CALL: Duration = Duration::from_millis(10);
/// A generator that is later than this part of what a call takes says nothing.
const LATE: f64 = 0.5;

/// Everything of one run of this program.
#[derive(Default)]
pub struct Report {
    /// Calls a second: of the workers on paper, before the rounds, after the first of them.
    pub on_paper: f64,
    pub capacity: f64,
    pub capacity_after: Option<f64>,
    pub load: f64,
    /// What a call takes.
    pub work: Duration,
    pub surge: Vec<Row>,
    pub cut: Vec<Row>,
    pub outage: Vec<Row>,
    /// The machine's, over a minute, before and after.
    pub load_average: [Option<f64>; 2],
}

/// What a goal asks for, and what there is.
struct Goal {
    text: String,
    met: bool,
    /// Whether the program fails with it.
    must: bool,
}

impl Report {
    pub fn print(&self) {
        let after = self.capacity_after.map_or(String::new(), |after| format!(", {after:.0} after the surge"));
        println!("capacity: {:.0} calls a second{after}, {:.0} on paper", self.capacity, self.on_paper);
        let [before, after] = self.load_average.map(|load| load.map_or("?".to_owned(), |load| format!("{load:.2}")));
        println!("load average: {before} before, {after} after");
        if !self.surge.is_empty() {
            println!("\n{}x the capacity, one attempt per call", self.load);
            println!(
                "{:24} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
                "protection", "goodput", "p50 ms", "p99 ms", "refused", "timed out", "failed", "late p99", "late max"
            );
            for row in &self.surge {
                println!(
                    "{:24} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
                    row.name,
                    percent(row.goodput),
                    row.tally.p50.map_or("-".to_owned(), millis),
                    row.tally.p99.map_or("-".to_owned(), millis),
                    percent(row.tally.refused),
                    percent(row.tally.timed_out),
                    percent(row.tally.failed),
                    millis(row.late_p99),
                    millis(row.late_max),
                );
            }
            println!("answers in time, second by second, in % of the capacity:");
            for row in &self.surge {
                let seconds = row.tally.series.iter().map(|n| format!("{:3.0}", *n as f64 / self.capacity * 100.0));
                println!("{:24} {}", row.name, seconds.collect::<Vec<_>>().join(" "));
            }
        }
        self.print_fault("scenario 6 in real time: capacity -80 %, up to 3 attempts", "amplif.", &self.cut);
        self.print_fault("scenario 10 in real time: an outage that refuses, up to 3 attempts", "load", &self.outage);
        println!();
        self.warnings().iter().for_each(|warning| println!("not to be believed: {warning}"));
        self.goals().iter().for_each(|goal| println!("{}: {}", goal.text, if goal.met { "met" } else { "missed" }));
    }

    /// A spell in which something was wrong.
    fn print_fault(&self, title: &str, sent: &str, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        println!("\n{title}");
        println!(
            "{:38} {:>8} {:>8} {:>9} {:>9} {:>10} {:>9} {:>9}",
            "who", "goodput", sent, "noticed s", "recov. s", "good after", "late p99", "late max"
        );
        for row in rows {
            println!(
                "{:38} {:>8} {:>8.3} {:>9} {:>9} {:>10} {:>9} {:>9}",
                row.name,
                percent(row.goodput),
                row.tally.amplification,
                row.detection.map_or("never".to_owned(), seconds),
                row.after.as_ref().map_or("-".to_owned(), recovered),
                row.after.as_ref().map_or("-".to_owned(), |after| percent(after.good)),
                millis(row.late_p99),
                millis(row.late_max),
            );
        }
    }

    fn goals(&self) -> Vec<Goal> {
        let mut goals = Vec::new();
        // A goal is not met by figures that say nothing.
        let goal = |ours: &Row, text: String, met: bool, must: bool| match self.is_believed(ours) {
            true => Goal { text, met, must },
            false => Goal { text: text + " (not to be believed)", met: false, must },
        };
        if let Some(ours) = of(&self.surge, Protection::Ours.name()) {
            let (load, goodput) = (self.load, percent(ours.goodput));
            let text = format!("goodput of buttress at {load}x: {goodput}; the goal is {}", percent(GOODPUT));
            goals.push(goal(ours, text, ours.goodput >= GOODPUT, true));
        }
        let factor = (self.work.as_secs_f64() / CALL.as_secs_f64()).max(1.0);
        let in_time = |what, ours: &Row, found: String, took: Option<Duration>, most: Duration| {
            let most = most.mul_f64(factor);
            let text = format!("{what} after {found} s; the goal is {} s", seconds(most));
            goal(ours, text, took.is_some_and(|took| took <= most), false)
        };
        let recovery = |what, ours: &Row, most| {
            let after = ours.after.as_ref();
            in_time(what, ours, after.map_or("-".to_owned(), recovered), after.and_then(|after| after.recovery), most)
        };
        if let Some(ours) = of(&self.cut, BOTH_SIDES) {
            goals.push(recovery("6: recovered", ours, RECOVERED_AFTER_CUT));
            let sent = ours.tally.amplification;
            let text = format!("6: amplification {sent:.3}; the goal is {AMPLIFICATION}");
            goals.push(goal(ours, text, sent <= AMPLIFICATION, false));
        }
        if let Some(ours) = of(&self.outage, Clients::OursWithGate.name()) {
            let sent = ours.tally.amplification;
            let text = format!("10: load {sent:.3}; the goal is {OUTAGE_LOAD}");
            goals.push(goal(ours, text, sent <= OUTAGE_LOAD, false));
            goals.push(recovery("10: recovered", ours, RECOVERED_AFTER_OUTAGE));
            let found = ours.detection.map_or("never".to_owned(), seconds);
            goals.push(in_time("10: noticed", ours, found, ours.detection, DETECTED));
        }
        goals
    }

    /// Whether a goal was missed that the program fails with.
    pub fn failed(&self) -> bool {
        self.goals().iter().any(|goal| goal.must && !goal.met)
    }

    fn is_late(&self, row: &Row) -> bool {
        row.late_p99 > self.work.mul_f64(LATE)
    }

    /// Calls that were never sent, or not when they should, are load that was never there.
    fn is_believed(&self, row: &Row) -> bool {
        row.scarce == 0 && !self.is_late(row)
    }

    /// Why figures say nothing.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        for row in self.surge.iter().chain(&self.cut).chain(&self.outage) {
            if row.scarce > 0 {
                warnings.push(format!("{}: {} attempts found no port or no file", row.name, row.scarce));
            }
            if self.is_late(row) {
                warnings.push(format!("{}: the generator was {} ms late", row.name, millis(row.late_p99)));
            }
        }
        if let Some(after) = self.capacity_after
            && (after / self.capacity - 1.0).abs() > 0.03
        {
            warnings.push(format!("the capacity went from {:.0} to {after:.0} meanwhile", self.capacity));
        }
        warnings
    }

    /// Writes everything.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let rows = |rows: &[Row]| rows.iter().map(json_row).collect::<Vec<_>>();
        let goals = self.goals().into_iter().map(|goal| json!({ "goal": goal.text, "met": goal.met }));
        let all = json!({
            "capacity_on_paper": self.on_paper,
            "capacity": self.capacity.round(),
            "capacity_after": self.capacity_after.map(f64::round),
            "load_average": self.load_average,
            "load": self.load,
            "surge": rows(&self.surge),
            "cut": rows(&self.cut),
            "outage": rows(&self.outage),
            "goals": goals.collect::<Vec<_>>(),
            "not_to_be_believed": self.warnings(),
        });
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(&all)? + "\n")
    }
}

fn of<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name)
}

fn json_row(row: &Row) -> Value {
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e5).round() / 1e2;
    let share = |value: f64| (value * 1e4).round() / 1e4;
    let tally = &row.tally;
    json!({
        "contestant": row.name,
        "calls": tally.calls,
        "goodput": share(row.goodput),
        "p50_ms": tally.p50.map(ms),
        "p99_ms": tally.p99.map(ms),
        "good": share(tally.good),
        "refused": share(tally.refused),
        "timed_out": share(tally.timed_out),
        "failed": share(tally.failed),
        "answers_per_second": row.series,
        "attempts_per_call": share(tally.amplification),
        "good_after": row.after.as_ref().map(|after| share(after.good)),
        "recovery_ms": row.after.as_ref().and_then(|after| after.recovery).map(ms),
        "detection_ms": row.detection.map(ms),
        "late_p99_ms": ms(row.late_p99),
        "late_max_ms": ms(row.late_max),
        "no_port_or_file": row.scarce,
    })
}

fn recovered(after: &After) -> String {
    after.recovery.map_or_else(|| format!(">{}", after.seen.as_secs()), seconds)
}

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1e3)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Run;

    fn row(name: &str, goodput: f64) -> Row {
        let nothing = Run { records: Vec::new(), sent: Vec::new() };
        Row {
            name: name.to_owned(),
            tally: nothing.tally(&(Duration::ZERO..Duration::from_secs(1))),
            goodput,
            after: None,
            detection: None,
            series: Vec::new(),
            late_p99: Duration::ZERO,
            late_max: Duration::ZERO,
            scarce: 0,
        }
    }

    fn report(surge: Vec<Row>) -> Report {
        Report { surge, capacity: 1000.0, work: Duration::from_millis(20), ..Report::default() }
    }

    #[test]
    fn it_fails_where_our_goodput_is_too_low_and_only_there() {
        assert!(report(vec![row("none", 0.1), row("buttress", 0.949)]).failed());
        assert!(!report(vec![row("none", 0.1), row("buttress", 0.95)]).failed());
        let scarce = Row { scarce: 1, ..row("buttress", 1.0) };
        assert!(report(vec![scarce]).failed(), "not all of the load was there");
        assert!(!report(vec![row("none", 0.1)]).failed(), "it came to no end, which is said elsewhere");
        assert!(!report(vec![row("buttress", 0.99), row("another", 0.1)]).failed(), "whoever comes last");
    }

    #[test]
    fn goals_of_time_grow_with_what_a_call_takes() {
        let after =
            |millis| After { good: 1.0, recovery: Some(Duration::from_millis(millis)), seen: Duration::from_secs(15) };
        let met = |work, millis| {
            let ours = Row { after: Some(after(millis)), ..row("buttress, both sides", 1.0) };
            Report { work: Duration::from_millis(work), cut: vec![ours], ..report(Vec::new()) }.goals()[0].met
        };
        assert_eq!([met(20, 2000), met(20, 2001)], [true, false]);
        assert_eq!([met(5, 1000), met(5, 1001)], [true, false], "but do not shrink");
    }

    #[test]
    fn figures_that_say_nothing_meet_no_goal() {
        let goals = |late, work| {
            let ours = Row { late_p99: Duration::from_millis(late), ..row("buttress", 0.99) };
            Report { work: Duration::from_millis(work), ..report(vec![ours]) }.goals()
        };
        assert!(goals(10, 20)[0].met);
        assert!(!goals(11, 20)[0].met && goals(11, 20)[0].text.contains("not to be believed"));
        assert!(!goals(3, 5)[0].met && goals(11, 40)[0].met, "by what a call takes");
        let naive = Row {
            after: Some(After { good: 1.0, recovery: None, seen: Duration::ZERO }),
            ..row("buttress; naive retries", 1.0)
        };
        assert!(Report { cut: vec![naive], ..report(Vec::new()) }.goals().is_empty(), "ours did not come to its end");
    }

    #[test]
    fn what_is_not_to_be_believed_is_said() {
        let late = Row { late_p99: Duration::from_millis(11), ..row("none", 1.0) };
        let scarce = Row { scarce: 3, ..row("tower", 1.0) };
        let warnings = Report { capacity_after: Some(960.0), ..report(vec![late, scarce]) }.warnings();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[1].contains("3 attempts found no port"), "{warnings:?}");
        assert!(Report { capacity_after: Some(980.0), ..report(vec![row("none", 1.0)]) }.warnings().is_empty());
    }

    #[test]
    fn who_has_not_recovered_is_shown_with_how_long_was_looked() {
        assert_eq!(recovered(&After { good: 0.0, recovery: None, seen: Duration::from_secs(14) }), ">14");
    }
}
