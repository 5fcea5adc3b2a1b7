//! The only upstream of everything is down for a while, under load: refusing, then hanging.

use crate::process::Gateway;
use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

/// An upstream that can be taken down.
#[derive(Clone, Default)]
struct Upstream {
    hangs: Arc<AtomicBool>,
    /// When each request came.
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Upstream {
    async fn answer(self, _: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        self.came.lock().unwrap().push(Instant::now());
        while self.hangs.load(SeqCst) {
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(2)).await;
        Ok(Response::new(Full::from("fresh")))
    }

    /// Serves until it is dropped; then nobody listens.
    async fn serve(self, address: SocketAddr) -> JoinSet<()> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let mut served = JoinSet::new();
        served.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let this = self.clone();
                let service = service_fn(move |req| this.clone().answer(req));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        served
    }

    fn between(&self, from: Instant, to: Instant) -> usize {
        self.came.lock().unwrap().iter().filter(|at| (from..to).contains(at)).count()
    }
}

/// What a client got: the status, and the mark of a degraded answer.
type Got = (u16, Option<String>);

struct Call {
    began: Instant,
    /// Of a route that keeps good answers.
    kept: bool,
    /// `None`: nothing in two seconds.
    got: Option<Got>,
}

type Http = Client<HttpConnector, Full<Bytes>>;

async fn got(client: Http, method: Method, uri: Uri) -> Option<Got> {
    let call = async {
        let req = Request::builder().method(method).uri(uri).body(Full::default()).unwrap();
        let (head, body) = client.request(req).await.ok()?.into_parts();
        body.collect().await.ok()?;
        let mark = head.headers.get("x-degraded").map(|mark| mark.to_str().unwrap().to_owned());
        Some((head.status.as_u16(), mark))
    };
    timeout(Duration::from_secs(2), call).await.ok().flatten()
}

/// Calls a second.
const LOAD: u64 = 200;
const KEPT: u64 = 20;

/// Calls for as long as `seconds`, open loop: four of five ask a route that keeps answers.
async fn load(client: &Http, address: SocketAddr, seconds: f64) -> Vec<Call> {
    let mut calls = JoinSet::new();
    let mut ticks = interval(Duration::from_micros(1_000_000 / LOAD));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..(seconds * LOAD as f64) as u64 {
        ticks.tick().await;
        let kept = n % 5 != 0;
        let (method, path) = match kept {
            true => (Method::GET, format!("/kept/{}", n % KEPT)),
            false if n % 2 == 0 => (Method::GET, "/other".to_owned()),
            false => (Method::POST, "/other".to_owned()),
        };
        let uri = format!("http://{address}{path}").parse().unwrap();
        let call = got(client.clone(), method, uri);
        calls.spawn(async move {
            let began = Instant::now();
            Call { began, kept, got: call.await }
        });
    }
    calls.join_all().await
}

fn is_fresh(call: &Call) -> bool {
    call.got == Some((200, None))
}

/// One outage, of which every call is judged; `outage` takes the upstream down, and gives what brings it back.
async fn outage(kind: &str, hangs: bool) {
    // How long it lasts: longer for figures.
    let seconds = std::env::var("OUTAGE_SECONDS").map_or(4.0, |seconds| seconds.parse().unwrap());
    let upstream = Upstream::default();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut serving = Some(upstream.clone().serve(address).await);
    let gateway = Gateway::start_with(
        "",
        &format!(
            "[cluster.u]\nendpoints = \"{address}\"\ndeadline = {{ per_try = \"300ms\" }}\n\
             breaker = {{ consecutive = 5, open_for = \"200ms\", max_open = \"400ms\", ramp = {{ tick = \"100ms\" }} }}\n\
             [route.kept]\nprefix = \"/kept\"\ncluster = \"u\"\ndeadline = {{ total = \"1s\" }}\n\
             fallback.stale = {{ max = \"10m\" }}\n\
             [route.other]\nprefix = \"/other\"\ncluster = \"u\"\ndeadline = {{ total = \"1s\" }}\n\
             fallback.static = {{ status = 503, body = \"back soon\" }}\n"
        ),
    );
    let client: Http = Client::builder(TokioExecutor::new()).build_http();

    let begun = Instant::now();
    let before = load(&client, gateway.address, 2.0).await;
    assert!(before.iter().all(is_fresh), "all is well at first");
    let steady = upstream.between(begun + Duration::from_secs(1), begun + Duration::from_secs(2));

    match hangs {
        true => upstream.hangs.store(true, SeqCst),
        false => drop(serving.take()),
    }
    let during = {
        // The repair comes in the middle of the load, not after it.
        let repair = async {
            sleep(Duration::from_secs_f64(seconds)).await;
            upstream.hangs.store(false, SeqCst);
            if !hangs {
                serving = Some(upstream.clone().serve(address).await);
            }
            Instant::now()
        };
        let (calls, repaired) = tokio::join!(load(&client, gateway.address, seconds + 3.0), repair);
        (calls, repaired)
    };
    let (calls, repaired) = during;
    let (mut stale, mut fixed, mut fresh) = (0, 0, 0);
    for call in &calls {
        let (status, mark) = call.got.as_ref().expect("every call is answered");
        match (status, mark.as_deref()) {
            (200, None) => fresh += 1,
            (200, Some(mark)) if call.kept && mark.starts_with("stale; cause=") => stale += 1,
            (503, Some(mark)) if !call.kept && mark.starts_with("fallback; cause=") => fixed += 1,
            other => panic!("{kind}: kept {}: {other:?}", call.kept),
        }
    }
    let second = repaired + Duration::from_secs(1);
    let late: Vec<_> = calls.iter().filter(|call| call.began >= second && !is_fresh(call)).collect();
    let herd = upstream.between(repaired, second);
    eprintln!(
        "{kind} for {seconds} s: {stale} stale, {fixed} static, {fresh} fresh; steady {steady}/s, first second after the repair {herd}"
    );
    assert!(late.is_empty(), "{} calls are degraded a second after the repair: {:?}", late.len(), late[0].got);
    assert!(herd as f64 <= 1.2 * LOAD as f64, "{herd} calls in the first second, {LOAD} a second are steady");
    let expected = (seconds - 1.0) * LOAD as f64 * 0.8;
    assert!(stale as f64 >= expected, "{stale} stale answers of at least {expected}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_refuses_everything_is_stood_in_for_and_welcome_back() {
    outage("refusing", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_is_stood_in_for_and_welcome_back() {
    outage("hanging", true).await;
}
