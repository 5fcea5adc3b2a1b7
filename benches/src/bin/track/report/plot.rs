//! Two charts of a case: goodput and the 99th percentile, as they go in time.

use crate::{
    contestant::Contestant,
    run::{Row, Sheet},
    scenario::Point,
};
use std::fmt::Write;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 820.0;
/// Grey can be read on white and on black.
const INK: &str = "#808080";

/// Where a chart is, and what it shows.
struct Chart {
    top: f64,
    bottom: f64,
    title: &'static str,
    /// Lines across, with what is written at them.
    marks: Vec<(f64, String)>,
    /// From a value to a share of the height.
    scale: Box<dyn Fn(f64) -> f64>,
}

/// An SVG image of the seeds in the middle.
pub fn plot(sheet: &Sheet) -> String {
    let points = || sheet.rows.iter().flat_map(|row| &row.series);
    let end = points().map(|point| point.at).fold(1.0, f64::max);
    let slowest = points().filter_map(|point| point.p99).fold(0.001, f64::max) * 1e3;
    let fastest = points().filter_map(|point| point.p99).filter(|p99| *p99 > 0.0).fold(f64::INFINITY, f64::min) * 1e3;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} 600\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{} {} ({})</text>\n",
        escaped(sheet.case.scenario.name),
        escaped(sheet.case.scenario.title),
        escaped(&sheet.case.setup.title()),
    );
    let highest = points().map(|point| point.goodput).fold(1.0, f64::max) * 1.05;
    let goodput = Chart {
        top: 50.0,
        bottom: 280.0,
        title: "useful work, % of what healthy workers can do",
        marks: (0..=4).map(|n| f64::from(n) / 4.0).map(|at| (at, format!("{:.0}", at * 100.0))).collect(),
        scale: Box::new(move |value| value / highest),
    };
    let (low, high) = (fastest.min(slowest).max(0.01).log10().floor(), slowest.log10().ceil());
    let decades = (low as i32..high as i32).flat_map(|n| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(n)));
    let p99 = Chart {
        top: 330.0,
        bottom: 560.0,
        title: "99th percentile, ms",
        marks: decades.chain([10_f64.powf(high)]).map(|at| (at, format!("{at}"))).collect(),
        scale: Box::new(move |value| (value.log10() - low) / (high - low).max(1.0)),
    };
    frame(&mut svg, &goodput, end);
    frame(&mut svg, &p99, end);
    for (n, row) in sheet.rows.iter().enumerate() {
        line(&mut svg, &goodput, row, end, |point| Some(point.goodput));
        line(&mut svg, &p99, row, end, |point| point.p99.map(|p99| p99 * 1e3));
        let y = 60.0 + 18.0 * n as f64;
        let colour = colour(row.contestant);
        let _ = writeln!(
            svg,
            "<rect x=\"835\" y=\"{:.0}\" width=\"14\" height=\"4\" fill=\"{colour}\"/><text x=\"855\" y=\"{y:.0}\">{}</text>",
            y - 6.0,
            row.contestant.name()
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn frame(svg: &mut String, chart: &Chart, end: f64) {
    let Chart { top, bottom, title, .. } = chart;
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.0}\">{title}</text>", top - 8.0);
    for (value, text) in &chart.marks {
        let y = chart.y(*value);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{RIGHT}\" stroke=\"{INK}\" stroke-opacity=\"0.3\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 6.0,
            y + 4.0
        );
    }
    for n in 0..=6 {
        let share = f64::from(n) / 6.0;
        let x = LEFT + share * (RIGHT - LEFT);
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0} s</text>",
            bottom + 18.0,
            share * end
        );
    }
    let _ = writeln!(svg, "<path d=\"M{LEFT} {top}V{bottom}H{RIGHT}\" stroke=\"{INK}\" fill=\"none\"/>");
}

/// A path that is interrupted where there is no value.
fn line(svg: &mut String, chart: &Chart, row: &Row, end: f64, value: impl Fn(&Point) -> Option<f64>) {
    let mut path = String::new();
    let mut is_down = false;
    for point in &row.series {
        let Some(value) = value(point) else {
            is_down = false;
            continue;
        };
        let (x, y) = (LEFT + point.at / end * (RIGHT - LEFT), chart.y(value));
        let _ = write!(path, "{}{x:.1} {y:.1}", if is_down { 'L' } else { 'M' });
        is_down = true;
    }
    let width = if row.contestant == Contestant::Ours { 2.5 } else { 1.2 };
    let colour = colour(row.contestant);
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"{width}\" fill=\"none\" stroke-linejoin=\"round\"/>"
    );
}

impl Chart {
    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.scale)(value).clamp(0.0, 1.0) * (self.bottom - self.top)
    }
}

fn colour(contestant: Contestant) -> &'static str {
    match contestant {
        Contestant::None => "#9e9e9e",
        Contestant::Tower => "#8d6e63",
        Contestant::TowerTimes4 => "#bc8f7f",
        Contestant::TowerBy4 => "#6d4c41",
        Contestant::Aimd => "#f9a825",
        Contestant::Vegas => "#ab47bc",
        Contestant::Gradient2 => "#26a69a",
        Contestant::Envoy => "#ec407a",
        Contestant::Breaker => "#5c6bc0",
        Contestant::Oracle => "#43a047",
        Contestant::Ours => "#1e88e5",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
