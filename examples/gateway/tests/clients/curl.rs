//! curl over TLS, and what it makes of answers without bodies.

use crate::{
    authority::Authority,
    is_there,
    process::{Gateway, one},
    run, upstream,
};
use std::{convert::Infallible, net::SocketAddr, process::Command};
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_agrees_on_a_protocol_over_tls_and_refuses_a_stranger() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let proof = authority.sign("web.test");
    let gateway = Gateway::start(&format!(
        "[listener.t]\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = {:?}, key = {:?} }}\n\
         [admin]\naddress = \"127.0.0.1:0\"\n{}",
        proof.certificate,
        proof.key,
        one(upstream().await, "", "")
    ));
    let resolve = |name: &str| format!("{name}:{}:127.0.0.1", gateway.address.port());
    let curl = |authority: &Authority, name: &str, version: &str| {
        let (ca, at) = (authority.certificate(), format!("https://{name}:{}/100000", gateway.address.port()));
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--fail",
            "--max-time",
            "20",
            "-o",
            "/dev/null",
            "-w",
            "%{http_version} %{size_download}",
        ]);
        command.args([version, "--resolve", &resolve(name), "--cacert"]).arg(ca).arg(at);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    for (version, said) in [("--http1.1", "1.1 100000"), ("--http2", "2 100000"), ("--tlsv1.3", "2 100000")] {
        let output = curl(&authority, "web.test", version).await.unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), said, "{version}: {shown}");
        // 60: the certificate is not believed, or it is for another name.
        assert_eq!(curl(&stranger, "web.test", version).await.unwrap().status.code(), Some(60), "{version}");
        assert_eq!(curl(&authority, "other.test", version).await.unwrap().status.code(), Some(60), "{version}");
    }
}

/// An upstream that speaks both protocols, and answers with the status that the path says.
async fn statuses() -> SocketAddr {
    use http::{Request, Response};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(async |req: Request<hyper::body::Incoming>| {
                let status: u16 = req.uri().path()[1..].parse().unwrap();
                // Over HTTP/2 hyper leaves it to us that HEAD is answered without a body.
                let body = if status == 200 && req.method() != "HEAD" { "body" } else { "" };
                let mut res = Response::builder().status(status).header("etag", "\"v\"");
                if status == 200 {
                    res = res.header("content-length", 4);
                }
                Ok::<_, Infallible>(res.body(http_body_util::Full::<bytes::Bytes>::from(body)).unwrap())
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Over HTTP/1 each is asked for twice on one connection: what a body that nobody expects would spoil is the second answer.
/// Over HTTP/2 once: there are versions of curl that cannot use a connection of prior knowledge again (curl/curl#10634).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_answers_without_bodies_and_keeps_its_connection() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    for upstream_lines in ["", "http2 = true"] {
        let gateway = Gateway::before(statuses().await, upstream_lines);
        let at = |status: &str| format!("http://{}/{status}", gateway.address);
        for (version, times) in [("--http1.1", 2), ("--http2-prior-knowledge", 1)] {
            for (args, status, length) in [
                (&[][..], "204", ""),
                (&["-H", "If-None-Match: \"v\""][..], "304", ""),
                (&["-I"][..], "200", "4"),
                (&["-I"][..], "204", ""),
                (&[][..], "200", "4"),
            ] {
                let said = "%{http_code} %{num_connects} %header{etag} %header{content-length}\n";
                let common = ["-sS", "--max-time", "20", version, "-w", said, "-o", "/dev/null", "-o", "/dev/null"];
                let at = at(status);
                let output = run("curl", &[&common, args, &vec![at.as_str(); times]].concat()).await;
                let lines = [1, 0].map(|connects| format!("{status} {connects} \"v\" {length}\n"));
                let what = format!("{upstream_lines} {version} {args:?} {status}");
                assert_eq!(String::from_utf8_lossy(&output.stdout), lines[..times].concat(), "{what}");
            }
        }
    }
}
