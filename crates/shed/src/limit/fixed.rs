use super::{Limit, Span, Window};
use std::time::Duration;

/// Always the same limit: for comparison, and for a service whose capacity is known.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u32);

impl Limit for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }

    fn span(&self) -> Span {
        Span { calls: 250, some: (20, Duration::from_millis(500)), few: (5, Duration::from_secs(2)), until: None }
    }

    fn observe(&mut self, _: &Window) {}

    fn name(&self) -> &'static str {
        "fixed"
    }
}
