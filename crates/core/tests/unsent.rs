//! Which errors of real connections say that nothing of the request was processed.
#![cfg(all(feature = "h2", not(buttress_loom)))]

mod raw;

use buttress_core::{
    Replay,
    http::{HttpClient, ReplayBody, TransportError, Unsent, is_unsent},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy;
use raw::{GOAWAY, HEADERS, Http2, RST_STREAM, client, listen};
use std::{net::SocketAddr, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpListener};

fn post(addr: SocketAddr) -> Request<ReplayBody<Full<Bytes>>> {
    HttpClient::new().once(Request::post(format!("http://{addr}/")).body(Full::from("all")).unwrap())
}

/// The error of one request to what `peer` makes of a connection.
async fn error<F>(http2: bool, peer: impl FnOnce(TcpListener) -> F) -> legacy::Error
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, addr) = listen().await;
    tokio::spawn(peer(listener));
    let request = client(http2).request(post(addr));
    tokio::time::timeout(Duration::from_secs(10), request).await.expect("it hangs").unwrap_err()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[tokio::test]
async fn a_refused_connection() {
    for http2 in [false, true] {
        let (listener, addr) = listen().await;
        drop(listener);
        let error = client(http2).request(post(addr)).await.unwrap_err();
        assert!(!is_unsent(&error) && error.is_connect(), "{error:?}");
        assert!(is_unsent(&TransportError::unsent_if_refused(error)));
    }
}

#[tokio::test]
async fn what_a_client_knows_better_it_says_by_the_mark() {
    // No such host: only the client knows that this happened on the way to a connection.
    let req = Request::post("http://no-such-host.invalid/").body(Full::from("all")).unwrap();
    let error = client(false).request(HttpClient::new().once(req)).await.unwrap_err();
    assert!(error.is_connect() && !is_unsent(&error), "{error:?}");
    assert!(is_unsent(&Unsent::new(error)));
}

#[tokio::test]
async fn a_peer_that_closes_says_nothing_however_early() {
    let at_once = |listener: TcpListener| async move { drop(listener.accept().await.unwrap()) };
    let after_the_request = |listener: TcpListener| async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.read_buf(&mut Vec::new()).await.unwrap();
    };
    for http2 in [false, true] {
        for error in [error(http2, at_once).await, error(http2, after_the_request).await] {
            assert!(!is_unsent(&error) && !error.is_connect(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_the_peer_refused_and_no_other_reset() {
    // REFUSED_STREAM; INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM.
    for (code, unsent) in [(7, true), (2, false), (8, false), (11, false)] {
        let error = error(true, |listener| async move {
            let mut peer = Http2::accept(&listener).await;
            peer.request().await;
            peer.send(RST_STREAM, 0, 1, &words(&[code])).await;
            peer.drain().await;
        });
        let error = error.await;
        assert_eq!(is_unsent(&error), unsent, "{error:?}");
    }
}

/// By the RFC it says something of a stream above its last; by hyper's errors nobody can tell such a stream from one that was
/// opened as the GOAWAY came, and is served.
#[tokio::test]
async fn a_goaway_says_nothing_but_by_the_mark() {
    // NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM.
    for code in [0, 2, 11] {
        for last in [0, 1] {
            let error = error(true, |listener| async move {
                let mut peer = Http2::accept(&listener).await;
                peer.request().await;
                peer.send(GOAWAY, 0, 0, &words(&[last, code])).await;
            });
            let error = error.await;
            assert!(!is_unsent(&error), "last {last}, code {code}: {error:?}");
            assert!(is_unsent(&Unsent::new(error)));
        }
    }
}

#[tokio::test]
async fn what_we_ended_ourselves_says_nothing() {
    // A response that is no HTTP/2: the client gives up the connection, and the peer may have processed the request.
    let error = error(true, |listener| async move {
        let mut peer = Http2::accept(&listener).await;
        peer.request().await;
        peer.send(HEADERS, 5, 0, &[0x8e]).await;
        peer.drain().await;
    });
    let error = error.await;
    assert!(!is_unsent(&error), "{error:?}");
}
