//! The admin pages, and layers that are switched off.

use crate::{
    process::{Gateway, LISTEN, binary, call, config_file, get, header, one},
    raw::{Upstream, exchange, until},
};
use buttress_sim::eventually;
use http::Request;
use http_body_util::Full;
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::Stdio,
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

#[tokio::test]
async fn a_layer_that_is_switched_off_refuses_nothing_and_status_says_so() {
    // Nobody listens there: every call fails, and a breaker would open.
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for (breaker, mode, last) in [("false", "disabled", 0), ("{ min_calls = 3 }", "auto", 1)] {
        let lines = format!("breaker = {breaker}\ndeadline = false\nbulkhead = false");
        let gateway = Gateway::before(nobody, &lines);
        for _ in 0..10 {
            get(gateway.address, "/").await;
        }
        let layers = &gateway.status().await["layers"];
        let breaker = &layers["cluster.u.breaker"];
        assert_eq!(breaker["mode"], json!(mode), "{breaker}");
        assert_eq!(i32::from(breaker["refused_total"] != json!(0)), last, "{breaker}");
        assert_eq!(layers["cluster.u.bulkhead"]["mode"], json!("disabled"));
        assert_eq!(layers["cluster.u.deadline"]["mode"], json!("disabled"));
        assert_eq!(layers["route.r.bulkhead"]["mode"], json!("auto"));
    }
}

#[tokio::test]
async fn pages_end_with_a_newline_and_status_says_no_name_twice() {
    let gateway = Gateway::before("127.0.0.1:9".parse().unwrap(), "");
    for path in ["/livez", "/readyz", "/nowhere", "/status"] {
        assert!(get(gateway.admin, path).await.body().ends_with(b"\n"), "{path}");
    }
    let status = gateway.status().await;
    assert!(status["layers"]["cluster.u.breaker"]["kind"] == "breaker");
    assert!(status["layers"]["cluster.u.breaker"].get("name").is_none(), "{status}");
}

