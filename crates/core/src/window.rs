//! Sliding windows of outcomes: constant memory, lock-free, and they really slide.
//!
//! | | [`TimeWindow`] | [`CountWindow`] |
//! |---|---|---|
//! | covers | the last so many seconds, in ten buckets | the last so many calls, exactly |
//! | a healthy call | one CAS on a line of its thread's stripe | two loads, nothing written |
//! | memory | 256 bytes per stripe | 8 bytes per 20 calls |
//!
//! Both belong to a policy that goes through *generations* (a breaker that opens and closes again): what was recorded
//! in one generation never shows in a later one, and nothing is swept when a generation begins. The time window does it with
//! the first epoch that counts, the count window with a tag in each of its words.
//!
//! ```
//! use buttress_core::window::TimeWindow;
//! use std::time::Duration;
//!
//! let window = TimeWindow::new(Duration::from_secs(10), 1);
//! window.failure(0, 0, window.advance(Duration::from_secs(1).as_nanos() as u64));
//! assert_eq!(window.counts(0, Duration::from_secs(5).as_nanos() as u64).failures, 1);
//! assert_eq!(window.counts(0, Duration::from_secs(12).as_nanos() as u64).failures, 0);
//! ```
mod count;
mod time;

pub use count::CountWindow;
pub use time::TimeWindow;

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls, good and bad.
    pub total: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that were slow, whether they failed or not.
    pub slow: u64,
}

#[cfg(all(test, buttress_loom))]
mod loom_tests;
#[cfg(all(test, not(buttress_loom)))]
mod tests;
