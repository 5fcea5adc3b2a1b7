//! Thousands of clients that take their time, and others who want to be served meanwhile.

use crate::{
    is_there,
    process::{Gateway, one},
    upstream,
};
use std::{net::SocketAddr, process::Stdio, time::Duration};
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

/// One call on a connection of its own, from another address than the slow ones.
async fn is_served(address: SocketAddr) -> bool {
    let call = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.2:0".parse().expect("an address"))?;
        let mut stream = socket.connect(address).await?;
        stream.write_all(b"GET /1000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&[b'x'; 1000]))
    };
    matches!(timeout(Duration::from_secs(2), call).await, Ok(Ok(true)))
}

/// The share of good clients that are served while `slowhttptest` runs with these arguments, and how many there were.
async fn served(gateway: &Gateway, connections: usize, args: &[&str]) -> (f64, usize) {
    let mut slow = Command::new("slowhttptest");
    slow.args(["-c", &connections.to_string(), "-r", "1000", "-l", "15", "-v", "0", "-p", "2"]).args(args);
    let mut slow = slow.stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    // It may end before its time: when nobody is connected any more. The others go on.
    for _ in 0..15 * 50 {
        ticks.tick().await;
        calls.spawn(is_served(gateway.address));
    }
    let _ = slow.kill().await;
    let served = calls.join_all().await;
    (served.iter().filter(|served| **served).count() as f64 / served.len() as f64, served.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_keep_nobody_else_from_being_served() {
    if !is_there("slowhttptest", &["-h"]) {
        return;
    }
    // A gateway without optimisations is not for so many.
    let connections = if std::env::var_os("GATEWAY").is_some() || !cfg!(debug_assertions) { 5000 } else { 1000 };
    if files() < 2 * connections + 1000 {
        eprintln!("SKIPPED: {} open files are too few", files());
        return;
    }
    let mut failed = Vec::new();
    for (limits, what) in [("", "as it is"), ("connections_per_client = 200", "200 connections a client")] {
        for (mode, path, args) in [
            ("slow heads", "/1000", &["-H", "-i", "3", "-x", "24"][..]),
            ("slow bodies", "/1000", &["-B", "-i", "3", "-s", "4096", "-x", "10"][..]),
            ("slow reads", "/100000", &["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5", "-k", "3"][..]),
            ("ranges", "/1000", &["-R", "-a", "5", "-b", "3000"][..]),
        ] {
            // Each has a fresh one.
            let gateway = Gateway::start_with(limits, &one(upstream().await, "", ""));
            let at = format!("http://{}{path}", gateway.address);
            let (share, calls) = served(&gateway, connections, &[args, &["-u", &at]].concat()).await;
            let seen = &gateway.status().await["layers"]["server"];
            let line = format!(
                "{what}, {mode}: {:.2} % of {calls} served, {} accepted, {} refused, {} open",
                share * 100.0,
                seen["accepted_total"],
                seen["refused_total"],
                seen["connections"]
            );
            eprintln!("{line}");
            failed.extend((share < 0.99).then_some(line));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
