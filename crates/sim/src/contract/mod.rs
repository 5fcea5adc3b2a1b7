//! The contract of every Buttress layer, as a test suite that a layer's crate runs in a few lines.
//!
//! A [`Subject`] says how the layer is made and what can be read back from it; [`contract_suite!`](crate::contract_suite)
//! makes one test per [`Rule`], so that a broken rule has a name. A rule that needs a knob the subject does not have passes,
//! and prints `nothing to check` with the knob's name (`cargo test -- --nocapture`, `cargo nextest run --success-output final`):
//!
//! | knob | without it these rules have nothing to check | and these check less |
//! |---|---|---|
//! | [`in_flight`](Subject::in_flight) | `a_permit_is_held_to_the_end_of_the_body`, `an_upgraded_connection_keeps_its_permit` | all that look whether something is left behind: cancellation, panics, the rules over hyper |
//! | [`limit`](Subject::limit) | `no_more_calls_than_the_limit_run_at_once`, `a_waiting_call_that_is_dropped_leaves_nothing_behind` | `clones_and_layer_calls_share_one_state` |
//! | [`shut`](Subject::shut) | `a_refusal_is_a_whole_answer_on_the_wire`; without a limit either, `a_refusal_comes_out_of_the_future_and_is_marked` | `clones_and_layer_calls_share_one_state`, `poll_ready_fails_only_with_the_inner_services_own_error` |
//! | [`shut`](Subject::shut) and [`asks_first`](Subject::asks_first) | `shut_it_refuses_without_asking_the_inner_service`, `shutting_wakes_parked_callers` | |
//! | [`outcomes`](Subject::outcomes) | | all that look how a call was counted: bodies, panics, refusals further in, the rules over hyper |
//! | [`at_rest`](Subject::at_rest) | | as `in_flight` |
//!
//! In `tests/contract.rs` (the crate needs `tokio` with `rt`, `time` and `test-util` in its dev-dependencies):
//!
//! ```
//! use buttress_core::{GateLayer, http::{HttpClient, HttpServer}};
//! use buttress_sim::{Meter, contract::Subject, contract_suite};
//!
//! fn meter() -> Subject {
//!     let layer = GateLayer::<Meter>::new(Meter::new());
//!     let handle = layer.handle();
//!     let counts = layer.handle();
//!     Subject::new(layer.clone(), layer.clone().protocol(HttpServer::new()), layer.protocol(HttpClient::new()))
//!         .in_flight(move || handle.in_flight())
//!         .outcomes(move || (counts.tally().success, counts.tally().failure))
//! }
//!
//! contract_suite!(meter);
//! # fn main() {}
//! ```
//!
//! What the calls of the suite ask of a config: at most 1 s of tokio's clock up to the response head and 30 s of body, single
//! failures that it does not yet act upon, and room for at least 4 calls at once where there is a limit.

mod cast;
mod rules;
mod stack;
mod subject;

pub use subject::{HttpInner, Role, Subject};

use futures_util::{FutureExt, future::LocalBoxFuture};
use std::{any::Any, fmt, panic::AssertUnwindSafe, time::Duration};

/// What a rule says of a layer that breaks it.
pub(crate) type Verdict = Result<(), String>;

/// One rule of the contract.
pub struct Rule {
    /// Its name, and that of its test.
    pub name: &'static str,
    /// It wants a runtime whose clock is paused. The others want a real one: they use sockets and threads.
    pub paused: bool,
    run: for<'a> fn(&'a dyn Fn() -> Subject) -> LocalBoxFuture<'a, Verdict>,
}

/// A rule that a layer broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

impl std::error::Error for Broken {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.name).finish()
    }
}

impl Rule {
    /// The rule of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        RULES.iter().find(|rule| rule.name == name)
    }

    /// Holds a layer to this rule, in a tokio runtime with I/O and time whose clock is as [`paused`](Self::paused) says. Each
    /// `subject()` is a fresh layer, with a state of its own.
    ///
    /// # Errors
    ///
    /// The layer breaks the rule. A panic and a rule that does not come to its end within a minute count as that, too.
    pub async fn check(&self, subject: &dyn Fn() -> Subject) -> Result<(), Broken> {
        // A paused clock runs ahead of any bound on it.
        let bound = if self.paused { Duration::from_secs(1_000_000) } else { Duration::from_secs(60) };
        let run = AssertUnwindSafe((self.run)(subject)).catch_unwind();
        let what = match tokio::time::timeout(bound, run).await {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(what))) => what,
            Ok(Err(payload)) => format!("a panic: {}", panic_text(&*payload)),
            Err(_) => "it hangs".to_owned(),
        };
        Err(Broken { rule: self.name, what })
    }
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("(no text)")
}

/// Hands the list of rules to a macro: their names, and whether they want a paused clock.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_rules {
    ([$($callback:tt)+] $($args:tt)*) => {
        $($callback)+! { $($args)*
            // Readiness.
            clones_and_layer_calls_share_one_state(false)
            poll_ready_fails_only_with_the_inner_services_own_error(false)
            ready_clones_reserve_nothing(false)
            an_unready_inner_service_is_never_called(false)
            // Refusals.
            shut_it_refuses_without_asking_the_inner_service(false)
            shutting_wakes_parked_callers(false)
            a_refusal_comes_out_of_the_future_and_is_marked(false)
            a_refusal_is_a_whole_answer_on_the_wire(false)
            an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure(false)
            an_aborted_upload_is_ignored(false)
            // Cancellation.
            a_call_dropped_at_any_poll_leaves_nothing_behind(false)
            a_waiting_call_that_is_dropped_leaves_nothing_behind(false)
            a_panic_passes_on_and_frees_everything(false)
            no_more_calls_than_the_limit_run_at_once(false)
            // Bodies.
            a_permit_is_held_to_the_end_of_the_body(false)
            a_finished_call_settles_once_with_its_outcome(false)
            an_early_drop_says_nothing_unless_the_head_was_bad(false)
            an_upgraded_connection_keeps_its_permit(false)
            bodies_pass_through_unchanged(false)
            the_latency_ends_at_the_head(true)
            waiting_for_the_client_is_no_latency(true)
            it_works_under_a_paused_clock(true)
            // hyper.
            bodies_served_by_hyper_are_successes(false)
            bodies_read_from_hyper_are_successes(false)
            a_peer_that_goes_away_is_ignored(false)
        }
    };
}

macro_rules! list {
    ($($name:ident($paused:literal))*) => {
        /// Every rule.
        pub const RULES: &[Rule] = &[$(
            Rule { name: stringify!($name), paused: $paused, run: |subject| Box::pin(rules::$name(subject)) },
        )*];
    };
}
__contract_rules!([list]);

/// Makes one test per [`Rule`](crate::contract::Rule) for the layer that a `fn() -> Subject` makes: `contract_suite!(make)`, or
/// `contract_suite!(name: make)` to name the module of the tests. See [`contract`](crate::contract).
#[macro_export]
macro_rules! contract_suite {
    ($make:ident) => {
        $crate::contract_suite!($make: $make);
    };
    ($name:ident: $make:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $crate::__contract_rules!([$crate::__contract_tests] $make;);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __contract_tests {
    ($make:expr; $($name:ident($paused:literal))*) => {$(
        #[test]
        fn $name() {
            let rule = $crate::contract::Rule::named(stringify!($name)).expect("a rule");
            let mut runtime = ::tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused($paused).build().expect("a runtime");
            if let Err(broken) = runtime.block_on(rule.check(&$make)) {
                panic!("the layer breaks the contract: {broken}");
            }
        }
    )*};
}
