//! One of three upstream processes is killed under load.

use crate::process::Gateway;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// Says that this process is an upstream.
const ROLE: &str = "BUTTRESS_TEST_UPSTREAM";

/// Not a test, but what [`Process`] runs, for a process that can be killed: it serves for as long as its standard input is open.
#[test]
fn an_upstream_process() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            println!("\nupstream on {}", listener.local_addr().unwrap());
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Answers each GET after a few milliseconds, so that there are calls to break.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await? > 0 {
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            tokio::time::sleep(Duration::from_millis(5)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
    }
    Ok(())
}

/// An upstream in a process of its own; killed when dropped.
struct Process(Child, SocketAddr);

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["killed::an_upstream_process", "--exact", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.filter_map(|line| line.strip_prefix("upstream on ")?.parse().ok()).next();
        Self(child, address.expect("it says where it listens"))
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether a call is answered, well and soon.
async fn is_good(client: Client<HttpConnector, Full<Bytes>>, uri: http::Uri) -> Result<(), String> {
    let call = async {
        let res = client.get(uri).await.map_err(|error| format!("{error:?}"))?;
        let status = res.status();
        let body = res.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
        if status == 200 && body == "ok" { Ok(()) } else { Err(format!("{status}: {body:?}")) }
    };
    timeout(Duration::from_secs(2), call).await.unwrap_or_else(|_| Err("late".to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_hardly_notice_that_one_of_three_upstreams_is_killed() {
    // A gateway without optimisations is not for this load, and not on any machine.
    let optimised = std::env::var_os("GATEWAY").is_some() || !cfg!(debug_assertions);
    let per_milli = if optimised { 2 } else { 1 };
    let (tick, seconds) = if optimised { (1, 6) } else { (4, 6) };
    let mut processes = [Process::start(), Process::start(), Process::start()];
    let [a, b, c] = processes.each_ref().map(|process| process.1);
    let gateway = Gateway::start_with(
        "",
        &format!(
            "[cluster.u]\nendpoints = [\"{a}\", \"{b}\", \"{c}\"]\ndeadline = {{ per_try = \"500ms\" }}\n\
             [route.r]\nprefix = \"/\"\ncluster = \"u\"\ndeadline = {{ total = \"2s\" }}\nretry = {{ max_attempts = 3 }}\n"
        ),
    );
    let client = Client::builder(TokioExecutor::new()).build_http();
    let uri: http::Uri = format!("http://{}/", gateway.address).parse().unwrap();
    let mut calls = Vec::new();
    let mut ticks = interval(Duration::from_millis(tick));
    // Open loop: what is late is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let rounds = seconds * 1000 / tick;
    for round in 0..rounds {
        ticks.tick().await;
        if round == rounds / 3 {
            processes[1].kill();
        }
        calls.extend((0..per_milli).map(|_| tokio::spawn(is_good(client.clone(), uri.clone()))));
    }
    let offered = calls.len() as f64 / begun.elapsed().as_secs_f64();
    let mut bad = Vec::new();
    let total = calls.len();
    for call in calls {
        bad.extend(call.await.unwrap().err());
    }
    let good = 1.0 - bad.len() as f64 / total as f64;
    let status = gateway.status().await;
    let retries = status["layers"]["route.r.retry"]["retries_total"].as_u64().unwrap();
    eprintln!("{total} calls, {offered:.0} a second: {:.3} % good, {} bad, {retries} retries", good * 100.0, bad.len());
    assert!(retries > 0, "the kill was felt: {status:#}");
    assert!(good >= 0.999, "{good}: {:?}", &bad[..bad.len().min(20)]);
}
