use super::bodies::{counted, outcomes};
use crate::{
    Frames, Script,
    contract::{Role, Subject, Verdict, cast::FINISHED, stack::*},
    wire::{Client, HttpService, Server, Version},
};
use buttress_core::Outcome;
use http::Response;
use http_body_util::BodyExt;
use std::time::Duration;

async fn pair(version: Version, service: HttpService) -> Result<(Server, Client), String> {
    let server = Server::start(version, service).await.map_err(|error| error.to_string())?;
    let client = server.connect().await.map_err(|error| error.to_string())?;
    Ok((server, client))
}

/// Waits until the call is over for everyone, and checks how.
async fn over(
    what: &str,
    outcome: Outcome,
    stack: &Stack,
    subject: &Subject,
    rest: &[(&str, u64)],
    before: Option<(u64, u64)>,
) -> Verdict {
    let done = || stack.inner.in_flight() == 0 && stack.outer.in_flight() == 0 && subject.rest() == rest;
    ensure!(
        soon(done).await,
        "{what}: over, and {rest:?} became {:?}; further in {} calls go on, further out {}",
        subject.rest(),
        stack.inner.in_flight(),
        stack.outer.in_flight()
    );
    counted(what, outcome, stack, subject, before)
}

/// hyper drops many bodies without asking for their end. They are finished all the same.
pub(crate) async fn bodies_served_by_hyper_are_successes(make: &dyn Fn() -> Subject) -> Verdict {
    for version in Version::ALL {
        for exchange in FINISHED.iter().filter(|exchange| exchange.speaks(version)) {
            let what = format!("served over {version:?}, {}", exchange.name);
            let subject = make();
            let (rest, before) = (subject.rest(), outcomes(&subject));
            let response = exchange.response;
            let script = Script::new(move |_| async move { Ok(response()) });
            let stack = Stack::new(&subject, Role::Server, script);
            let (_server, client) = pair(version, stack.service.clone()).await?;
            let res = client.send((exchange.request)()).await.map_err(|error| format!("{what}: {error}"))?;
            let bytes = read(res.into_body()).await.map_err(|error| format!("{what}: {error}"))?.len();
            ensure!(bytes == exchange.bytes, "{what}: {bytes} bytes arrived, not {}", exchange.bytes);
            over(&what, exchange.outcome, &stack, &subject, &rest, before).await?;
        }
    }
    Ok(())
}

/// The same with hyper further in: what its client gives is counted as what it is.
pub(crate) async fn bodies_read_from_hyper_are_successes(make: &dyn Fn() -> Subject) -> Verdict {
    for version in Version::ALL {
        for exchange in FINISHED.iter().filter(|exchange| exchange.speaks(version)) {
            let what = format!("read over {version:?}, {}", exchange.name);
            let subject = make();
            let (rest, before) = (subject.rest(), outcomes(&subject));
            let response = exchange.response;
            let script: HttpScript = Script::new(move |_| async move { Ok(response()) });
            let (_server, client) = pair(version, HttpService::new(script)).await?;
            let stack = Stack::new(&subject, Role::Client, client);
            let res = stack.ask((exchange.request)()).await.map_err(|error| format!("{what}: {error}"))?;
            let bytes = read(res.into_body()).await.map_err(|error| format!("{what}: {error}"))?.len();
            ensure!(bytes == exchange.bytes, "{what}: {bytes} bytes arrived, not {}", exchange.bytes);
            over(&what, exchange.outcome, &stack, &subject, &rest, before).await?;
        }
    }
    Ok(())
}

/// A client that closes its connection before or after the head frees what its call held, and accuses nobody.
pub(crate) async fn a_peer_that_goes_away_is_ignored(make: &dyn Fn() -> Subject) -> Verdict {
    for version in Version::ALL {
        for has_head in [false, true] {
            let what =
                format!("a client over {version:?} goes away {} the head", if has_head { "after" } else { "before" });
            let subject = make();
            let (rest, before) = (subject.rest(), outcomes(&subject));
            let script = Script::new(move |_| async move {
                if !has_head {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(Frames::new().data("a").never().into()))
            });
            let stack = Stack::new(&subject, Role::Server, script.clone());
            let (server, client) = pair(version, stack.service.clone()).await?;
            if has_head {
                let mut res = client.send(get()).await.map_err(|error| format!("{what}: {error}"))?;
                let first = res.body_mut().frame().await;
                ensure!(matches!(first, Some(Ok(_))), "{what}: no first frame");
                drop(res);
            } else {
                let sent = client.send(get());
                let _ = tokio::time::timeout(Duration::from_millis(50), sent).await;
                ensure!(soon(|| script.probe().calls() == 1).await, "{what}: the request did not arrive");
            }
            drop(client);
            over(&what, Outcome::Ignored, &stack, &subject, &rest, before).await?;
            drop(server);
        }
    }
    Ok(())
}
