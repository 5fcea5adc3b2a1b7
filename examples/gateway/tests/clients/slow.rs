//! Thousands of clients that take their time, and others who want to be served meanwhile.

use crate::{
    is_there,
    process::{Gateway, one},
    upstream,
};
use std::{collections::BTreeMap, net::SocketAddr, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    process::Command,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

/// How many files this process, and those that it starts, may open.
fn files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
    line.split_whitespace().nth(3).and_then(|soft| soft.parse().ok()).unwrap_or(0)
}

/// One call on a connection of its own, from another address than the slow ones: what is wrong with it.
async fn ask(address: SocketAddr) -> Option<String> {
    let call = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse().expect("an address"))?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(b"GET /1000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let is_good = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&[b'x'; 1000]);
        let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        std::io::Result::Ok((!is_good).then(|| String::from_utf8_lossy(line).into_owned()))
    };
    match timeout(Duration::from_secs(2), call).await {
        Ok(Ok(wrong)) => wrong,
        Ok(Err(error)) => Some(error.kind().to_string()),
        Err(_) => Some("late".to_owned()),
    }
}

/// What good clients, 50 a second, got while `slowhttptest` ran.
#[derive(Default)]
struct Served {
    calls: usize,
    /// How often what was wrong.
    wrong: BTreeMap<String, usize>,
    /// The most connections at once.
    connections: u64,
}

impl Served {
    fn share(&self) -> f64 {
        1.0 - self.wrong.values().sum::<usize>() as f64 / self.calls as f64
    }
}

async fn served(gateway: &Gateway, connections: usize, seconds: usize, args: &[&str]) -> Served {
    let mut slow = Command::new("slowhttptest");
    slow.args(["-c", &connections.to_string(), "-r", "1000", "-l", "20", "-v", "0", "-p", "2"]).args(args);
    let mut slow = slow.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut calls, mut served) = (JoinSet::new(), Served::default());
    // It may end before its time: when nobody is connected any more. The others go on.
    for tick in 0..seconds * 50 {
        ticks.tick().await;
        calls.spawn(ask(gateway.address));
        if tick % 50 == 0 {
            let open = gateway.status().await["layers"]["server"]["connections"].as_u64();
            // It counts from when it listens.
            served.connections = served.connections.max(open.unwrap_or(0));
        }
    }
    for wrong in calls.join_all().await {
        served.calls += 1;
        if let Some(wrong) = wrong {
            *served.wrong.entry(wrong).or_default() += 1;
        }
    }
    let _ = slow.kill().await;
    served
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_keep_nobody_else_from_being_served() {
    // It has no option that succeeds without a server.
    if !is_there("sh", &["-c", "command -v slowhttptest"]) {
        return;
    }
    // A gateway without optimisations is not for so many.
    let optimised = std::env::var_os("GATEWAY").is_some() || !cfg!(debug_assertions);
    let (connections, seconds) = if optimised { (5000, 15) } else { (1000, 4) };
    if files() < 2 * connections + 1000 {
        eprintln!("SKIPPED: {} open files are too few", files());
        return;
    }
    // Here it is about places. To a gateway without optimisations so many at once are an overload as well, and shed as such,
    // good clients' calls among them.
    let lines = if optimised { "" } else { "shed = false" };
    let mut failed = Vec::new();
    for (limits, what) in [("", "as it is"), ("connections_per_client = 200", "200 connections a client")] {
        for (mode, path, args) in [
            ("slow heads", "/1000", &["-H", "-i", "3", "-x", "24"][..]),
            ("slow bodies", "/1000", &["-B", "-i", "3", "-s", "4096", "-x", "10"][..]),
            ("slow reads", "/1000000", &["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5", "-k", "3"][..]),
            ("ranges", "/1000", &["-R", "-a", "5", "-b", "3000"][..]),
        ] {
            // Each has a fresh one.
            let gateway = Gateway::start_with(limits, &one(upstream().await, lines, ""));
            let at = format!("http://{}{path}", gateway.address);
            let served = served(&gateway, connections, seconds, &[args, &["-u", &at]].concat()).await;
            let Served { calls, wrong, connections } = &served;
            let share = served.share() * 100.0;
            let line = format!("{what}, {mode}: {share:.2} % of {calls} served, up to {connections} open; {wrong:?}");
            eprintln!("{line}");
            // Who does not read an answer that fits into no buffer holds a place until `write_timeout`; there are fewer places
            // than slow readers, unless one client can have only so many connections.
            let is_judged = !limits.is_empty() || mode != "slow reads";
            failed.extend((is_judged && share < 99.0).then_some(line));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