/// What a gateway writes to standard error while `calls` are made, which get its address and that of its admin pages.
async fn logged(tables: &str, calls: impl AsyncFnOnce(SocketAddr, SocketAddr)) -> String {
    let path = config_file(&format!("{LISTEN}{tables}"));
    let mut gateway = binary();
    gateway.args(["run", "-c"]).arg(&path).env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = gateway.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut address = || lines.next().unwrap().unwrap().rsplit("http://").next().unwrap().parse().unwrap();
    calls(address(), address()).await;
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(path).unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_body_that_an_inner_deadline_cuts_has_its_reason_in_records_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tables = one(listener.local_addr().unwrap(), "deadline = { per_try = \"200ms\" }", "retry = false");
    let log = logged(&tables, async |address, admin| {
        let client = tokio::spawn(exchange(address, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (mut upstream, _) = listener.accept().await.unwrap();
        until(&mut upstream, "\r\n\r\n").await;
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nearly").await.unwrap();
        let answer = client.await.unwrap();
        assert!(answer.ends_with("early"), "{answer}");
        let page = get(admin, "/metrics").await;
        let text = String::from_utf8_lossy(page.body()).into_owned();
        let line =
            text.lines().find(|line| line.contains("refusals_total") && line.ends_with(" 1")).unwrap_or_default();
        assert!(line.contains("route.r.telemetry") && line.contains("\"deadline_passed\""), "{line}");
    })
    .await;
    let line = log.lines().find(|line| line.contains("access: ")).expect("a record");
    for field in ["status=200", "reason=\"deadline_passed\"", "layer=\"deadline\""] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
}

#[tokio::test]
async fn a_record_says_how_important_a_call_was() {
    let tables = one("127.0.0.1:1".parse().unwrap(), "", "priority = \"critical\"\nretry = false");
    let log = logged(&tables, async |address, _| {
        for class in ["sheddable", "critical"] {
            let req = Request::get(format!("http://{address}/{class}")).header("x-priority", class);
            call(req.body(Full::default()).unwrap(), false).await;
        }
    })
    .await;
    for class in ["sheddable", "critical"] {
        let line = log.lines().find(|line| line.contains(&format!("path=\"/{class}\""))).expect("a record");
        assert!(line.contains(&format!("priority=\"{class}\"")), "{line}");
    }
}

#[tokio::test]
async fn log_lines_say_which_upstream() {
    let tables = one("127.0.0.1:1".parse().unwrap(), "breaker = { min_calls = 3 }", "");
    let log = logged(&tables, async |address, _| {
        for _ in 0..5 {
            get(address, "/").await;
        }
    })
    .await;
    assert!(log.contains("circuit opened name=\"cluster.u\""), "{log}");
    for field in [
        "access: client=127.0.0.1 method=\"GET\" host=",
        "status=502",
        "path=\"/\" name=\"route.r\" route=\"/\"",
        "reason=\"connect_refused\"",
        "layer=\"pool\"",
    ] {
        assert!(log.contains(field), "{field} is not in\n{log}");
    }
}

/// Runs the binary against the gateway's admin listener: whether it went well, and what it said.
async fn order(gateway: &Gateway, args: &[&str]) -> (bool, String) {
    let admin = gateway.admin.to_string();
    let mut command = tokio::process::Command::from(binary());
    let output = command.args(args).args(["--admin", &admin]).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

async fn status_of(gateway: &Gateway) -> u16 {
    get(gateway.address, "/").await.status().as_u16()
}

#[tokio::test]
async fn an_operator_opens_and_closes_breakers() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::before(upstream.address, "");
    assert_eq!(status_of(&gateway).await, 200);
    let (fine, said) = order(&gateway, &["breaker", "open", "u"]).await;
    assert!(fine && said == format!("the breaker of u/{}: forced_open\n", upstream.address), "{said}");
    let res = get(gateway.address, "/").await;
    assert_eq!((res.status().as_u16(), header(&res, "proxy-status")), (503, "buttress; error=destination_unavailable"));
    assert!(order(&gateway, &["breaker", "auto", "u"]).await.0);
    assert_eq!(status_of(&gateway).await, 200);

    let (fine, said) = order(&gateway, &["breaker", "open", "v"]).await;
    assert!(!fine && said == "there is no cluster \"v\", there are: u\n", "{said}");
    let (fine, said) = order(&gateway, &["breaker", "open", "u", "--endpoint", "h:1"]).await;
    assert!(!fine && said.starts_with("there is no endpoint \"h:1\", there are: 127.0.0.1:"), "{said}");
}

#[tokio::test]
async fn an_operator_injects_faults_and_ends_them() {
    let upstream = Upstream::fine().await;
    let gateway = Gateway::start_with("", &one(upstream.address, "", "retry = false"));
    let (fine, said) = order(&gateway, &["inject", "u", "status=418", "--for", "10m"]).await;
    assert!(fine && said.contains("status=418") && said.contains("for=10m"), "{said}");
    assert_eq!(status_of(&gateway).await, 418);
    assert_eq!(upstream.received(), "", "it never got there");
    let injected = &gateway.status().await["injected"];
    assert!(injected.to_string().contains("status=418"), "{injected}");

    assert!(order(&gateway, &["inject", "u", "--clear"]).await.0);
    assert_eq!(status_of(&gateway).await, 200);

    for (mode, is_off) in [("disabled", true), ("auto", false)] {
        let uri = format!("http://{}/mode/cluster.u.chaos?mode={mode}", gateway.admin);
        assert_eq!(call(Request::post(uri).body(Full::default()).unwrap(), false).await.status(), 200);
        let (fine, said) = order(&gateway, &["inject", "u", "status=418"]).await;
        assert!(fine && said.contains("without effect: the layer is disabled") == is_off, "{mode}: {said}");
        assert_eq!(status_of(&gateway).await, if is_off { 200 } else { 418 });
    }
    let (fine, said) = order(&gateway, &["inject", "u", "status=99"]).await;
    assert!(!fine && said.contains("99") && said.contains("allowed"), "{said}");
    let (fine, said) = order(&gateway, &["inject", "u"]).await;
    assert!(!fine && said.contains("FAULTS"), "{said}");
}

#[tokio::test]
async fn an_operator_drains() {
    let upstream = Upstream::fine().await;
    let mut gateway = Gateway::start_with("[drain]\nmin = \"10ms\"", &one(upstream.address, "", ""));
    assert_eq!(order(&gateway, &["drain"]).await, (true, "draining\n".to_owned()));
    eventually("the gateway has ended", || gateway.ended().is_some()).await;
    assert!(gateway.ended().unwrap().success());
}

#[tokio::test]
async fn changes_are_posts_and_no_page_of_another_site_makes_them() {
    let gateway = Gateway::before("127.0.0.1:9".parse().unwrap(), "");
    let uri = |path: &str| format!("http://{}{path}", gateway.admin);
    for path in
        ["/drain", "/breaker/u?mode=open", "/inject/u?clear", "/canary/r?reset", "/mode/route.r.retry?mode=auto"]
    {
        let res = get(gateway.admin, path).await;
        assert_eq!((res.status().as_u16(), header(&res, "allow")), (405, "POST"), "{path}");
    }
    let ask = async |path: &str, name: &'static str, value: &str| {
        let req = Request::post(uri(path)).header(name, value).body(Full::default()).unwrap();
        call(req, false).await.status().as_u16()
    };
    assert_eq!(ask("/drain", "origin", "http://evil.example").await, 403);
    assert_eq!(ask("/drain", "host", "evil.example").await, 403);
    assert_eq!(gateway.status().await["state"], "running");
    assert_eq!(ask("/mode/route.r.retry?mode=disabled", "x-any", "1").await, 200);
    assert_eq!(gateway.status().await["layers"]["route.r.retry"]["mode"], "disabled");
    assert_eq!(ask("/mode/route.r.retry?mode=off", "x-any", "1").await, 400);
    assert_eq!(ask("/mode/route.r.nothing?mode=auto", "x-any", "1").await, 404);
    assert_eq!(ask("/canary/r?weight=5", "x-any", "1").await, 404);
}

#[tokio::test]
async fn who_has_no_token_is_not_heard_where_there_is_one() {
    let token = config_file("  0123456789abcdef \n");
    let tables = one("127.0.0.1:9".parse().unwrap(), "", "");
    let gateway = Gateway::start_with_admin(&format!("token_file = {token:?}"), &tables);
    assert_eq!(get(gateway.admin, "/status").await.status(), 401);
    assert_eq!(get(gateway.admin, "/metrics").await.status(), 401);
    assert_eq!(get(gateway.admin, "/readyz").await.status(), 200);
    let (fine, said) = order(&gateway, &["breaker", "open", "u"]).await;
    assert!(!fine && said.contains("token"), "{said}");
    let path = token.to_str().unwrap();
    assert!(order(&gateway, &["breaker", "open", "u", "--token-file", path]).await.0);
    std::fs::remove_file(token).unwrap();
}

#[tokio::test]
async fn metrics_count_what_clients_got_and_why() {
    let upstream = Upstream::fine().await;
    let tables = one(upstream.address, "", "").replace("prefix = \"/\"", "prefix = \"/only\"");
    let gateway = Gateway::start_with("", &tables);
    get(gateway.address, "/only").await;
    get(gateway.address, "/else").await;
    let page = get(gateway.admin, "/metrics").await;
    assert!(header(&page, "content-type").starts_with("application/openmetrics-text"), "{page:?}");
    let text = String::from_utf8(page.body().to_vec()).unwrap();
    for line in [
        "http_server_request_duration_seconds_count{name=\"route.r.telemetry\",http_route=\"/only\",outcome=\"success\"} 1",
        "error_type=\"no_route\"} 1",
        "buttress_breaker_state{name=\"cluster.u.breaker\",state=\"closed\"} 1",
        "buttress_server_accepted_total{name=\"server\"} 2",
    ] {
        assert!(text.lines().any(|l| l.contains(line)), "{line} is not in\n{text}");
    }
}
