//! Clients and servers that others wrote, through the gateway as a process. Those that are not installed are skipped, and said.

#[path = "../gateway/authority.rs"]
mod authority;
mod curl;
#[path = "../gateway/process.rs"]
#[allow(dead_code)]
mod process;
mod slow;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use process::{Gateway, one};
use std::{
    convert::Infallible,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
};
use tokio::net::TcpListener;
use tokio_stream::{StreamExt, iter};

/// Whether a program, with these arguments, runs here.
fn is_there(program: &str, args: &[&str]) -> bool {
    let there = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    if !there {
        eprintln!("SKIPPED: {program} {} does not run here", args.join(" "));
    }
    there
}

/// Python, for a script that needs `module`. `PYTHON` names another one, in a venv say.
fn python(module: &str) -> Option<String> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    is_there(&python, &["-c", &format!("import {module}")]).then_some(python)
}

async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {shown}{}", String::from_utf8_lossy(&output.stdout));
    output
}

/// A script that serves, and says on which port; killed when dropped.
struct Server(Child, SocketAddr);

impl Server {
    fn start(python: &str, script: &str) -> Self {
        let mut child = Command::new(python).args([script, "serve"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self(child, SocketAddr::from(([127, 0, 0, 1], line.trim().parse().unwrap())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Answers GET with as many bytes as the path says, and anything else with how many bytes it got.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(answer);
            tokio::spawn(async move {
                auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
            });
        }
    });
    address
}

async fn answer(req: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    const PIECE: &[u8] = &[b'x'; 1 << 16];
    let asked: usize = req.uri().path()[1..].parse().unwrap_or(0);
    if req.method() != "POST" && req.method() != "PUT" {
        let whole = (0..asked / PIECE.len()).map(|_| PIECE).chain([&PIECE[..asked % PIECE.len()]]);
        let pieces = iter(whole).map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
        return Ok(Response::builder()
            .header("content-length", asked)
            .body(BoxBody::new(StreamBody::new(pieces)))
            .unwrap());
    }
    let (mut body, mut got) = (req.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        got += frame.data_ref().map_or(0, Bytes::len);
    }
    Ok(Response::new(BoxBody::new(http_body_util::Full::from(got.to_string()))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_speaks_both_protocols_through_it() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let gateway = Gateway::before(upstream().await, "");
    let at = |path: &str| format!("http://{}/{path}", gateway.address);
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let curl = async |args: &[&str]| {
            let output = run("curl", &[&["-sS", "--fail", "--max-time", "20", version], args].concat()).await;
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(curl(&[&at("200000")]).await.len(), 200_000, "{version}");
        assert_eq!(curl(&["-d", "hello", &at("")]).await, "5", "{version}");
        assert_eq!(curl(&["-H", "Expect: 100-continue", "-d", "hello", &at("")]).await, "5", "{version}");
        let head = curl(&["-I", &at("7")]).await;
        assert!(head.contains("content-length: 7\r\n"), "{version}: {head}");
        if version != "--http1.0" {
            let chunked = curl(&["-H", "Transfer-Encoding: chunked", "-T", &script("main.rs"), &at("")]).await;
            let length = std::fs::metadata(script("main.rs")).unwrap().len();
            assert_eq!(chunked, length.to_string(), "{version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_goes_through_at_constant_memory() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    const GIBIBYTE: usize = 1 << 30;
    let gateway =
        Gateway::start_with("", &one(upstream().await, "deadline = false", "deadline = { total = \"300s\" }"));
    let at = |path: &str| format!("http://{}/{path}", gateway.address);
    run("curl", &["-sS", "--fail", "-o", "/dev/null", &at("1000000")]).await;
    let before = gateway.memory();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let down = format!("curl -sS --fail {version} {} | wc -c", at(&GIBIBYTE.to_string()));
        let up = format!("head -c {GIBIBYTE} /dev/zero | curl -sS --fail {version} -T - {}", at(""));
        for (what, line) in [("download", down), ("upload", up)] {
            let moving = tokio::spawn(async move { run("sh", &["-c", &line]).await });
            let mut most = 0;
            while !moving.is_finished() {
                most = most.max(gateway.memory());
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            let moved = String::from_utf8(moving.await.unwrap().stdout).unwrap();
            assert_eq!(moved.trim(), GIBIBYTE.to_string(), "{what} {version}");
            let grown = most.saturating_sub(before);
            eprintln!("{what} {version}: {} KiB more", grown >> 10);
            assert!(grown < 32 << 20, "{what} {version}: {grown} bytes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_and_h2load_get_all_their_answers() {
    let gateway = Gateway::before(upstream().await, "");
    let at = format!("http://{}/1000", gateway.address);
    if is_there("nghttp", &["--version"]) {
        let output = run("nghttp", &["-nv", &at]).await;
        assert!(String::from_utf8_lossy(&output.stdout).contains(":status: 200"));
    }
    if is_there("h2load", &["--version"]) {
        for more in [&[][..], &["--h1"][..]] {
            let output = run("h2load", &[&["-n", "5000", "-c", "4", "-m", "10"], more, &[&at]].concat()).await;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("5000 2xx"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_speaks_grpc_to_python() {
    let Some(python) = python("grpc") else { return };
    let script = script("grpc_peers.py");
    let server = Server::start(&python, &script);
    let gateway = Gateway::start_with("", &one(server.1, "http2 = true", ""));
    run(&python, &[&script, "call", &gateway.address.to_string()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_are_carried_and_silent_ones_are_ended() {
    let Some(python) = python("websockets") else { return };
    let script = script("websocket_peers.py");
    let server = Server::start(&python, &script);
    let gateway = Gateway::start_with("tunnel_idle = \"1s\"", &one(server.1, "", ""));
    run(&python, &[&script, "call", &gateway.address.to_string()]).await;
}
