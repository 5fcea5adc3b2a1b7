/// A share of all grants, owed to the lowest class that waits.
#[derive(Debug)]
pub(super) struct Reserve {
    /// What each grant adds, in millionths of a grant.
    step: u32,
    owed: u32,
}

const GRANT: u32 = 1_000_000;

impl Reserve {
    pub(super) fn new(share: f64) -> Self {
        let mut reserve = Self { step: 0, owed: 0 };
        reserve.set(share);
        reserve
    }

    pub(super) fn set(&mut self, share: f64) {
        self.step = (share.clamp(0.0, 1.0) * f64::from(GRANT)) as u32;
        self.owed = if self.step == 0 { 0 } else { self.owed };
    }

    /// Whether the next grant is the lowest class's.
    pub(super) fn is_due(&self) -> bool {
        self.owed >= GRANT
    }

    /// A grant; `low`: to one that a higher class stood behind, or to the lowest there is, which is not starved while it finds
    /// its own way. Of what is owed while nobody lower waits one grant is remembered and no more.
    pub(super) fn granted(&mut self, low: bool) {
        if low {
            self.owed = self.owed.saturating_sub(GRANT);
        }
        self.owed = (self.owed + self.step).min(GRANT + self.step);
    }
}
