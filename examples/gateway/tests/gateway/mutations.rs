//! Good requests, and what becomes of them when bytes of theirs change.

use crate::{
    process::{Gateway, one},
    strict::{Client, Message, Read, Reader, Upstream},
};
use proptest::{collection::vec, prelude::*, sample::select};
use std::{collections::HashMap, time::Duration};
use tokio::task::JoinSet;

const GOOD: [&str; 5] = [
    "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 37\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: aaaa\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n25\r\nGET /smuggled HTTP/1.1\r\nHost: aaaa\r\n\r\n\r\n0\r\nx: y\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST http://a/a HTTP/1.1\r\nHost: b\r\nConnection: close, x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\n\r\n",
];

const PIECES: [&str; 26] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    "0",
    "5",
    "-",
    "+",
    "chunked",
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: x\r\n",
    "Host: b\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\n",
    "HTTP/1.0",
    ";x",
    "Upgrade: h2c\r\n",
    "Connection: close\r\n",
];

/// Puts a piece in place of some bytes.
type Change = (prop::sample::Index, usize, &'static str);

fn mutant() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), 0..4_usize, select(&PIECES[..]));
    (select(&GOOD[..]), vec(change, 1..4)).prop_map(|(good, changes): (&str, Vec<Change>)| {
        let mut bytes = good.as_bytes().to_vec();
        for (at, removed, piece) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + removed);
            bytes.splice(at..end, piece.bytes());
        }
        bytes
    })
}

/// A request, as both sides of a proxy see it.
fn gist(message: &Message) -> (String, String, Vec<u8>) {
    let target = message.target();
    let path = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    (message.start[0].clone(), path.split('#').next().unwrap_or_default().to_owned(), message.body.clone())
}

/// The requests that are in the bytes, for a reader that forgives what may be forgiven.
fn held(mut bytes: &[u8]) -> Vec<(String, String, Vec<u8>)> {
    let mut held = Vec::new();
    while let Read::Whole(message, length) = (Reader { forgives: true, ..Reader::default() }).request(bytes) {
        held.push(gist(&message));
        bytes = &bytes[length..];
    }
    held
}

#[test]
fn whatever_is_changed_in_a_request_no_other_one_comes_of_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (upstream, gateway) = runtime.block_on(async {
        let upstream = Upstream::fine().await;
        let limits = "header_timeout = \"150ms\"\nbody_timeout = \"150ms\"";
        let gateway = Gateway::start_with(limits, &one(upstream.address, "breaker = false", "retry = false"));
        (upstream, gateway)
    });
    let config = ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(mutants in vec(mutant(), 64))| {
        let seen = runtime.block_on(async {
            let mut clients = JoinSet::new();
            for bytes in mutants.clone() {
                let address = gateway.address;
                clients.spawn(async move {
                    let mut client = Client::connect(address).await;
                    client.send(bytes).await;
                    while client.more(Duration::from_secs(5)).await {}
                    client.closed
                });
            }
            while let Some(closed) = clients.join_next().await {
                assert!(closed.unwrap(), "a connection stays open");
            }
            upstream.take()
        });
        prop_assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
        let mut allowed = HashMap::new();
        for request in mutants.iter().flat_map(|bytes| held(bytes)) {
            *allowed.entry(request).or_insert(0) += 1;
        }
        for message in &seen.whole {
            let left = allowed.get_mut(&gist(message)).filter(|left| **left > 0);
            prop_assert!(left.is_some(), "nobody sent {message:?}");
            *left.unwrap() -= 1;
        }
    });
}
