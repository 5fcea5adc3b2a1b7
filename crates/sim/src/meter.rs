use buttress_core::{Admit, Gatekeeper, Outcome, Pushback, Rejection, Settle};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A policy that admits every call and writes down what becomes of it: `GateLayer<Meter, P>` shows what a layer at its place
/// in a chain gets to see.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use buttress_core::{BoxError, GateLayer};
/// use buttress_sim::{Meter, Script};
/// use tower::{Layer, ServiceExt};
///
/// let meter = Meter::new();
/// let layer = GateLayer::<Meter>::new(meter.clone());
/// let script = Script::new(async |n: u64| if n == 0 { Err(BoxError::from("zero")) } else { Ok(n) });
/// let _ = layer.layer(script.clone()).oneshot(1).await;
/// let _ = layer.layer(script).oneshot(0).await;
/// assert_eq!((meter.tally().success, meter.tally().failure), (1, 1));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    calls: u64,
    in_flight: u64,
    steps: Vec<(u64, Step)>,
    latencies: Vec<Duration>,
    tally: Tally,
}

/// One thing that a permit was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// [`Settle::pending`].
    Pending,
    /// [`Settle::pause`].
    Paused,
    /// [`Settle::head`].
    Head,
    /// [`Settle::conclude`].
    Concluded(Outcome),
    /// It was dropped: the call's real end.
    Dropped,
}

/// How many calls ended how. A permit dropped without a conclusion is `ignored`, or a `failure` if its thread panics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// [`Outcome::Success`].
    pub success: u64,
    /// [`Outcome::Failure`].
    pub failure: u64,
    /// [`Outcome::Overload`].
    pub overload: u64,
    /// [`Outcome::Ignored`].
    pub ignored: u64,
}

impl Tally {
    /// One call that ended with `outcome`.
    pub fn of(outcome: Outcome) -> Self {
        let mut tally = Self::default();
        tally.count(outcome);
        tally
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.success + self.failure + self.overload + self.ignored
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Success => self.success += 1,
            Outcome::Failure => self.failure += 1,
            Outcome::Overload => self.overload += 1,
            _ => self.ignored += 1,
        }
    }
}

impl Meter {
    /// A meter that has seen nothing. Its clones are the same meter.
    pub fn new() -> Self {
        Self::default()
    }

    /// How the calls ended so far. A call that is concluded twice counts twice.
    pub fn tally(&self) -> Tally {
        self.log().tally
    }

    /// Calls admitted so far.
    pub fn calls(&self) -> u64 {
        self.log().calls
    }

    /// Calls that have not come to their real end.
    pub fn in_flight(&self) -> u64 {
        self.log().in_flight
    }

    /// What the permit of call number `call` (from 0) was told, in order.
    pub fn steps(&self, call: u64) -> Vec<Step> {
        self.log().steps.iter().filter(|(of, _)| *of == call).map(|(_, step)| *step).collect()
    }

    /// How long somebody waited, of each call that was concluded: from [`Settle::pending`] to [`Settle::pause`] or [`Settle::head`], more than once
    /// if it was told so; on tokio's clock.
    pub fn latencies(&self) -> Vec<Duration> {
        self.log().latencies.clone()
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gatekeeper for Meter {
    type Permit = Metered;
    type Turn = ();
}

impl<Req> Admit<Req> for Meter {
    fn admit(&self, _: &mut (), _: &Req) -> Result<Metered, Rejection> {
        let mut log = self.log();
        let call = log.calls;
        log.calls += 1;
        log.in_flight += 1;
        Ok(Metered { meter: self.clone(), call, waiting: None, waited: Duration::ZERO, concluded: false })
    }
}

/// The permit of a [`Meter`].
#[derive(Debug)]
pub struct Metered {
    meter: Meter,
    call: u64,
    /// Since when somebody waits.
    waiting: Option<Instant>,
    waited: Duration,
    concluded: bool,
}

impl Metered {
    fn note(&mut self, step: Step) {
        let mut log = self.meter.log();
        log.steps.push((self.call, step));
        if let Step::Concluded(outcome) = step {
            log.tally.count(outcome);
        }
        match step {
            Step::Pending if self.waiting.is_none() => self.waiting = Some(Instant::now()),
            Step::Paused | Step::Head | Step::Concluded(_) => {
                self.waited += self.waiting.take().map(|since| since.elapsed()).unwrap_or_default();
            }
            _ => {}
        }
        if let Step::Concluded(_) = step {
            log.latencies.push(self.waited);
        }
    }
}

impl Settle for Metered {
    fn pending(&mut self) {
        self.note(Step::Pending);
    }

    fn pause(&mut self) {
        self.note(Step::Paused);
    }

    fn head(&mut self) {
        self.note(Step::Head);
    }

    fn conclude(&mut self, outcome: Outcome, _: Option<Pushback>) {
        self.concluded = true;
        self.note(Step::Concluded(outcome));
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.note(Step::Dropped);
        let mut log = self.meter.log();
        log.in_flight -= 1;
        if !self.concluded {
            log.tally.count(buttress_core::abandoned());
        }
    }
}
