use super::{Limit, Span, Window};

/// Always the same limit: for comparison, and for a service whose capacity is known.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub u32);

impl Limit for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }

    fn span(&self) -> Span {
        Span::default()
    }

    fn observe(&mut self, _: &Window) {}

    fn name(&self) -> &'static str {
        "fixed"
    }
}
