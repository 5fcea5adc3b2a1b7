//! What the readings of our layers are, in a line each, as `# HELP` says it.

use std::borrow::Cow;

/// The help of a reading, by the name its handle has for it.
pub(super) fn help(kind: &str, reading: &str) -> Cow<'static, str> {
    match known(kind, reading.strip_suffix("_current").unwrap_or(reading)) {
        Some(help) => Cow::Borrowed(help),
        // Of others' layers only they know.
        None => Cow::Owned(format!("What a {kind} shows as {reading}.")),
    }
}

fn known(kind: &str, reading: &str) -> Option<&'static str> {
    if reading == "mode" {
        return Some("What an operator told it to do: 1 for the present mode.");
    }
    match kind {
        "balance" => balance(reading),
        "breaker" => breaker(reading),
        "budget" => budget(reading),
        "bulkhead" => bulkhead(reading),
        "canary" => canary(reading),
        "chaos" => chaos(reading),
        "coalesce" => coalesce(reading),
        "deadline" => deadline(reading),
        "failover" => failover(reading),
        "fallback" => fallback(reading),
        "gate" => gate(reading),
        "keyed" => keyed(reading),
        "levels" => levels(reading),
        "pressure" => pressure(reading),
        "pressure_sources" => pressure_sources(reading),
        "rate_limit" => rate_limit(reading),
        "request_span" => request_span(reading),
        "retry" => retry(reading),
        "shed" => shed(reading),
        "stale" => stale(reading),
        "telemetry" => telemetry(reading),
        "throttle" => throttle(reading),
        "toggle" => toggle(reading),
        "vote" => vote(reading),
        _ => None,
    }
}

/// A function from a reading to its line.
macro_rules! readings {
    ($($kind:ident { $($reading:literal => $help:literal,)+ })+) => {
        $(fn $kind(reading: &str) -> Option<&'static str> {
            Some(match reading {
                $($reading => $help,)+
                _ => return None,
            })
        })+
    };
}

