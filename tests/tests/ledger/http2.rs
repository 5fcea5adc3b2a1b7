use super::{Fate, Ledger};
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderMap, Response};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc};

/// What a request does to its connection.
enum Shutdown {
    Graceful,
    Abrupt,
}

/// With the bare `h2`, which can say REFUSED_STREAM and go away at once.
pub(super) async fn serve(connection: TcpStream, ledger: Arc<Ledger>) -> Result<(), h2::Error> {
    let _ = connection.set_nodelay(true);
    let mut connection = h2::server::handshake(connection).await?;
    let (shut, mut shutdowns) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            biased;
            Some(shutdown) = shutdowns.recv() => match shutdown {
                Shutdown::Graceful => connection.graceful_shutdown(),
                Shutdown::Abrupt => connection.abrupt_shutdown(Reason::INTERNAL_ERROR),
            },
            stream = connection.accept() => {
                let Some(stream) = stream else { return Ok(()) };
                let (request, respond) = stream?;
                let (ledger, shut) = (ledger.clone(), shut.clone());
                tokio::spawn(async move {
                    let (head, body) = request.into_parts();
                    let _ = answer(&head.headers, body, respond, &ledger, &shut).await;
                });
            }
        }
    }
}

async fn answer(
    headers: &HeaderMap,
    mut body: RecvStream,
    mut respond: SendResponse<Bytes>,
    ledger: &Ledger,
    shut: &mpsc::UnboundedSender<Shutdown>,
) -> Result<(), h2::Error> {
    let arrival = ledger.arrive(headers);
    let early = arrival.id.is_multiple_of(2);
    match arrival.fate {
        Fate::Refused => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        Fate::Reset if early => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        _ => {}
    }
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        read.extend(data);
    }
    ledger.check(&arrival, &read);
    let response = |status: u16| Response::builder().status(status);
    let (response, text) = match arrival.fate {
        Fate::Reset | Fate::Refused => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Fate::Gone => {
            let _ = shut.send(Shutdown::Abrupt);
            // The stream stays open: that the connection goes away ends it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(());
        }
        Fate::Truncated => {
            let response = response(200).header("content-length", 100).body(()).expect("it is well-formed");
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(Bytes::from_static(b"not all"), false)?;
            // A reset overtakes what is not sent yet.
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        Fate::Busy => (response(503).header("retry-after", 0), "busy".to_owned()),
        Fate::Failed => (response(503), "failed".to_owned()),
        Fate::LastServed => {
            let _ = shut.send(Shutdown::Graceful);
            (response(200), arrival.id.to_string())
        }
        Fate::Served => (response(200), arrival.id.to_string()),
    };
    let mut stream = respond.send_response(response.body(()).expect("it is well-formed"), false)?;
    stream.send_data(text.into(), true)
}
