//! Several versions of a service, through tower: what they agree on.
#![cfg(feature = "http")]

use buttress_core::{
    BoxError, ChainError, Handle, Mode, Reason, Rejection,
    http::{HttpClient, HttpServer, RequestBodyError},
};
use buttress_fallback::{
    Need, Vote, VoteConfig, VoteLayer,
    vote::{Dissent, VersionSnapshot, VoteBody, VoteService, WholeResponse},
};
use buttress_sim::{
    AnyBody, Frames, Readiness, Script, any,
    contract::{HttpInner, RULES, Rule, Subject},
    grpc, poll_once,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tower::{Layer, Service, ServiceExt, util::MapRequest};

type Version = Script<u64, u64>;
type HttpVersion = Script<Request<VoteBody>, Response<AnyBody>>;

fn says(answer: u64) -> Version {
    Script::new(move |_| async move { Ok(answer) })
}

fn fails() -> Version {
    Script::new(async |_| Err("broken".into()))
}

fn refuses(reason: Reason) -> Version {
    Script::new(move |_| async move { Err(std::io::Error::other(Rejection::new(reason, "inside")).into()) })
}

fn hangs() -> Version {
    Script::new(async |_| std::future::pending().await)
}

/// These beside the first.
fn layer<C>(config: VoteConfig, others: impl IntoIterator<Item = C>) -> VoteLayer<C> {
    config.build(["b", "c", "d"].into_iter().zip(others)).unwrap()
}

fn counts(versions: &[VersionSnapshot]) -> Vec<(u64, u64, u64, u64)> {
    let count = |v: &VersionSnapshot| (v.agreed_total, v.dissented_total, v.failed_total, v.cancelled_total);
    versions.iter().map(count).collect()
}

fn reason(error: &BoxError) -> Option<(Reason, &'static str)> {
    error.rejection().map(|rejection| (rejection.reason, rejection.layer))
}

#[tokio::test]
async fn the_majority_is_given_and_a_dissenter_is_named() {
    let layer = layer(VoteConfig::default(), [says(7), says(8)]);
    assert_eq!(layer.layer(says(7)).oneshot(0).await.unwrap(), 7);
    assert_eq!(layer.layer(says(8)).oneshot(0).await.unwrap(), 8);
    let seen = layer.handle().snapshot();
    assert_eq!((seen.elected_total, seen.hung_total, seen.need, seen.in_flight), (2, 0, 2, 0));
    let total: (u64, u64, u64, u64) = counts(&seen.versions)
        .into_iter()
        .fold((0, 0, 0, 0), |sum, v| (sum.0 + v.0, sum.1 + v.1, sum.2 + v.2, sum.3 + v.3));
    assert_eq!((total.0, total.1 + total.3, total.2), (4, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn enough_equal_answers_are_not_kept_waiting_by_the_rest() {
    let slow: Version = Script::new(async |_| {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(7)
    });
    let hung = hangs();
    let layer = layer(VoteConfig::default(), [slow, hung.clone()]);
    let mut service = layer.layer(says(7));
    let mut call = Box::pin(service.ready().await.unwrap().call(0));
    assert_eq!((&mut call).await.unwrap(), 7);
    assert_eq!(hung.probe().now(), 0, "dropped with the answer, and not when the future is");
    assert_eq!(counts(&layer.handle().snapshot().versions), [(1, 0, 0, 0), (1, 0, 0, 0), (0, 0, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn f_plus_one_of_3_f_plus_one_replicas_mask_one_that_lies() {
    let layer = layer(VoteConfig::default().need(Need::Count(2)), [hangs(), says(7), says(7)]);
    assert_eq!(layer.layer(says(6)).oneshot(0).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nothing_can_win_is_refused_at_once() {
    let layer = layer(VoteConfig::default(), [says(2), says(3)]);
    let error = layer.layer(says(1)).oneshot(0).await.unwrap_err();
    assert_eq!(reason(&error), Some((Reason::NoMajority, "vote")));
    let layer = self::layer(VoteConfig::default().need(Need::Count(3)), [fails(), hangs()]);
    let error = layer.layer(says(1)).oneshot(0).await.unwrap_err();
    assert_eq!(reason(&error), Some((Reason::NoMajority, "vote")), "errors are no answers");
    assert_eq!(layer.handle().snapshot().hung_total, 1);
}

#[tokio::test]
async fn one_refusal_of_all_is_passed_on() {
    let shut = || refuses(Reason::BreakerOpen);
    let run = |first: Version, others: [Version; 2]| async {
        let error = layer(VoteConfig::default(), others).layer(first).oneshot(0).await.unwrap_err();
        reason(&error).unwrap()
    };
    assert_eq!(run(shut(), [shut(), shut()]).await, (Reason::BreakerOpen, "inside"));
    assert_eq!(run(shut(), [refuses(Reason::Shed), refuses(Reason::Shed)]).await.0, Reason::Shed);
    assert_eq!(run(shut(), [refuses(Reason::Shed), fails()]).await, (Reason::NoMajority, "vote"));
    // All of them end.
    let one_is_enough = VoteConfig::default().need(Need::Count(1));
    let layer = layer(one_is_enough, [refuses(Reason::Shed), refuses(Reason::Shed)]);
    assert_eq!(reason(&layer.layer(shut()).oneshot(0).await.unwrap_err()).unwrap().0, Reason::NoMajority);
}

#[tokio::test]
async fn what_says_nothing_of_any_version_is_passed_on_as_it_is() {
    let cancelled = || -> Version { Script::new(async |_| Err(RequestBodyError::new("the client is gone").into())) };
    let layer = layer(VoteConfig::default(), [cancelled(), cancelled()]);
    let error = layer.layer(cancelled()).oneshot(0).await.unwrap_err();
    assert!(error.is::<RequestBodyError>(), "{error}");
}

#[tokio::test]
async fn a_key_leaves_out_what_may_differ() {
    let layer = layer(VoteConfig::default(), [says(17), says(28)]);
    let by_last_digit = layer.by(|answer: &u64| answer % 10);
    assert_eq!(by_last_digit.layer(says(7)).oneshot(0).await.unwrap() % 10, 7);
}

#[tokio::test]
async fn an_operator_may_ask_the_first_alone_or_take_its_word_where_nobody_agrees() {
    let other = says(2);
    let layer = layer(VoteConfig::default(), [other.clone(), says(3)]);
    layer.handle().set_mode(Mode::OBSERVE_ONLY).unwrap();
    assert_eq!(layer.layer(says(1)).oneshot(0).await.unwrap(), 1);
    assert_eq!((layer.handle().snapshot().passed_total, other.probe().calls()), (1, 1));
    layer.handle().set_mode(Mode::Disabled).unwrap();
    assert_eq!(layer.layer(says(1)).oneshot(0).await.unwrap(), 1);
    assert_eq!(layer.layer(fails()).oneshot(0).await.unwrap_err().to_string(), "broken");
    let seen = layer.handle().snapshot();
    assert_eq!((seen.hung_total, seen.passed_total, seen.versions[0].failed_total), (1, 1, 0), "nobody votes");
    assert_eq!(other.probe().calls(), 1);
    assert!(layer.handle().set_mode(Mode::ForcedOpen).is_err());
}

#[tokio::test]
async fn a_call_that_is_given_up_gives_up_all_of_them() {
    let (first, other) = (hangs(), hangs());
    let layer = layer(VoteConfig::default(), [other.clone()]);
    let mut call = Box::pin(layer.layer(first.clone()).oneshot(0));
    assert!(poll_once(&mut call).await.is_pending());
    assert_eq!((first.probe().now(), other.probe().now(), layer.handle().snapshot().in_flight), (1, 1, 1));
    drop(call);
    assert_eq!((first.probe().now(), other.probe().now(), layer.handle().snapshot().in_flight), (0, 0, 0));
    assert_eq!(counts(&layer.handle().snapshot().versions), [(0, 0, 0, 1), (0, 0, 0, 1)]);
}

#[tokio::test]
async fn versions_that_are_not_ready_are_waited_for_and_those_that_cannot_be_have_failed() {
    let (slow, dead) = (says(7), says(7));
    slow.set(Readiness::After(3));
    dead.set(Readiness::Fails);
    let layer = layer(VoteConfig::default(), [slow, dead]);
    assert_eq!(layer.layer(says(7)).oneshot(0).await.unwrap(), 7);
    assert_eq!(layer.handle().snapshot().versions[2].failed_total, 1);
}

/// Answers with its name and what it reads of the request.
fn http(status: u16, text: &'static str) -> HttpVersion {
    Script::new(move |req: Request<VoteBody>| async move {
        let body = req.into_body().collect().await?.to_bytes();
        let body = [text.as_bytes(), &body].concat();
        Ok(Response::builder().status(status).body(any(Full::<Bytes>::from(body)))?)
    })
}

fn post(frames: Frames) -> Request<AnyBody> {
    Request::post("/").body(any(frames)).unwrap()
}

fn over_http(config: VoteConfig, others: [HttpVersion; 2]) -> VoteLayer<HttpVersion, HttpServer> {
    layer(config, others).protocol(HttpServer::new())
}

#[tokio::test(start_paused = true)]
async fn http_answers_are_compared_with_their_bodies_and_the_dissenters_are_in_an_extension() {
    let late: HttpVersion = Script::new(async |req: Request<VoteBody>| {
        tokio::time::sleep(Duration::from_millis(1)).await;
        http(200, "a").oneshot(req).await
    });
    let layer = over_http(VoteConfig::default(), [http(200, "b"), late]);
    let res = layer.layer(http(200, "a")).oneshot(post(Frames::new().data("x").data("y"))).await.unwrap();
    assert_eq!(res.extensions().get(), Some(&Dissent(vec!["b".into()])));
    assert_eq!(res.into_body().collect().await.unwrap().to_bytes(), "axy", "every version got all of it");
}

#[tokio::test]
async fn http_answers_of_two_types_or_statuses_are_two() {
    let typed = |status: u16, kind: &'static str| -> HttpVersion {
        Script::new(move |_| async move {
            Ok(Response::builder().status(status).header("content-type", kind).body(any(Full::<Bytes>::from("a")))?)
        })
    };
    for (other, agrees) in [(typed(200, "a/b"), true), (typed(200, "a/c"), false), (typed(201, "a/b"), false)] {
        let layer = layer(VoteConfig::default(), [other]).protocol(HttpServer::new());
        let res = layer.layer(typed(200, "a/b")).oneshot(post(Frames::new())).await.unwrap();
        assert_eq!(res.status().is_success(), agrees);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_say_all_in_their_heads_are_compared_by_these() {
    let version = |after: u64, lines: &[(&'static str, &'static str)]| -> HttpVersion {
        let lines = lines.to_vec();
        Script::new(move |_| {
            let lines = lines.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                let res = Response::builder().status(302);
                let res = lines.iter().fold(res, |res, (name, value)| res.header(*name, *value));
                Ok(res.body(any(Full::<Bytes>::default()))?)
            }
        })
    };
    for (good, bad) in [
        (&[("location", "/good")][..], &[("location", "//evil.example/")][..]),
        (&[("location", "/good")], &[]),
        (&[("set-cookie", "a=1"), ("set-cookie", "b=2")], &[("set-cookie", "a=1")]),
        (&[("content-encoding", "gzip")], &[("content-encoding", "br")]),
        (&[("content-type", "text/html")], &[("content-type", "text/plain")]),
    ] {
        // The one that is wrong is the first to answer.
        let layer = over_http(VoteConfig::default(), [version(50, good), version(60, good)]);
        let res = layer.layer(version(1, bad)).oneshot(post(Frames::new())).await.unwrap();
        let seen: Vec<_> = res.headers().get_all(good[0].0).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(seen, good.iter().map(|(_, value)| *value).collect::<Vec<_>>());
        assert_eq!(res.extensions().get(), Some(&Dissent(vec!["first".into()])));
    }
    let layer = over_http(VoteConfig::default(), [version(2, &[("date", "now")]), version(3, &[])]);
    let res = layer.layer(version(1, &[("date", "then")])).oneshot(post(Frames::new())).await.unwrap();
    assert_eq!(res.headers()["date"], "then", "what may differ is left out");
}

#[tokio::test]
async fn a_bad_answer_votes_only_if_it_may() {
    for (may, status) in [(false, 502), (true, 500)] {
        let layer = over_http(VoteConfig::default().failures_vote(may), [http(500, "a"), http(500, "a")]);
        let res = layer.layer(http(200, "a")).oneshot(post(Frames::new())).await.unwrap();
        assert_eq!(res.status().as_u16(), status);
        let rejection = res.extensions().get::<Rejection>().map(|rejection| rejection.reason);
        assert_eq!(rejection, (!may).then_some(Reason::NoMajority));
    }
    let layer = over_http(VoteConfig::default(), [http(404, ""), http(404, "")]);
    assert_eq!(layer.layer(http(500, "")).oneshot(post(Frames::new())).await.unwrap().status(), 404, "an answer");
}

#[tokio::test]
async fn bodies_that_are_too_large_or_break_off_are_named() {
    let config = || VoteConfig::default().max_body(4).max_response(4);
    let run = |config, frames| async move {
        let version = http(200, "a");
        let layer = over_http(config, [version.clone(), version.clone()]);
        let res = layer.layer(version.clone()).oneshot(post(frames)).await.unwrap();
        let reason = res.extensions().get::<Rejection>().map(|rejection| rejection.reason);
        (res.status().as_u16(), reason, version.probe().calls())
    };
    assert_eq!(run(config(), Frames::new().data("xy").data("z")).await, (200, None, 2), "the third is not waited for");
    assert_eq!(run(config(), Frames::new().data("xyzzy")).await, (413, Some(Reason::BodyTooLarge), 0));
    assert_eq!(run(config(), Frames::new().data("wxy").data("zz")).await.0, 413, "all of its pieces count");
    assert_eq!(run(config(), Frames::new().data("x").error("gone")).await, (400, Some(Reason::UploadBroken), 0));
    assert_eq!(run(config(), Frames::new().data("wxyz")).await, (502, Some(Reason::NoMajority), 2));
}

#[tokio::test]
async fn grpc_versions_are_compared_with_their_statuses() {
    let unary = |status: &'static str| -> HttpVersion { Script::new(move |_| async move { Ok(grpc::unary(status)) }) };
    let cut: HttpVersion = Script::new(async |_| Ok(grpc::cut_short()));
    let layer = layer(VoteConfig::default(), [unary("0"), cut]).protocol(HttpClient::new());
    let res = layer.layer(unary("0")).oneshot(grpc::request("/a/b")).await.unwrap();
    let body = res.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    let layer = self::layer(VoteConfig::default(), [unary("5"), unary("5")]).protocol(HttpClient::new());
    let res = layer.layer(unary("0")).oneshot(grpc::request("/a/b")).await.unwrap();
    assert_eq!(res.into_body().collect().await.unwrap().trailers().unwrap()["grpc-status"], "5");
    let layer = self::layer(VoteConfig::default(), [unary("5")]).protocol(HttpClient::new());
    assert!(
        layer.layer(unary("0")).oneshot(grpc::request("/a/b")).await.is_err(),
        "they differ in their statuses alone"
    );
    let layer = self::layer(VoteConfig::default(), [unary("14"), unary("14")]).protocol(HttpClient::new());
    let error = layer.layer(unary("0")).oneshot(grpc::request("/a/b")).await.map(drop).unwrap_err();
    assert_eq!(reason(&error).unwrap().0, Reason::NoMajority, "UNAVAILABLE is no answer");
}

#[tokio::test]
async fn a_key_of_http_sees_whole_responses() {
    let layer = over_http(VoteConfig::default(), [http(200, "b"), http(200, "c")]);
    let layer = layer.by(|res: &WholeResponse| res.get_ref().status());
    assert!(layer.layer(http(200, "a")).oneshot(post(Frames::new())).await.unwrap().status().is_success());
    let layer = over_http(VoteConfig::default(), [http(200, "b"), http(200, "c")]);
    let layer = layer.by(|res: &WholeResponse| res.get_ref().body().bytes().len());
    assert!(layer.layer(http(500, "")).oneshot(post(Frames::new())).await.unwrap().status().is_success());
}

#[test]
fn contradictory_votes_are_named() {
    let said = |config: VoteConfig, others: Vec<&'static str>| {
        config.build(others.into_iter().map(|name| (name, ()))).unwrap_err().to_string()
    };
    let need = |need| VoteConfig::default().need(Need::Count(need));
    assert_eq!(said(need(2), vec![]), "`versions` is 1, allowed: 2 to 16, the service inside included");
    assert_eq!(said(need(0), vec!["b"]), "`need` is 0, allowed: 1 to 2, of 2 versions");
    assert_eq!(said(need(4), vec!["b", "c"]), "`need` is 4, allowed: 1 to 3, of 3 versions");
    assert_eq!(said(need(2), vec!["b", "b"]), "`versions[2].name` is b, allowed: a name that no other version has");
    assert!(said(need(2), vec!["first"]).starts_with("`versions[1].name` is first"));
    assert!(said(VoteConfig::default().max_response(usize::MAX), vec!["b"]).starts_with("`max_response` is "));
}

#[cfg(feature = "serde")]
#[test]
fn a_config_is_written_and_read() {
    for (need, written) in [(Need::Majority, r#""need":"majority""#), (Need::Count(2), r#""need":2"#)] {
        let config = VoteConfig::default().need(need);
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(written), "{text}");
        assert_eq!(serde_json::from_str::<VoteConfig>(&text).unwrap(), config);
    }
    assert!(serde_json::from_str::<VoteConfig>(r#"{"need": "most"}"#).is_err());
}

/// The suite gives a layer a service; it is every version.
struct All<P> {
    mode: Mode,
    handles: Arc<Mutex<Vec<Arc<Vote>>>>,
    protocol: P,
}

type Rebox = fn(Request<VoteBody>) -> Request<AnyBody>;
type Reboxed = MapRequest<HttpInner, Rebox>;

impl<P: Clone> Layer<HttpInner> for All<P> {
    type Service = VoteService<Reboxed, Reboxed, P>;

    fn layer(&self, inner: HttpInner) -> Self::Service {
        let inner: Reboxed = MapRequest::new(inner, |req| req.map(any));
        let layer = VoteConfig::default().build([("b", inner.clone())]).unwrap();
        layer.handle().set_mode(self.mode).unwrap();
        self.handles.lock().unwrap().push(layer.handle());
        layer.protocol(self.protocol.clone()).layer(inner)
    }
}

fn subject(mode: Mode) -> Subject {
    let handles = Arc::<Mutex<Vec<Arc<Vote>>>>::default();
    let client = || All { mode, handles: handles.clone(), protocol: HttpClient::new() };
    let server = All { mode, handles: handles.clone(), protocol: HttpServer::new() };
    let (opaque, client) = (client(), client());
    Subject::new(opaque, server, client)
        .in_flight(move || handles.lock().unwrap().iter().map(|handle| handle.snapshot().in_flight).sum())
}

/// These ask what `poll_ready` says of *the* inner service; here there are several, and the call asks them.
const OF_ONE_SERVICE: [&str; 2] =
    ["poll_ready_fails_only_with_the_inner_services_own_error", "an_unready_inner_service_is_never_called"];

/// These ask for a body that is passed on as it comes; here it is read to its end before there is an answer.
const OF_BODIES_AS_THEY_COME: [&str; 8] = [
    "a_permit_is_held_to_the_end_of_the_body",
    "a_finished_call_settles_once_with_its_outcome",
    "an_early_drop_says_nothing_unless_the_head_was_bad",
    "an_upgraded_connection_keeps_its_permit",
    "bodies_pass_through_unchanged",
    "the_latency_ends_at_the_head",
    "it_works_under_a_paused_clock",
    "a_peer_that_goes_away_is_ignored",
];

/// These count the calls that a layer further in sees; here it sees one per version.
const OF_ONE_CALL: [&str; 3] = [
    "waiting_for_the_client_is_no_latency",
    "bodies_served_by_hyper_are_successes",
    "bodies_read_from_hyper_are_successes",
];

fn keeps(mode: Mode, but: &[&str]) {
    let check = |rule: &Rule| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(rule.paused).build().unwrap();
        runtime.block_on(rule.check(&|| subject(mode))).err()
    };
    let is_of = |names: &[&str], rule: &&Rule| names.contains(&rule.name);
    let rules = RULES
        .iter()
        .filter(|rule| !is_of(&OF_ONE_SERVICE, rule) && !is_of(&OF_BODIES_AS_THEY_COME, rule) && !is_of(but, rule));
    let broken: Vec<_> = rules.filter_map(|rule| check(rule).map(|why| format!("{}: {why}", rule.name))).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn it_keeps_the_contract_of_every_layer_but_for_what_it_is() {
    keeps(Mode::Auto, &OF_ONE_CALL);
}

#[test]
fn switched_off_it_keeps_the_contract() {
    keeps(Mode::Disabled, &[]);
}
