//! Retries over real connections, against the books of a server that misbehaves in every way it can.
//!
//! `LEDGER_REQUESTS=100000 cargo test --release -p buttress-tests --test retry_ledger -- --nocapture` is the long run.

mod ledger;

use buttress::Hyper;
use buttress_core::{
    BoxError, BudgetConfig,
    http::{HttpClient, ReplayBody},
};
use buttress_retry::{Backoff, ResendLayer, Retry, RetryConfig};
use bytes::Bytes;
use http::{Method, Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ledger::{Fate, Ledger};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::{Service, ServiceExt as _, util::BoxCloneSyncService};

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// How a request ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Good,
    /// The head was good, the body broke off.
    Cut,
    Status(u16),
    Error,
}

/// One request of the load, made from its number alone.
#[derive(Debug)]
struct Plan {
    method: Method,
    fates: Vec<Fate>,
    length: usize,
    chunked: bool,
}

impl Plan {
    fn of(id: usize, http2: bool, gone: bool) -> Self {
        let mut rng = numbers_from(id as u64);
        let mut below = |n: u64| (rng() % n) as usize;
        let method = [Method::GET, Method::PUT, Method::POST][below(3)].clone();
        let mut choice = vec![Fate::Reset, Fate::Truncated, Fate::Busy, Fate::Failed, Fate::LastServed];
        if http2 {
            choice.extend([Fate::Refused, Fate::Refused]);
        }
        let mut fates: Vec<_> = (0..below(4).saturating_sub(1)).map(|_| choice[below(choice.len() as u64)]).collect();
        if gone && below(200) == 0 {
            fates.insert(0, Fate::Gone);
        }
        let length = if method == Method::GET { 0 } else { [0, 10, 1000, 20_000][below(4)] };
        Self { method, fates, length, chunked: length > 0 && below(2) == 0 }
    }

    /// How it must end, and how often it must have arrived and been processed, if it meets its own fates only.
    fn expected(&self) -> (End, (u32, u32)) {
        let (mut received, mut processed) = (0, 0);
        for fate in self.fates.iter().copied().chain([Fate::Served]) {
            received += 1;
            processed += u32::from(fate != Fate::Refused);
            let may_be_sent_again = self.method != Method::POST || fate == Fate::Refused;
            let end = match fate {
                Fate::Served | Fate::LastServed => End::Good,
                // A byte of the response went to the caller.
                Fate::Truncated => End::Cut,
                _ if may_be_sent_again => continue,
                Fate::Busy | Fate::Failed => End::Status(503),
                Fate::Reset | Fate::Refused | Fate::Gone => End::Error,
            };
            return (end, (received, processed));
        }
        unreachable!("the last fate is to be served")
    }

    fn request(&self, id: usize, server: SocketAddr) -> Request<Body> {
        let data = Bytes::from(vec![id as u8; self.length]);
        let body = if self.chunked {
            let half = self.length / 2;
            let frames = [data.slice(..half), data.slice(half..)].map(|data| Ok(Frame::data(data)));
            StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
        } else {
            Full::new(data).boxed_unsync()
        };
        let fates: Vec<_> = self.fates.iter().map(|fate| fate.as_str()).collect();
        Request::builder()
            .method(self.method.clone())
            .uri(format!("http://{server}/"))
            .header("x-request-id", id)
            .header("x-fates", fates.join(","))
            .header("x-length", self.length)
            .body(body)
            .expect("it is well-formed")
    }
}

