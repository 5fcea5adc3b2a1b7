//! TLS on a listener, and to upstreams.

use crate::{
    authority::{Authority, Proof},
    process::{Gateway, get, header, one},
    raw::{Upstream, rest},
};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

/// A gateway that shows `proof`, before `upstream`.
pub(crate) fn behind_tls(proof: &Proof, limits: &str, upstream: SocketAddr) -> Gateway {
    let tls = format!("tls = {{ certificate = {:?}, key = {:?} }}", proof.certificate, proof.key);
    Gateway::start(&format!(
        "[listener.t]\naddress = \"127.0.0.1:0\"\n{tls}\n[admin]\naddress = \"127.0.0.1:0\"\n[limits]\n{limits}\n{}",
        one(upstream, "", "")
    ))
}

/// What an HTTPS client that believes `authority` gets.
async fn get_safely(authority: &Authority, address: SocketAddr, http2: bool) -> Result<Response<Bytes>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let connector = if http2 { connector.enable_http2().build() } else { connector.enable_http1().build() };
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let answer = client.get(format!("https://{address}/").parse().unwrap()).await;
    let (head, body) = answer.map_err(|error| format!("{error:?}"))?.into_parts();
    Ok(Response::from_parts(head, body.collect().await.unwrap().to_bytes()))
}

/// An upstream that shows `proof`, and answers with the version it is spoken to in.
async fn safe_upstream(proof: &Proof) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&proof.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&proof.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = acceptor.accept(stream);
            tokio::spawn(async move {
                let Ok(stream) = accepted.await else { return };
                let said = service_fn(async |req: Request<Incoming>| {
                    Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::from(format!("{:?}", req.version()))))
                });
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), said).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_listener_speaks_what_the_handshake_agreed_on() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = Upstream::fine().await;
    let gateway = behind_tls(&authority.sign("127.0.0.1"), "", upstream.address);
    for (http2, version) in [(false, Version::HTTP_11), (true, Version::HTTP_2)] {
        let res = get_safely(&authority, gateway.address, http2).await.unwrap();
        assert_eq!((res.status().as_u16(), res.version(), &res.body()[..]), (200, version, &b"ok"[..]));
        let refused = get_safely(&stranger, gateway.address, http2).await.unwrap_err();
        assert!(refused.contains("UnknownIssuer"), "{refused}");
    }
    let received = upstream.received();
    assert_eq!(received.matches("x-forwarded-proto: https\r\n").count(), 2, "{received}");
    gateway.shows("server", "tls_failed_total", 2).await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed_and_counted() {
    let (authority, upstream) = (Authority::new(), Upstream::fine().await);
    let gateway = behind_tls(&authority.sign("127.0.0.1"), "header_timeout = \"500ms\"", upstream.address);
    let begun = Instant::now();
    // Nothing, and the beginning of a handshake.
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut silent = TcpStream::connect(gateway.address).await.unwrap();
        silent.write_all(sent).await.unwrap();
        assert_eq!(rest(&mut silent).await, "");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1000), "{took:?}");
    gateway.shows("server", "tls_failed_total", 2).await;
    gateway.shows("server", "connections", 0).await;

    // One who does not know that it is TLS is told at once, and reaches nobody.
    let mut plain = TcpStream::connect(gateway.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let answer = rest(&mut plain).await;
    assert!(!answer.contains("HTTP"), "{answer:?}");
    gateway.shows("server", "tls_failed_total", 3).await;
    assert_eq!(upstream.received(), "");
    assert_eq!(get_safely(&authority, gateway.address, true).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_upstream_is_spoken_to_in_its_protocol_when_it_has_proved_its_name() {
    let authority = Authority::new();
    let ca = authority.certificate();
    for (http2, spoken) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        // By its address, and by a name that the config says.
        for (proved, more) in [("127.0.0.1", ""), ("web.test", ", server_name = \"web.test\"")] {
            let upstream = safe_upstream(&authority.sign(proved)).await;
            let gateway = Gateway::before(upstream, &format!("http2 = {http2}\ntls = {{ ca = {ca:?}{more} }}"));
            let res = get(gateway.address, "/").await;
            assert_eq!((res.status().as_u16(), &res.body()[..]), (200, spoken.as_bytes()), "{proved}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_cannot_prove_its_name_gets_nothing_and_opens_the_breaker() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.certificate();
    for http2 in [false, true] {
        for (what, proof) in [("a stranger", stranger.sign("127.0.0.1")), ("a name", authority.sign("other.test"))] {
            let upstream = safe_upstream(&proof).await;
            let lines = format!(
                "http2 = {http2}\ntls = {{ ca = {ca:?} }}\nbreaker = {{ consecutive = 3, open_for = \"30s\" }}"
            );
            let gateway = Gateway::start_with("", &one(upstream, &lines, "retry = false"));
            for _ in 0..3 {
                let res = get(gateway.address, "/").await;
                let said = (res.status().as_u16(), header(&res, "proxy-status"));
                assert_eq!(said, (502, "buttress; error=connection_refused"), "{what}, http2 = {http2}");
            }
            let res = get(gateway.address, "/").await;
            assert_eq!((res.status().as_u16(), header(&res, "retry-after").is_empty()), (503, false), "{what}");
        }
    }
}

#[tokio::test]
async fn the_connect_timeout_is_for_the_handshake_too() {
    let authority = Authority::new();
    // The kernel accepts for it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for http2 in [false, true] {
        let lines = format!(
            "http2 = {http2}\ntls = {{ ca = {:?} }}\nconnect_timeout = \"300ms\"\ndeadline = {{ per_try = \"20s\" }}",
            authority.certificate()
        );
        let gateway = Gateway::start_with("", &one(listener.local_addr().unwrap(), &lines, "retry = false"));
        let res = get(gateway.address, "/").await;
        let said = (res.status().as_u16(), header(&res, "proxy-status"));
        assert_eq!(said, (504, "buttress; error=connection_timeout"), "http2 = {http2}");
    }
}

#[tokio::test]
async fn an_upstream_that_never_finishes_its_handshake_is_cut_by_the_deadline() {
    let authority = Authority::new();
    // The kernel accepts for it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for http2 in [false, true] {
        let lines = format!(
            "http2 = {http2}\ntls = {{ ca = {:?} }}\ndeadline = {{ per_try = \"500ms\" }}",
            authority.certificate()
        );
        let gateway = Gateway::start_with("", &one(listener.local_addr().unwrap(), &lines, "retry = false"));
        assert_eq!(get(gateway.address, "/").await.status(), 504, "http2 = {http2}");
        gateway.shows("cluster.u.bulkhead", "in_flight", 0).await;
    }
}