readings! {
    balance {
        "endpoints" => "Endpoints there are.",
        "endpoints_shut" => "Endpoints whose circuit is open, or that are ejected.",
        "endpoints_leaving" => "Endpoints that were removed and still have calls.",
        "in_flight" => "Calls in flight, those to removed endpoints included.",
        "picks_total" => "Calls sent to an endpoint.",
        "failures_total" => "Calls that failed, and endpoints that failed when they were asked whether they are ready.",
        "skipped_total" => "How often an endpoint was drawn and passed over: shut, not ready, or failed when it was asked.",
        "waited_total" => "Calls that had to wait, because no endpoint was ready.",
        "refused_total" => "Calls refused: every endpoint was shut, or there was none.",
        "discovery_errors_total" => "Errors of the discovery stream.",
    }
    breaker {
        "state" => "The state of the circuit: 1 for the present one.",
        "share" => "The share of calls that passes: 1 closed, 0 open.",
        "calls" => "Calls in the window.",
        "failures" => "Failed calls in the window.",
        "slow" => "Slow calls in the window.",
        "failure_rate" => "The share of failures in the window, with the calls that hang.",
        "slow_rate" => "The share of slow calls in the window, with those in flight.",
        "consecutive" => "Failures in a row.",
        "in_flight" => "Calls that wait for an answer, or probes.",
        "slow_in_flight" => "Calls in flight that are slow.",
        "hung_in_flight" => "Calls in flight that hang.",
        "opened_total" => "How often the circuit opened.",
        "refused_total" => "Calls refused: the circuit was open.",
        "let_through_total" => "Calls that would have been refused and that the mode let through.",
        "retry_in" => "Open: how long until the next probe.",
    }
    budget {
        "tokens" => "Tokens that first attempts have saved up.",
        "capacity" => "The most tokens that can be saved up.",
        "in_flight" => "Tokens held by attempts under way.",
        "deposits_total" => "First attempts that have paid.",
        "granted_total" => "Tokens granted.",
        "unpaid_total" => "Tokens granted because of the mode, against the decision or without one.",
        "denied_empty_total" => "Further attempts denied for want of tokens.",
        "denied_concurrent_total" => "Further attempts denied because as many as allowed were under way.",
        "denied_forced_total" => "Further attempts denied because an operator said so.",
    }
    bulkhead {
        "limit" => "How many calls may be in flight.",
        "in_flight" => "Calls in flight, with a permit and without.",
        "over_limit" => "Calls in flight without a permit, as the mode let them pass.",
        "queued" => "Calls that wait for a permit.",
        "refused_total" => "Calls refused because there was no room.",
        "timed_out_total" => "Calls refused because they had waited too long.",
        "over_limit_total" => "Calls that the mode let pass without a permit.",
    }
    canary {
        "state" => "Whether calls are split or the canary was given up: 1 for the present state.",
        "weight" => "The share of first attempts that goes to the canary.",
        "in_flight" => "Calls in flight, to the ends of their bodies.",
        "canary_picks_total" => "Calls sent to the canary.",
        "stable_picks_total" => "Calls sent to the stable service.",
        "canary_failure_rate" => "The share of the canary's calls in the window that failed.",
        "stable_failure_rate" => "The share of the stable service's calls in the window that failed.",
        "retried_total" => "Further attempts, which all went to the stable service.",
        "passed_total" => "Calls that the mode let pass to a canary that was given up.",
        "trips_total" => "How often the canary was given up.",
    }
    chaos {
        "state" => "Whether faults may be injected now: 1 for the present state.",
        "delayed_total" => "Calls that were delayed on purpose.",
        "refused_total" => "Calls that were refused on purpose.",
        "answered_total" => "Calls that were answered with an injected status.",
        "hung_total" => "Calls that were left without an answer on purpose.",
        "cut_total" => "Calls whose response body was to be cut.",
        "spared_total" => "Calls that would have been harmed and that the mode spared.",
    }
    coalesce {
        "in_flight" => "Calls under way that others may join, or have joined.",
        "calls_total" => "Calls that were made and that others could join.",
        "shared_total" => "Requests that joined the call of another.",
        "parted_total" => "Requests that joined one and made a call of their own in the end, as what came could not be shared.",
        "handed_over_total" => "Calls whose caller left and that another who waited went on with.",
    }
    deadline {
        "total" => "How long a whole call may take.",
        "per_try" => "How long one attempt may take.",
        "idle" => "How long a response body may make no progress.",
        "absolute" => "How long a response body may take from the head on.",
        "passed_total" => "Calls whose response head did not come before a deadline of ours.",
        "client_passed_total" => "Calls whose response head did not come before a deadline that the client had made shorter.",
        "refused_total" => "Calls refused without an attempt, as their deadline had passed.",
        "bodies_cut_total" => "Response bodies ended by a deadline.",
        "idle_total" => "Response bodies ended because they made no progress for too long.",
        "malformed_total" => "Requests whose deadline header could not be read; it was ignored.",
        "observed_total" => "Calls and bodies that would have been ended and that the mode let go on.",
    }
    failover {
        "state" => "Whether calls go to the primary, to a backup, or where an operator prefers: 1 for the present state.",
        "in_flight" => "Calls in flight, to the ends of their bodies.",
        "failed_over_for" => "For how long calls have gone to the first backup at once.",
        "failovers_total" => "How often all calls were sent to the first backup at once.",
        "returns_total" => "How often calls came back to the primary by themselves.",
        "probes_total" => "Calls that went to the primary first while others did not.",
        "passed_total" => "Calls that would have gone to a backup and that the mode kept from it.",
        "primary_calls_total" => "Calls sent to the primary.",
        "primary_failed_total" => "Calls that the primary did not answer well.",
        "backup_calls_total" => "Calls sent to backups.",
        "backup_answered_total" => "Calls that a backup answered well.",
        "backup_failed_total" => "Calls that a backup did not answer well.",
        "backup_capped_total" => "Calls that a backup did not get, as it had as many as it may.",
        "backup_unpaid_total" => "Calls that no backup got, as the budget had no token.",
        "timed_out_total" => "Calls that took longer than a tier's share of the time.",
    }
    fallback {
        "refused_total" => "Answers in place of a refusal.",
        "failure_total" => "Answers in place of a failure.",
        "overload_total" => "Answers in place of one that said too much.",
        "unwanted_total" => "Answers in place of one that the predicate did not want.",
        "switched_total" => "Answers that an operator switched to.",
        "failed_total" => "Calls that the backup had no good answer for, either.",
        "observed_total" => "Results that would have been replaced and that the mode let through.",
    }
    gate {
        "share" => "The share of calls that passes: 1 is wide open.",
        "in_flight" => "Calls that wait for an answer.",
        "hung_in_flight" => "Calls in flight that hang.",
        "narrowed_total" => "How often the gate was wide open and narrowed.",
        "refused_total" => "Calls refused by the gate.",
        "let_through_total" => "Calls that would have been refused and that the mode let through.",
    }
    keyed {
        "keys" => "Keys that have a policy of their own now.",
        "capacity" => "The most keys that can be held.",
        "evicted_total" => "Keys whose policy was dropped, idle or to make room.",
        "overflow_total" => "Calls of keys for which there was no room: they share one policy.",
    }
    levels {
        "level" => "The level that holds: 0 is the full service.",
        "pinned" => "1 if an operator holds the level.",
        "pressure" => "The pressure that was seen last, from 0 to 1.",
        "lasting" => "For how long the level has held.",
    }
    pressure {
        "pressure" => "The pressure that decides, from 0 to 1.",
        "sheddable_refused_total" => "Sheddable calls refused under pressure.",
        "normal_refused_total" => "Normal calls refused under pressure.",
        "critical_refused_total" => "Critical calls refused under pressure.",
        "over_total" => "Calls that would have been refused and that the mode let pass.",
    }
    pressure_sources {
        "pressure" => "The highest pressure of all sources, from 0 to 1.",
        "sources" => "Sources of pressure there are.",
        "unknown" => "Sources of pressure that could not be read.",
    }
    rate_limit {
        "remaining" => "Calls that would pass if they came now.",
        "burst" => "The most calls that pass at once.",
        "every" => "The time from one permit to the next.",
        "refused_total" => "Calls refused because there were too many.",
        "over_limit_total" => "Calls that were too many and that the mode let pass.",
        "keys" => "Keys that have a bucket of their own now.",
        "capacity" => "The most keys that can be held.",
        "evicted_total" => "Keys whose bucket was full again and was dropped.",
        "overflow_total" => "Calls of keys for which there was no room: they share one bucket.",
    }
    request_span {
        "access" => "Of which requests access records are written: 1 for the present choice.",
    }
    retry {
        "first_total" => "First attempts that paid into the budget, of all layers that share it.",
        "first_failed_total" => "First attempts whose result was not good.",
        "retries_total" => "Further attempts.",
        "retries_unsent_total" => "Further attempts after one of which nothing was processed.",
        "retries_error_total" => "Further attempts after an error in place of a response.",
        "retries_status_total" => "Further attempts after a status that the config lists.",
        "retries_grpc_total" => "Further attempts after a gRPC code that the config lists.",
        "retries_overload_total" => "Further attempts after an answer that said when to come back.",
        "retries_refused_total" => "Further attempts after one endpoint refused and there were others.",
        "retries_timed_out_total" => "Further attempts after the deadline of one attempt passed.",
        "retries_rule_total" => "Further attempts because the user's rule said so.",
        "recovered_total" => "Calls that a further attempt made good.",
        "gave_up_not_retryable_total" => "Bad results kept: another attempt would not change them, or must not be made.",
        "gave_up_not_repeatable_total" => "Bad results kept: the request may have been processed, and must not be twice.",
        "gave_up_declined_total" => "Bad results kept: the user's rule said so.",
        "gave_up_committed_total" => "Bad results kept: a response had begun to go to the caller.",
        "gave_up_attempts_total" => "Bad results kept: the call was sent as often as it may be.",
        "gave_up_pushed_back_total" => "Bad results kept: the server said never to come back.",
        "gave_up_retry_after_too_long_total" => "Bad results kept: the server asked for more time than allowed.",
        "gave_up_deadline_total" => "Bad results kept: the next attempt would not fit before the deadline.",
        "gave_up_body_too_large_total" => "Bad results kept: the request's body was larger than what is kept of one.",
        "gave_up_body_failed_total" => "Bad results kept: the request's body failed.",
        "gave_up_budget_empty_total" => "Bad results kept: first attempts had not paid for another one.",
        "gave_up_budget_concurrent_total" => "Bad results kept: as many retries as the budget allows were under way.",
        "gave_up_budget_closed_total" => "Bad results kept: an operator closed the budget.",
        "gave_up_observed_total" => "Bad results kept because of the mode: they would have been tried again.",
        "tokens" => "Tokens in the budget that pays for further attempts.",
        "in_flight" => "Tokens of the budget held by attempts under way.",
    }
    shed {
        "limit" => "How many calls may be in flight.",
        "in_flight" => "Calls in flight, with a permit and without.",
        "over_limit" => "Calls in flight without a permit, as the mode let them pass.",
        "queued" => "Calls that wait for room.",
        "line" => "How the queue is served: 1 for burst (in order) or standing (overload, newest first).",
        "oldest_wait" => "For how long the first in the queue has waited.",
        "admitted_total" => "Calls that got a permit.",
        "shed_total" => "Calls that were shed, for whatever cause.",
        "over_limit_total" => "Calls that the mode let pass without a permit.",
        "mean" => "The mean time of the calls of the last window.",
        "base" => "How long a call takes without load, as far as the limit knows.",
    }
    stale {
        "entries" => "Resources of which an answer is stored.",
        "bytes" => "Bytes that stored answers hold, keys and headers included.",
        "recording" => "Bytes of answers that are being copied and are not stored yet.",
        "stored_total" => "Answers that were stored.",
        "not_stored_status_total" => "Good answers not stored: their status, or their kind.",
        "not_stored_range_total" => "Good answers not stored: the request asked for a part.",
        "not_stored_no_store_total" => "Good answers not stored: the request or the answer said no-store.",
        "not_stored_private_total" => "Good answers not stored: private, for one user.",
        "not_stored_no_cache_total" => "Good answers not stored: no-cache, of no use without asking.",
        "not_stored_set_cookie_total" => "Good answers not stored: they have Set-Cookie.",
        "not_stored_vary_total" => "Good answers not stored: Vary names everything, or more fields than are looked at.",
        "not_stored_personal_total" => "Good answers not stored: the request had Authorization or Cookie, and the answer does not say public.",
        "not_stored_degraded_total" => "Good answers not stored: a layer further in refused, or gave a degraded one.",
        "not_stored_no_use_total" => "Good answers not stored: nothing says that they may be used at any time.",
        "not_stored_too_large_total" => "Good answers not stored: their body is larger than what is kept.",
        "not_stored_incomplete_total" => "Good answers not stored: their body failed, was not read to its end, or was not as long as declared.",
        "not_stored_trailers_total" => "Good answers not stored: they have trailers.",
        "not_stored_outdated_total" => "Good answers not stored: the resource was changed meanwhile, or a later answer is there.",
        "not_stored_busy_total" => "Good answers not stored: as many bytes are being copied as may be kept altogether.",
        "served_stale_total" => "Stored answers given though they were stale: the service failed, refused or was not asked.",
        "served_fresh_total" => "Stored answers given while they were fresh.",
        "spared_total" => "Stored answers given without asking the service.",
        "missed_total" => "Failures for which nothing stored could be given.",
        "revalidations_total" => "Requests made in the background.",
        "unpaid_total" => "Requests in the background not made, as the budget had no token.",
        "freshened_total" => "Stored answers that a 304 made fresh again.",
        "invalidated_total" => "Resources whose answers were thrown away: changed, or purged.",
        "observed_total" => "Stored answers that would have been given and that the mode withheld.",
    }
    telemetry {
        "in_flight" => "Calls in flight, to the ends of their bodies.",
        "success_total" => "Calls that ended well.",
        "failure_total" => "Calls that failed.",
        "overload_total" => "Calls answered with too much.",
        "ignored_total" => "Calls that say nothing about the service's health, as refusals do.",
        "abandoned_total" => "Calls whose caller left before their end.",
        "refused_total" => "Calls refused by a layer.",
        "degraded_total" => "Calls that got a degraded answer.",
        "p50" => "The median time of calls.",
        "p99" => "The 99th percentile of the times of calls.",
    }
    throttle {
        "probability" => "The probability with which the next call is refused.",
        "calls" => "Calls in the window that something was said of.",
        "accepted" => "Calls in the window that were accepted, or may yet be.",
        "in_flight" => "Calls that were sent and are not over.",
        "refused_total" => "Calls refused here, before they were sent.",
        "overload_total" => "Calls that the service called too many.",
        "over_total" => "Calls that would have been refused and that the mode sent.",
    }
    toggle {
        "state" => "Whether the feature is on: 1 for the present state.",
        "switched_off_first_failure_total" => "How often a first failure switched the feature off.",
        "switched_off_failure_rate_total" => "How often the share of failures switched the feature off.",
        "switched_off_signal_total" => "How often another policy's signal switched the feature off.",
        "switched_off_probe_total" => "How often a bad probe switched the feature off again.",
        "switched_off_time_total" => "How often time switched the feature off.",
        "switched_off_level_total" => "How often a level switched the feature off.",
        "switched_off_operator_total" => "How often an operator switched the feature off.",
        "switched_on_total" => "How often the feature came on again.",
        "probes_total" => "Calls that passed as probes.",
        "turned_away_total" => "Calls that found the feature off.",
    }
    vote {
        "in_flight" => "Calls whose versions are being asked.",
        "elected_total" => "Calls with enough equal answers.",
        "hung_total" => "Calls without enough equal answers.",
        "passed_total" => "Calls without enough equal answers that the mode let have the first good one.",
        "dissented_total" => "Answers that differed from the one that was taken.",
        "failed_total" => "Answers that do not count, as they failed.",
        "cancelled_total" => "Answers that nobody waited for.",
    }
}
