//! Too much: what is shed, who is refused, and that it ends.

use crate::{
    process::{Gateway, binary, call, get, header, one},
    raw::{Upstream, until},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
/// One call at a time, and nobody waits.
const ONE: &str = "shed = { limit = { fixed = 1 }, queue = { max = 0 } }";

fn order(gateway: &Gateway, args: &[&str]) -> String {
    let output = binary().args(args).arg("--admin").arg(gateway.admin.to_string()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

async fn clusters(gateway: &Gateway) -> serde_json::Value {
    serde_json::from_slice(get(gateway.admin, "/clusters").await.body()).unwrap()
}

async fn metrics(gateway: &Gateway) -> String {
    String::from_utf8(get(gateway.admin, "/metrics").await.body().to_vec()).unwrap()
}

/// Of a cluster that can do little, for clients who have time.
const FEW: &str = "shed = { limit = { adaptive = { min = 1 } }, queue = { critical_wait = \"1s\" } }";

/// An endpoint that works on two calls at a time, 40 ms each; all others wait, and are worked on whoever has gone.
async fn few_workers() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let workers = Arc::new(Semaphore::new(2));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let workers = workers.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                let workers = workers.clone();
                async move {
                    let work = tokio::spawn(async move {
                        let _worker = workers.acquire().await;
                        sleep(Duration::from_millis(40)).await;
                    });
                    work.await.unwrap();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn overload_is_shed_from_below_with_a_reason_and_is_over_when_it_is_over() {
    let gateway = Gateway::start_with("", &one(few_workers().await, FEW, "priority = \"critical\""));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut calls = JoinSet::new();
    let begun = Instant::now();
    // Of 150 calls a second 50 can be served.
    for n in 0_u32.. {
        tokio::time::sleep_until(begun + Duration::from_secs(1) / 150 * n).await;
        if begun.elapsed() > Duration::from_secs(5) {
            break;
        }
        let class = match n % 10 {
            0 => "critical",
            1..4 => "normal",
            _ => "sheddable",
        };
        let req = Request::get(format!("http://{}/", gateway.address)).header("x-priority", class);
        let answer = client.request(req.body(Full::default()).unwrap());
        calls.spawn(async move { (class, answer.await.unwrap().map(drop)) });
    }
    let (mut good, mut all) = ([0_u32; 3], [0_u32; 3]);
    while let Some(ended) = calls.join_next().await {
        let (class, res) = ended.unwrap();
        let class = ["critical", "normal", "sheddable"].iter().position(|known| *known == class).unwrap();
        all[class] += 1;
        match res.status().as_u16() {
            200 => good[class] += 1,
            503 => {
                assert!(header(&res, "retry-after").parse::<u64>().is_ok_and(|after| after >= 1), "{res:?}");
                assert!(header(&res, "proxy-status").starts_with("buttress; error="), "{res:?}");
            }
            other => panic!("{other}: {res:?}"),
        }
    }
    let share = |class: usize| f64::from(good[class]) / f64::from(all[class]);
    assert!(share(0) >= 0.97 && share(2) < 0.5, "{good:?} of {all:?}");
    assert!(share(0) >= share(1) && share(1) > share(2), "{good:?} of {all:?}");
    let text = metrics(&gateway).await;
    let count = |wanted: &[&str]| {
        let lines = text.lines().filter(|line| wanted.iter().all(|part| line.contains(part)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let shed = count(&["buttress_shed_calls", "priority=\"sheddable\""]);
    assert_eq!(shed, f64::from(all[2] - good[2]), "{text}");
    // At once, or after the short wait of its class.
    let refused =
        |why: &str| count(&["buttress_telemetry_refusals_total", "route.r", &format!("error_type=\"{why}\"")]);
    assert!(refused("shed") + refused("queue_timeout") > 0.0, "{text}");
    assert!(count(&["buttress_shed_limit", "cluster.u.shed"]) >= 1.0, "{text}");
    let seen = clusters(&gateway).await;
    let classes = seen["u"]["shed"]["classes"].as_array().unwrap();
    let mut names = classes.iter().map(|class| class["priority"].as_str().unwrap());
    assert!(names.by_ref().eq(["critical", "normal", "sheddable"]), "{seen:#}");
    // It is over, and nobody is held to it.
    for _ in 0..10 {
        let req = Request::get(format!("http://{}/", gateway.address)).header("x-priority", "sheddable");
        assert_eq!(call(req.body(Full::default()).unwrap(), false).await.status(), 200);
    }
}

#[tokio::test]
async fn one_that_observes_lets_pass_what_it_would_refuse() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::start_with("", &one(listener.local_addr().unwrap(), ONE, "retry = false"));
    let address = gateway.address;
    let ask = || tokio::spawn(async move { get(address, "/").await });
    let _first = ask();
    let (mut held, _) = listener.accept().await.unwrap();
    until(&mut held, "\r\n\r\n").await;
    let res = get(address, "/").await;
    assert_eq!(res.status(), 503);
    assert!(!header(&res, "retry-after").is_empty() && header(&res, "proxy-status").starts_with("buttress; error="));

    let said = order(&gateway, &["shed", "observe", "u"]);
    assert!(said.contains("the shedding of u: observe_only"), "{said}");
    let second = ask();
    let (mut other, _) = listener.accept().await.unwrap();
    until(&mut other, "\r\n\r\n").await;
    other.write_all(GOOD.as_bytes()).await.unwrap();
    assert_eq!(second.await.unwrap().status(), 200);
    let seen: serde_json::Value = serde_json::from_str(&order(&gateway, &["clusters"])).unwrap();
    assert_eq!((&seen["u"]["shed"]["over_limit_total"], &seen["u"]["shed"]["limit"]), (&1.into(), &1.into()));
    assert_eq!(seen["u"]["gate"], serde_json::Value::Null, "one endpoint has a breaker, and no gate");

    order(&gateway, &["shed", "auto", "u"]);
    assert_eq!(get(address, "/").await.status(), 503);
    let wrong = Request::post(format!("http://{}/shed/u?mode=on", gateway.admin)).body(Full::default()).unwrap();
    let wrong = call(wrong, false).await;
    assert!(wrong.status() == 400 && wrong.body().ends_with(b"allowed: auto, observe, off\n"), "{wrong:?}");
}

#[tokio::test]
async fn streams_and_tunnels_are_no_load_once_their_heads_are_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Three times as many as the limit is at the beginning.
    for lines in ["", ONE] {
        let gateway = Gateway::before(listener.local_addr().unwrap(), lines);
        let mut open = Vec::new();
        for n in 0..60 {
            let mut client = TcpStream::connect(gateway.address).await.unwrap();
            let (asked, answer) = match n % 2 {
                0 => ("", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"),
                _ => (
                    "Connection: upgrade\r\nUpgrade: websocket\r\n",
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                ),
            };
            client.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n").as_bytes()).await.unwrap();
            let accepted = timeout(Duration::from_secs(5), listener.accept()).await.expect("it is let in");
            let (mut upstream, _) = accepted.unwrap();
            until(&mut upstream, "\r\n\r\n").await;
            upstream.write_all(answer.as_bytes()).await.unwrap();
            let head = until(&mut client, "\r\n\r\n").await;
            assert!(head.starts_with(if n % 2 == 0 { "HTTP/1.1 200 " } else { "HTTP/1.1 101 " }), "{n}: {head}");
            open.push((client, upstream));
        }
        gateway.shows("cluster.u.shed", "in_flight", 0).await;
        gateway.shows("cluster.u.bulkhead", "in_flight", 60).await;
        gateway.shows("cluster.u.shed", "shed_total", 0).await;
    }
}

#[tokio::test]
async fn a_client_has_so_many_requests_and_is_told_what_is_left() {
    let upstream = Upstream::answering(GOOD).await;
    let limit = "rate_limit = { permits = 2, period = \"1h\", by = { header = \"x-tenant\" }, headers = true }";
    let gateway = Gateway::start_with(
        "",
        &one(upstream.address, "", &format!("{limit}\nfallback.static = {{ status = 200, body = \"x\" }}")),
    );
    let ask = async |tenant: &str| {
        let req = Request::post(format!("http://{}/", gateway.address)).header("x-tenant", tenant);
        call(req.body(Full::from("body")).unwrap(), false).await
    };
    for left in ["1", "0"] {
        let res = ask("blue").await;
        assert_eq!(res.status(), 200);
        assert_eq!(header(&res, "ratelimit-policy"), "\"default\";q=2;w=3600");
        assert!(header(&res, "ratelimit").starts_with(&format!("\"default\";r={left};t=")), "{res:?}");
    }
    let res = ask("blue").await;
    assert_eq!((res.status().as_u16(), header(&res, "x-degraded")), (429, ""), "no fallback answers for it");
    let after: u64 = header(&res, "retry-after").parse().unwrap();
    // Spread, so that not all come back at once.
    assert!((1800..=2160).contains(&after), "{res:?}");
    assert!(header(&res, "ratelimit").starts_with("\"default\";r=0;t="), "{res:?}");
    assert_eq!(header(&res, "proxy-status"), "buttress; error=http_request_error;status-code=429");
    assert_eq!(upstream.received().matches("POST ").count(), 2);
    assert_eq!(ask("green").await.status(), 200, "another tenant has a limit of its own");
    gateway.shows("route.r.rate_limit", "refused_total", 1).await;
    gateway.shows("route.r.rate_limit", "keys", 2).await;
    let text = metrics(&gateway).await;
    assert!(
        text.contains("error_type=\"rate_limited\"") && text.contains("buttress_rate_limit_refused_total"),
        "{text}"
    );
    let observe = format!("http://{}/mode/route.r.rate_limit?mode=observe_only", gateway.admin);
    call(Request::post(observe).body(Full::default()).unwrap(), false).await;
    assert_eq!(ask("blue").await.status(), 200);
    gateway.shows("route.r.rate_limit", "over_limit_total", 1).await;

    // No number holds while an operator lets everybody pass, or nobody.
    for (mode, status, told) in [("disabled", 200, false), ("forced_open", 429, false), ("auto", 429, true)] {
        let said = format!("http://{}/mode/route.r.rate_limit?mode={mode}", gateway.admin);
        call(Request::post(said).body(Full::default()).unwrap(), false).await;
        let res = ask("blue").await;
        let is_told = [header(&res, "ratelimit"), header(&res, "ratelimit-policy")].map(|value| !value.is_empty());
        assert_eq!((res.status().as_u16(), is_told), (status, [told; 2]), "{mode}: {res:?}");
    }
}

#[tokio::test]
async fn clients_are_told_apart_by_address_if_nothing_else_is_said() {
    let upstream = Upstream::answering(GOOD).await;
    let trust = "[trust]\nproxies = \"127.0.0.1\"\n";
    let lines = "rate_limit = { permits = 1, period = \"1h\" }";
    let gateway = Gateway::start_with("", &(trust.to_owned() + &one(upstream.address, "", lines)));
    let ask = async |client: &str| {
        let req = Request::get(format!("http://{}/", gateway.address)).header("x-forwarded-for", client);
        call(req.body(Full::default()).unwrap(), false).await.status().as_u16()
    };
    assert_eq!([ask("192.0.2.1").await, ask("192.0.2.1").await, ask("192.0.2.2").await], [200, 429, 200]);
    // A network of IPv6 is one client.
    assert_eq!([ask("2001:db8::1").await, ask("2001:db8::2").await, ask("2001:db8:0:1::1").await], [200, 429, 200]);
}

#[tokio::test]
async fn a_gate_narrows_before_a_dead_cluster_and_opens_again() {
    let mut sockets = Vec::new();
    for _ in 0..2 {
        sockets.push(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    }
    let tables = format!(
        "[cluster.u]\nendpoints = [\"{}\", \"{}\"]\nbreaker = false\ngate = {{ probe_every = \"20ms\" }}\n\
         [route.r]\nprefix = \"/\"\ncluster = \"u\"\nretry = false\n",
        sockets[0], sockets[1]
    );
    let gateway = Gateway::start_with("", &tables);
    let share = async || clusters(&gateway).await["u"]["gate"]["share"].as_f64().unwrap();
    assert_eq!(share().await, 1.0);
    let mut refused = 0;
    let narrowed = async {
        while refused < 20 {
            let res = get(gateway.address, "/").await;
            refused += u32::from(res.status() == 503 && !header(&res, "retry-after").is_empty());
        }
    };
    timeout(Duration::from_secs(20), narrowed).await.expect("it is dead");
    assert!(share().await < 0.5);
    assert!(metrics(&gateway).await.contains("buttress_gate_narrowed_total"));

    for address in sockets {
        let listener = TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    until(&mut stream, "\r\n\r\n").await;
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                });
            }
        });
    }
    let opened = async {
        while share().await < 1.0 {
            get(gateway.address, "/").await;
        }
    };
    timeout(Duration::from_secs(20), opened).await.expect("it works again");
    assert_eq!(get(gateway.address, "/").await.status(), 200);
}

#[tokio::test]
async fn pressure_that_was_off_is_measured_for_who_switches_it_on_and_every_source_is_seen() {
    let upstream = Upstream::answering(GOOD).await;
    let pressure = "[pressure]\nmode = \"disabled\"\nsources = [\"lag\", \"memory\"]\nevery = \"20ms\"\n\
                    sheddable = { from = 0.0, to = 0.0001 }\nnormal = \"none\"\n";
    let gateway = Gateway::start_with("", &(pressure.to_owned() + &one(upstream.address, "", "")));
    // A lag that nobody measures is not known.
    gateway.shows("pressure.sources", "unknown", 0).await;
    let text = metrics(&gateway).await;
    for source in ["lag", "memory"] {
        let start = format!("buttress_pressure_source{{name=\"pressure.sources\",source=\"{source}\"}} ");
        let value =
            text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_else(|| panic!("{source}: {text}"));
        assert!((0.0..=1.0).contains(&value.parse::<f64>().unwrap()), "{source}: {value}");
    }
    let status: serde_json::Value = serde_json::from_slice(get(gateway.admin, "/status").await.body()).unwrap();
    assert_eq!((&status["pressure"]["sources"][0]["name"]), "lag", "{status:#}");

    let ask = async || {
        let req = Request::get(format!("http://{}/", gateway.address)).header("x-priority", "sheddable");
        call(req.body(Full::default()).unwrap(), false).await.status().as_u16()
    };
    assert_eq!(ask().await, 200);
    let on = format!("http://{}/mode/pressure?mode=auto", gateway.admin);
    assert_eq!(call(Request::post(on).body(Full::default()).unwrap(), false).await.status(), 200);
    assert_eq!(ask().await, 503, "some memory is always used");
}

#[tokio::test]
async fn pressure_refuses_what_is_least_important_where_the_config_says_so_and_levels_heed_it() {
    let upstream = Upstream::answering(GOOD).await;
    let ask = async |gateway: &Gateway, class: &str| {
        let req = Request::get(format!("http://{}/", gateway.address)).header("x-priority", class);
        call(req.body(Full::default()).unwrap(), false).await
    };
    // Some memory is always used.
    let tables = |mode: &str| {
        format!(
            "[pressure]\n{mode}\nsources = [\"memory\"]\nevery = \"20ms\"\nsheddable = {{ from = 0.0, to = 0.0001 }}\n\
             normal = \"none\"\n[levels]\norder = [\"full\", \"less\"]\nat = [0.0001]\nhysteresis = 0.00001\n\
             worse_after = \"20ms\"\npressure = true\n[toggle.t]\nlevel = \"less\"\n{}",
            one(upstream.address, "", "toggle = \"t\"")
        )
    };
    let gateway = Gateway::start_with("", &tables("mode = \"auto\""));
    gateway.shows("levels", "level", 1).await;
    let res = ask(&gateway, "sheddable").await;
    assert_eq!(res.status(), 503);
    assert!(!header(&res, "retry-after").is_empty(), "{res:?}");
    gateway.shows("pressure", "sheddable_refused_total", 1).await;
    order(&gateway, &["toggle", "on", "t"]);
    assert_eq!(ask(&gateway, "normal").await.status(), 200);

    let gateway = Gateway::start_with("", &tables(""));
    order(&gateway, &["toggle", "on", "t"]);
    gateway.shows("levels", "level", 1).await;
    assert_eq!(ask(&gateway, "sheddable").await.status(), 200, "it observes, if nothing else is said");
    gateway.shows("pressure", "over_total", 1).await;
}
