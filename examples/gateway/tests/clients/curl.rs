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
        command.args(["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_version} %{size_download}"]);
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
                let body = if status == 200 { "body" } else { "" };
                let res = Response::builder().status(status).header("etag", "\"v\"");
                Ok::<_, Infallible>(res.body(http_body_util::Full::<bytes::Bytes>::from(body)).unwrap())
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Each is asked for twice on one connection: what a body that nobody expects would spoil is the second answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_gets_answers_without_bodies_and_keeps_its_connection() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    for upstream_lines in ["", "http2 = true"] {
        let gateway = Gateway::before(statuses().await, upstream_lines);
        let at = |status: &str| format!("http://{}/{status}", gateway.address);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            for (args, status, length) in [
                (&[][..], "204", ""),
                (&["-H", "If-None-Match: \"v\""][..], "304", ""),
                (&["-I"][..], "200", "4"),
                (&["-I"][..], "204", ""),
                (&[][..], "200", "4"),
            ] {
                let said = "%{http_code} %{num_connects} %header{etag} %header{content-length}\n";
                let common = ["-sS", "--max-time", "20", version, "-w", said, "-o", "/dev/null", "-o", "/dev/null"];
                let output = run("curl", &[&common, args, &[&at(status), &at(status)]].concat()).await;
                let what = format!("{upstream_lines} {version} {args:?} {status}");
                let lines = [1, 0].map(|connects| format!("{status} {connects} \"v\" {length}\n"));
                assert_eq!(String::from_utf8_lossy(&output.stdout), lines.concat(), "{what}");
            }
        }
    }
}
