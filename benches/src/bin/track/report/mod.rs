//! What is shown of it: a table, JSON, plots.

mod json;
mod legend;
mod plot;
mod table;

pub use json::json;
pub use plot::plot;
pub use table::table;

use crate::metric::{Metric, Unit};

/// A figure as people read it, with so many more places behind the point than it has as a rule.
fn figure_to(metric: Metric, value: f64, more: usize) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    let (value, places) = match metric.unit() {
        // Six columns hold either; what is not all of it is not written as if it were.
        Unit::Percent if value >= 0.99995 => (value * 100.0, 1),
        Unit::Percent => (value * 100.0, 2),
        Unit::Millis if value >= 1_000.0 => (value, 0),
        Unit::Millis => (value, 1),
        Unit::Seconds | Unit::Times => (value, 2),
        Unit::Count => (value, 0),
    };
    format!("{value:.*}", places + more)
}

/// How many more it takes to tell two figures apart; of those that are the same none will do.
fn places_to_differ(metric: Metric, a: f64, b: f64) -> usize {
    const MOST: usize = 6;
    (0..MOST).find(|more| figure_to(metric, a, *more) != figure_to(metric, b, *more)).unwrap_or(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_is_not_all() {
        let of = |value| figure_to(Metric::Goodput, value, 0);
        assert_eq!([of(0.9995), of(0.9999), of(1.0), of(0.5)], ["99.95", "99.99", "100.0", "50.00"]);
        assert_eq!(figure_to(Metric::P99, f64::INFINITY, 0), "never");
    }

    #[test]
    fn what_differs_is_written_as_what_differs() {
        let of = |metric, a, b| {
            let more = places_to_differ(metric, a, b);
            [a, b].map(|value| figure_to(metric, value, more))
        };
        assert_eq!(of(Metric::Drift, 1.104, 1.1), ["1.104", "1.100"]);
        assert_eq!(of(Metric::Drift, 1.2, 1.1), ["1.20", "1.10"]);
        assert_eq!(of(Metric::Goodput, 0.992_996, 0.993), ["99.2996", "99.3000"]);
        assert_eq!(of(Metric::P99, 72.04, 72.0), ["72.04", "72.00"]);
    }
}
