//! What is shown of it: a table, JSON, plots.

mod json;
mod plot;
mod table;

pub use json::json;
pub use plot::plot;
pub use table::table;

use crate::metric::{Metric, Unit};

/// A figure as people read it.
fn figure(metric: Metric, value: f64) -> String {
    if value.is_infinite() {
        return "never".to_owned();
    }
    match metric.unit() {
        // Six columns hold either; what is not all of it is not written as if it were.
        Unit::Percent if value >= 0.99995 => format!("{:.1}", value * 100.0),
        Unit::Percent => format!("{:.2}", value * 100.0),
        Unit::Millis if value >= 1_000.0 => format!("{value:.0}"),
        Unit::Millis => format!("{value:.1}"),
        Unit::Seconds | Unit::Times => format!("{value:.2}"),
        Unit::Count => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_is_not_all() {
        let of = |value| figure(Metric::Goodput, value);
        assert_eq!([of(0.9995), of(0.9999), of(1.0), of(0.5)], ["99.95", "99.99", "100.0", "50.00"]);
        assert_eq!(figure(Metric::P99, f64::INFINITY), "never");
    }
}