/// splitmix64: the same plan for the same number.
fn numbers_from(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

type Caller = BoxCloneSyncService<Request<Body>, (Version, End), BoxError>;

const PER_ATTEMPT: Duration = Duration::from_secs(10);
const HUNG: &str = "the attempt hangs";

/// What each request met on its way, for when it ends as it should not.
type Errors = Arc<Mutex<BTreeMap<usize, Vec<String>>>>;

/// A client that retries nothing but by our layer.
fn client(http2: bool, errors: Errors) -> (Caller, Arc<Retry>) {
    let hyper = Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .retry_canceled_requests(false)
        .build::<_, ReplayBody<Body>>(HttpConnector::new());
    let hyper = Hyper(hyper);
    let config = RetryConfig::new(15)
        // The most that can be had: what is looked at here is what may be retried, not what is paid for.
        .budget(BudgetConfig::new(2.0).capacity(4000).min_per_sec(1000.0).window(Duration::from_secs(3600)))
        .backoff(Backoff::full_jitter(Duration::from_millis(2), Duration::from_millis(30)));
    let layer = ResendLayer::<HttpClient>::new(config.build().expect("it is valid"));
    let retry = layer.handle();
    let attempt = tower::service_fn(move |request: Request<ReplayBody<Body>>| {
        let id = request.headers()["x-request-id"].to_str().ok().and_then(|id| id.parse().ok()).unwrap_or_default();
        let (answer, errors) = (hyper.clone().call(request), errors.clone());
        let meet = move |error: String| errors.lock().unwrap().entry(id).or_default().push(error);
        async move {
            // hyper's client can lose a request when its HTTP/2 connection goes away
            // (https://github.com/seanmonstar/reqwest/issues/1323): what a deadline per attempt is for.
            let Ok(answer) = tokio::time::timeout(PER_ATTEMPT, answer).await else {
                meet(HUNG.to_owned());
                return Err(BoxError::from(HUNG));
            };
            answer.map_err(|error| {
                meet(format!("{error:?}"));
                error.into()
            })
        }
    });
    let service = tower::ServiceBuilder::new().layer(layer).service(attempt);
    let ended = service.then(|result| async move {
        let Ok(response) = result else { return Ok::<_, BoxError>((Version::default(), End::Error)) };
        let (status, version) = (response.status().as_u16(), response.version());
        let end = match response.into_body().collect().await {
            Err(_) => End::Cut,
            Ok(_) if status == 200 => End::Good,
            Ok(_) => End::Status(status),
        };
        Ok((version, end))
    });
    (BoxCloneSyncService::new(ended), retry)
}

struct Run {
    ledger: Arc<Ledger>,
    ends: Vec<End>,
    plans: Vec<Plan>,
    errors: BTreeMap<usize, Vec<String>>,
    retry: Arc<Retry>,
}

/// Sends the load, so many requests at once.
async fn run(http2: bool, gone: bool) -> Run {
    const AT_ONCE: usize = 100;
    let requests = std::env::var("LEDGER_REQUESTS").ok().and_then(|number| number.parse().ok()).unwrap_or(2000);
    let ledger = Ledger::new(requests);
    let server = ledger.serve(http2).await;
    let errors = Errors::default();
    let (client, retry) = client(http2, errors.clone());
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (mut client, next, errors, ledger) = (client.clone(), next.clone(), errors.clone(), ledger.clone());
            tokio::spawn(async move {
                let mut ends = Vec::new();
                loop {
                    let id = next.fetch_add(1, Relaxed);
                    if id >= requests {
                        return ends;
                    }
                    let plan = Plan::of(id, http2, gone);
                    let request = plan.request(id, server);
                    let answer = client.ready().await.expect("hyper's client is always ready").call(request);
                    let answer = tokio::time::timeout(10 * PER_ATTEMPT, answer).await;
                    let Ok(answer) = answer else {
                        let met = errors.lock().unwrap().remove(&id);
                        panic!("request {id} hangs: {plan:?}, {:?}, {met:?}", ledger.line(id));
                    };
                    let (version, end) = answer.expect("its errors are an end");
                    assert!(end == End::Error || (version == Version::HTTP_2) == http2);
                    ends.push((id, end));
                }
            })
        })
        .collect();
    let mut ends = BTreeMap::new();
    for sender in senders {
        ends.extend(sender.await.expect("no sender panics"));
    }
    let ends: Vec<_> = ends.into_values().collect();
    let plans = (0..requests).map(|id| Plan::of(id, http2, gone)).collect();
    let name = if http2 { "h2" } else { "http/1" };
    println!("ledger, {name}{}: {ledger}", if gone { " with connections that go away" } else { "" });
    let mut by_end = BTreeMap::new();
    ends.iter().for_each(|end| *by_end.entry(*end).or_insert(0) += 1);
    println!("  for the callers: {by_end:?}; {:?}", retry.snapshot());
    let errors = std::mem::take(&mut *errors.lock().unwrap());
    Run { ledger, ends, plans, errors, retry }
}

