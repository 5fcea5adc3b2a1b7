//! The suite fails on a layer that breaks a rule, and says which.

mod support;

use buttress_sim::contract::{RULES, Rule, Subject};
use std::collections::BTreeSet;
use support::{Fault, breaker, compartment, limiter};

type Make = fn(Fault) -> Subject;

/// Every mistake, the layer that makes it, and a rule that must see it.
const FAULTS: &[(Fault, Make, &str)] = &[
    (Fault::StateInLayer, limiter, "clones_and_layer_calls_share_one_state"),
    (Fault::StateInLayer, breaker, "clones_and_layer_calls_share_one_state"),
    (Fault::CountsNothing, breaker, "clones_and_layer_calls_share_one_state"),
    (Fault::RefusesInPollReady, breaker, "poll_ready_fails_only_with_the_inner_services_own_error"),
    (Fault::RefusesInPollReady, limiter, "poll_ready_fails_only_with_the_inner_services_own_error"),
    (Fault::HidesReadinessErrors, limiter, "poll_ready_fails_only_with_the_inner_services_own_error"),
    (Fault::ReservesWhenReady, limiter, "ready_clones_reserve_nothing"),
    (Fault::CallsUnready, limiter, "an_unready_inner_service_is_never_called"),
    (Fault::CallsUnready, breaker, "an_unready_inner_service_is_never_called"),
    (Fault::SaysReadyAlways, limiter, "an_unready_inner_service_is_never_called"),
    (Fault::AsksInnerFirst, breaker, "shut_it_refuses_without_asking_the_inner_service"),
    (Fault::ForgetsShutBetween, breaker, "shut_it_refuses_without_asking_the_inner_service"),
    (Fault::ForgetsTheParked, breaker, "shutting_wakes_parked_callers"),
    (Fault::AsksInnerFirst, breaker, "shutting_wakes_parked_callers"),
    (Fault::Unmarked, breaker, "a_refusal_comes_out_of_the_future_and_is_marked"),
    (Fault::Unmarked, limiter, "a_refusal_comes_out_of_the_future_and_is_marked"),
    (Fault::ClosesBadConnections, breaker, "a_refusal_is_a_whole_answer_on_the_wire"),
    (Fault::TieRefusesGrpcPlainly, limiter, "a_refusal_is_a_whole_answer_on_the_wire"),
    (Fault::Unmarked, breaker, "an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure"),
    (Fault::CountsIgnored, breaker, "an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure"),
    (Fault::CountsFailuresAsSuccesses, breaker, "an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure"),
    (Fault::CountsIgnored, breaker, "an_aborted_upload_is_ignored"),
    (Fault::WrapsErrors, breaker, "an_aborted_upload_is_ignored"),
    (Fault::KeepsPermitWhenDropped, limiter, "a_call_dropped_at_any_poll_leaves_nothing_behind"),
    (Fault::SpawnsTheCall, limiter, "a_call_dropped_at_any_poll_leaves_nothing_behind"),
    (Fault::SpawnsTheBody, limiter, "a_call_dropped_at_any_poll_leaves_nothing_behind"),
    (Fault::LeaksTheQueue, compartment, "a_waiting_call_that_is_dropped_leaves_nothing_behind"),
    (Fault::LosesTheTurn, compartment, "a_waiting_call_that_is_dropped_leaves_nothing_behind"),
    (Fault::SwallowsPanics, breaker, "a_panic_passes_on_and_frees_everything"),
    (Fault::PanicIsNoFailure, breaker, "a_panic_passes_on_and_frees_everything"),
    (Fault::KeepsPermitWhenDropped, breaker, "a_panic_passes_on_and_frees_everything"),
    (Fault::OffByOne, limiter, "no_more_calls_than_the_limit_run_at_once"),
    (Fault::OffByOne, limiter, "clones_and_layer_calls_share_one_state"),
    (Fault::FreesAtTheHead, limiter, "no_more_calls_than_the_limit_run_at_once"),
    (Fault::TieEndsAtTheHead, limiter, "no_more_calls_than_the_limit_run_at_once"),
    (Fault::FreesAtTheHead, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieEndsAtTheHead, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieKnowsNoneOnly, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieKnowsNoLength, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieKnowsNoBodilessAnswer, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieMissesErrors, limiter, "a_permit_is_held_to_the_end_of_the_body"),
    (Fault::TieMissesErrors, limiter, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::TieKnowsNoneOnly, limiter, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::TieKnowsNoLength, limiter, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::TieIgnoresTrailers, limiter, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::SettlesTwice, breaker, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::CountsFailuresAsSuccesses, breaker, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::WrapsErrors, breaker, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::MarksAnything, breaker, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::EatsTrailers, breaker, "a_finished_call_settles_once_with_its_outcome"),
    (Fault::CountsAbandoned, breaker, "an_early_drop_says_nothing_unless_the_head_was_bad"),
    (Fault::TieForgetsBadHeads, limiter, "an_early_drop_says_nothing_unless_the_head_was_bad"),
    (Fault::TieEndsAtTheHead, limiter, "an_early_drop_says_nothing_unless_the_head_was_bad"),
    (Fault::SpawnsTheBody, limiter, "an_early_drop_says_nothing_unless_the_head_was_bad"),
    (Fault::TieForgetsTunnels, limiter, "an_upgraded_connection_keeps_its_permit"),
    (Fault::EatsEndOfStream, breaker, "bodies_pass_through_unchanged"),
    (Fault::EatsSizeHint, breaker, "bodies_pass_through_unchanged"),
    (Fault::EatsTrailers, breaker, "bodies_pass_through_unchanged"),
    (Fault::EatsErrors, breaker, "bodies_pass_through_unchanged"),
    (Fault::GathersTheBody, breaker, "bodies_pass_through_unchanged"),
    (Fault::GathersTheBody, breaker, "the_latency_ends_at_the_head"),
    (Fault::DelaysTheHead, breaker, "the_latency_ends_at_the_head"),
    (Fault::ForgetsTheContext, breaker, "waiting_for_the_client_is_no_latency"),
    (Fault::ExpiresWhenIdle, breaker, "it_works_under_a_paused_clock"),
    (Fault::TieKnowsNoneOnly, limiter, "bodies_served_by_hyper_are_successes"),
    (Fault::TieKnowsNoLength, limiter, "bodies_served_by_hyper_are_successes"),
    (Fault::TieKnowsNoBodilessAnswer, limiter, "bodies_served_by_hyper_are_successes"),
    (Fault::EatsTrailers, breaker, "bodies_served_by_hyper_are_successes"),
    (Fault::TieIgnoresTrailers, limiter, "bodies_read_from_hyper_are_successes"),
    (Fault::EatsTrailers, breaker, "bodies_read_from_hyper_are_successes"),
    (Fault::CountsAbandoned, breaker, "a_peer_that_goes_away_is_ignored"),
    (Fault::SpawnsTheCall, limiter, "a_peer_that_goes_away_is_ignored"),
    (Fault::KeepsPermitWhenDropped, limiter, "a_peer_that_goes_away_is_ignored"),
];

#[test]
fn every_mistake_is_seen_by_its_rule() {
    let blind: Vec<_> = FAULTS
        .iter()
        .filter_map(|&(fault, make, name)| {
            let rule = Rule::named(name).unwrap_or_else(|| panic!("no rule {name}"));
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
            match runtime.block_on(rule.check(&|| make(fault))) {
                Ok(()) => Some(format!("{name} does not see {fault:?}")),
                Err(broken) => {
                    println!("{fault:?}: {broken}");
                    (broken.rule != name).then(|| format!("{broken}"))
                }
            }
        })
        .collect();
    assert!(blind.is_empty(), "{blind:#?}");
}

#[test]
fn every_rule_sees_a_mistake() {
    let seen: BTreeSet<_> = FAULTS.iter().map(|(_, _, rule)| *rule).collect();
    let all: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(seen, all);
}
