use super::*;
use crate::{Error, HttpClient, ResendLayer, Retry, core::http::is_unsent, prelude::*};
use ::http::StatusCode;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, mpsc},
    thread,
};
use tower::{Layer, ServiceExt as _};

fn hyper<B>() -> Hyper<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    Hyper(Client::builder(TokioExecutor::new()).retry_canceled_requests(false).build_http())
}

fn post(to: impl fmt::Display) -> Request<Full<Bytes>> {
    Request::post(format!("http://{to}/")).body(Full::from("all")).unwrap()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads one request of which the last bytes are `end`.
fn read(connection: &mut TcpStream, end: &[u8]) {
    let mut request = Vec::new();
    while !request.ends_with(end) {
        let mut byte = [0];
        connection.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
}

fn answer(connection: &mut TcpStream) {
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
}

fn with_retries()
-> (impl Service<Request<Full<Bytes>>, Response: Answered, Error = Error<HyperError>> + Clone, Arc<Retry>) {
    let layer = ResendLayer::<HttpClient>::new(Retry::default());
    let retry = layer.handle();
    (layer.layer(hyper().lift_errors()), retry)
}

/// So that a response can be read without its body's name.
trait Answered {
    fn status(&self) -> StatusCode;
    fn read(self) -> impl Future<Output = Bytes>;
}

impl<B: Body<Data = Bytes, Error: fmt::Debug>> Answered for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }
    async fn read(self) -> Bytes {
        self.into_body().collect().await.unwrap().to_bytes()
    }
}

#[tokio::test]
async fn where_no_connection_is_made_nothing_was_sent() {
    let (listener, address) = listen();
    drop(listener);
    for to in [address.to_string(), "no-such-host.invalid".to_owned()] {
        let error = hyper().oneshot(post(&to)).await.unwrap_err();
        assert!(error.is_unsent() && error.is_connect(), "{error:?}");
        assert!(is_unsent(&error) && !is_unsent(error.get_ref()), "{to}: only the client knows");
        assert_eq!(error.to_string(), "the request was not sent");
        assert_eq!(error.source().unwrap().to_string(), error.get_ref().to_string(), "and behind it, why");

        let (client, retry) = with_retries();
        client.oneshot(post(&to)).await.err().unwrap();
        assert_eq!(retry.snapshot().retries_total, 1, "{to}: two attempts, by default");
    }
}

/// The most common fault of pooled connections: the peer closes an idle one just as it is taken.
#[tokio::test]
async fn a_post_that_met_a_stale_connection_is_sent_again_and_processed_once() {
    let (listener, address) = listen();
    let (close, closing) = mpsc::channel::<()>();
    let (closed, is_closed) = mpsc::channel();
    let server = thread::spawn(move || {
        let (mut first, _) = listener.accept().unwrap();
        read(&mut first, b"\r\n\r\n");
        answer(&mut first);
        closing.recv().unwrap();
        // All that came by then: a request written to it would be lost here.
        first.set_nonblocking(true).unwrap();
        assert!(first.read(&mut [0]).is_err(), "nothing came after the first request");
        drop(first);
        closed.send(()).unwrap();
        let (mut second, _) = listener.accept().unwrap();
        read(&mut second, b"all");
        answer(&mut second);
        assert_eq!(second.read(&mut [0]).unwrap(), 0, "and nothing after the second");
    });
    let (client, retry) = with_retries();
    let get = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
    assert_eq!(client.clone().oneshot(get).await.ok().unwrap().read().await, "ok");
    // Until the connection is idle.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;

    // The runtime hears of the end in this one turn, and this task runs before the connection's.
    close.send(()).unwrap();
    is_closed.recv().unwrap();
    tokio::task::yield_now().await;
    let response = client.clone().oneshot(post(address)).await.map_err(|error| format!("{error:?}"));
    let response = response.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.read().await, "ok");
    let retries = retry.snapshot();
    assert_eq!((retries.first_total, retries.retries_total, retries.recovered_total), (2, 1, 1));
    drop(client);
    // While this waits, the connection is closed.
    tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_was_written_may_have_been_processed() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        read(&mut connection, b"all");
    });
    let (client, retry) = with_retries();
    let Err(Error::Inner(error)) = client.oneshot(post(address)).await else { panic!("nobody answers") };
    assert!(!error.is_unsent() && !error.is_connect() && !is_unsent(&error), "{error:?}");
    assert_eq!(error.to_string(), error.get_ref().to_string());
    assert_eq!(retry.snapshot().retries_total, 0);
    server.join().unwrap();
}