impl Run {
    fn met(&self, id: usize, what: &str) -> bool {
        self.errors.get(&id).is_some_and(|errors| errors.iter().any(|error| error.contains(what)))
    }

    fn why(&self, id: usize) -> String {
        format!("request {id}: {:?}, {:?}, {:?}", self.plans[id], self.ledger.line(id), self.errors.get(&id))
    }

    /// No tolerance here. Of a request that a GOAWAY ended nobody knows whether it was processed: a POST fails of it.
    fn assert_no_post_is_processed_twice(&self) {
        for (id, end) in self.ends.iter().enumerate() {
            let is_post = self.plans[id].method == Method::POST;
            assert!(!is_post || self.ledger.line(id).1 <= 1, "processed twice: {end:?} {}", self.why(id));
            let may_not_be_retried = is_post && self.met(id, "GoAway");
            assert!(!may_not_be_retried || *end == End::Error, "sent again: {end:?} {}", self.why(id));
        }
        assert_eq!(self.ledger.corrupt(), 0);
        assert_eq!(self.retry.snapshot().budget.denied_empty_total, 0, "the budget is not what is looked at here");
    }
}

/// Every request ended as its own fates say, and arrived as often as they say.
async fn goes_by_the_book(http2: bool) {
    let run = run(http2, false).await;
    run.assert_no_post_is_processed_twice();
    let (mut hung, mut undecided, mut repeated, mut broken) = (0, 0, 0, 0);
    for (id, (end, plan)) in run.ends.iter().zip(&run.plans).enumerate() {
        let seen = (*end, run.ledger.line(id));
        if seen == plan.expected() {
            continue;
        }
        let is_post = plan.method == Method::POST;
        assert!(is_post || matches!(end, End::Good | End::Cut), "{end:?} {}", run.why(id));
        if is_post && *end == End::Error && seen.1.1 == 0 && run.met(id, HUNG) {
            hung += 1;
        } else if is_post && run.met(id, "GoAway") {
            undecided += 1;
        } else if run.met(id, "GoAway") {
            repeated += 1;
        } else {
            // A connection broke under it, or the server's reset overtook the head it was to come after.
            let explained =
                run.met(id, "BrokenPipe") || (run.met(id, "Reset(") && plan.fates.contains(&Fate::Truncated));
            assert!(explained, "{end:?} {}", run.why(id));
            broken += 1;
        }
    }
    println!("  hung in the client: {hung}");
    println!(
        "  ended by a GOAWAY: {undecided} POSTs that may not be retried, {repeated} others that arrived once more"
    );
    println!("  broken off otherwise than their fates say: {broken}");
    let some = 5 + run.plans.len() / 1000;
    assert!(broken <= some);
    assert!(undecided <= run.plans.len() / 10, "more than connections that go away explain");
    assert!(hung <= 2 * some, "hung is what hyper loses, now and then");
    assert!(http2 || hung + undecided + repeated + broken == 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_what_may_be_retried_succeeds_and_nothing_else_is_sent_twice() {
    goes_by_the_book(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_what_may_be_retried_succeeds_and_nothing_else_is_sent_twice() {
    goes_by_the_book(true).await;
}

/// Who shares a connection shares its end. Nobody can say then what became of a POST, so it is not sent again; all others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_go_away_take_no_idempotent_request_along_and_double_none_that_is_not() {
    let run = run(true, true).await;
    run.assert_no_post_is_processed_twice();
    let (mut cut, mut failed, mut undecided) = (0, 0, 0);
    for (id, (end, plan)) in run.ends.iter().zip(&run.plans).enumerate() {
        match end {
            End::Good => assert!(run.ledger.line(id).1 >= 1, "{}", run.why(id)),
            End::Cut => cut += u32::from(!plan.fates.contains(&Fate::Truncated)),
            End::Status(_) | End::Error => {
                assert_eq!(plan.method, Method::POST, "{end:?} {}", run.why(id));
                failed += 1;
                undecided += u32::from(run.met(id, "GoAway"));
            }
        }
    }
    println!("  responses that broke off with their connection: {cut}");
    println!("  POSTs that failed: {failed}, {undecided} of them by a GOAWAY: they may not be retried");
}
