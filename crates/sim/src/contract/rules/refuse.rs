use super::ready::{held_by, hold};
use crate::{
    Latch, Readiness, Script, Tally, any,
    contract::{Role, Subject, Verdict, stack::*},
    grpc, poll_once,
    wire::{Server, Version},
};
use buttress_core::{BoxError, Outcome, Reason, Rejection, http::RequestBodyError};
use http::{Method, Response};
use std::{task::Poll, time::Duration};
use tower::ServiceExt;
use tower_service::Service;

/// Shut, it says ready whatever the inner service says, and keeps its word in `call`: the inner service was not asked.
pub(crate) async fn shut_it_refuses_without_asking_the_inner_service(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let (Some(shut), true) = (&subject.shut, subject.asks_first) else {
            return nothing_to_check("shut` with `.asks_first");
        };
        let script = answering().readiness(Readiness::Never);
        let mut one = service(&subject, role, &script);
        shut(true);
        let ready = poll_ready(&mut one).await;
        ensure!(matches!(ready, Poll::Ready(Ok(()))), "{role:?}: shut, over an unready inner service: {ready:?}");
        shut(false);
        let answer = one.call(get()).await;
        ensure!(
            refusal(role, &answer).is_some(),
            "{role:?}: open again between poll_ready and call, it gave {} though the inner service was never asked",
            show(&answer)
        );
        script.set(Readiness::Ready);
        let answer = start(&mut one).await?.await;
        ensure!(refusal(role, &answer).is_none(), "{role:?}: open again, the next call gave {}", show(&answer));
    }
    Ok(())
}

/// A caller parked on an unready inner service hears that the layer is shut.
pub(crate) async fn shutting_wakes_parked_callers(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let (Some(shut), true) = (&subject.shut, subject.asks_first) else {
            return nothing_to_check("shut` with `.asks_first");
        };
        let script = answering().readiness(Readiness::Never);
        let callers: Vec<_> = (0..3).map(|_| tokio::spawn(service(&subject, role, &script).oneshot(get()))).collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        shut(true);
        for caller in callers {
            match tokio::time::timeout(Duration::from_secs(2), caller).await {
                Ok(Ok(answer)) => {
                    ensure!(refusal(role, &answer).is_some(), "{role:?}: a woken caller got {}", show(&answer));
                }
                Ok(Err(join)) => return Err(format!("{role:?}: a parked caller panicked: {join}")),
                Err(_) => return Err(format!("{role:?}: a parked caller sleeps on")),
            }
        }
    }
    Ok(())
}

/// The refusal is the future's, it is recognised further out, and it leaves nothing behind.
pub(crate) async fn a_refusal_comes_out_of_the_future_and_is_marked(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        if let Some(shut) = &subject.shut {
            let rest = subject.rest();
            let script = answering();
            let stack = Stack::new(&subject, role, script.clone());
            shut(true);
            let answer = stack.ask(get()).await;
            let Some(rejection) = refusal(role, &answer) else {
                return Err(format!("{role:?}: shut, it gave {}", show(&answer)));
            };
            ensure!(script.probe().calls() == 0, "{role:?}: it refused, and called the inner service");
            // A response tells with its body.
            if let Ok(res) = answer {
                read(res.into_body()).await.map_err(|error| format!("{role:?}: {error}"))?;
            }
            let (seen, want) = (stack.outer.tally(), Tally::of(rejection.reason.outcome()));
            ensure!(seen == want, "{role:?}: refused with {}, and a layer further out saw {seen:?}", rejection.reason);
            ensure!(subject.rest() == rest, "{role:?}: a refusal made {rest:?} {:?}", subject.rest());
            shut(false);
            let answer = stack.ask(get()).await;
            ensure!(refusal(role, &answer).is_none(), "{role:?}: open again, it gave {}", show(&answer));
        }
        let Some(limit) = subject.limit else {
            match subject.shut {
                Some(_) => continue,
                None => return nothing_to_check("shut` or `.limit"),
            }
        };
        let latch = Latch::new();
        let script = held_by(&latch);
        let one = service(&subject, role, &script);
        let held = hold(std::slice::from_ref(&one), limit).await?;
        let mut beyond = one.clone();
        if let Poll::Ready(Ok(())) = poll_ready(&mut beyond).await
            && let Poll::Ready(answer) = poll_once(&mut beyond.call(get())).await
        {
            ensure!(refusal(role, &answer).is_some(), "{role:?}: beyond its limit it gave {}", show(&answer));
        }
        drop(held);
    }
    Ok(())
}

/// On a server a refusal is a response: the right status, gRPC in gRPC's way, and the connection lives on.
pub(crate) async fn a_refusal_is_a_whole_answer_on_the_wire(make: &dyn Fn() -> Subject) -> Verdict {
    for version in Version::ALL {
        let subject = make();
        let Some(shut) = &subject.shut else { return nothing_to_check("shut") };
        let stack = Stack::new(&subject, Role::Server, answering());
        let server = Server::start(version, stack.service.clone()).await.map_err(|error| error.to_string())?;
        let client = server.connect().await.map_err(|error| error.to_string())?;
        let said = |error: BoxError| format!("{version:?}: {error}");

        shut(true);
        let res = client.send(get()).await.map_err(said)?;
        let status = res.status();
        ensure!(status.as_u16() == 429 || status.is_server_error(), "{version:?}: refused with status {status}");
        read(res.into_body()).await.map_err(said)?;

        let mut head = get();
        *head.method_mut() = Method::HEAD;
        let res = client.send(head).await.map_err(said)?;
        ensure!(res.status() == status, "{version:?}: HEAD refused with {}", res.status());

        if version == Version::H2 {
            let res = client.send(grpc::request("/pkg.Service/Method")).await.map_err(said)?;
            let code = res.headers().get("grpc-status").map(|code| code.as_bytes().to_vec());
            ensure!(
                res.status() == 200 && code.as_ref().is_some_and(|code| code != b"0"),
                "{version:?}: a gRPC call refused with status {}, grpc-status {code:?}",
                res.status()
            );
            read(res.into_body()).await.map_err(said)?;
        }
        shut(false);
        let res = client.send(get()).await.map_err(said)?;
        ensure!(res.status() == 200, "{version:?}: open again, on the same connection: {}", res.status());
        read(res.into_body()).await.map_err(said)?;
    }
    Ok(())
}

/// A layer further in refused: that says nothing about health, here and further out. A passed deadline does: it accuses.
pub(crate) async fn an_inner_refusal_is_ignored_and_a_passed_deadline_is_a_failure(
    make: &dyn Fn() -> Subject,
) -> Verdict {
    for role in Role::ALL {
        for reason in [Reason::BreakerOpen, Reason::AtCapacity, Reason::DeadlinePassed] {
            let subject = make();
            let before = subject.outcomes.as_ref().map(|outcomes| outcomes());
            let rejection = Rejection::new(reason, "inner");
            let stack = Stack::new(&subject, role, Script::new(move |_| async move { refuse(role, rejection) }));
            let answer = stack.ask(get()).await;
            let seen = refusal(role, &answer);
            ensure!(seen == Some(rejection), "{role:?}: an inner refusal ({reason}) became {}", show(&answer));
            // Whoever gets the answer reads it.
            if let Ok(res) = answer {
                read(res.into_body()).await.map_err(|error| format!("{role:?}: {error}"))?;
            }
            let tally = Tally::of(reason.outcome());
            let seen = stack.outer.tally();
            ensure!(seen == tally, "{role:?}: an inner refusal ({reason}) is {seen:?} further out");
            if let (Some(outcomes), Some((successes, failures))) = (&subject.outcomes, before) {
                let seen = (outcomes().0 - successes, outcomes().1 - failures);
                let want = (0, u64::from(reason.outcome() == Outcome::Failure));
                ensure!(
                    seen == want,
                    "{role:?}: an inner refusal ({reason}) counted as {seen:?} (successes, failures)"
                );
            }
        }
    }
    Ok(())
}

/// A refusal as a layer further in shows it.
fn refuse(role: Role, rejection: Rejection) -> Answer {
    if role != Role::Server {
        return Err(rejection.into());
    }
    let mut res = Response::new(any(http_body_util::Full::from(rejection.reason.title())));
    *res.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    res.extensions_mut().insert(rejection);
    Ok(res)
}

/// A client that aborts its upload opens no breaker. (A server shows that as a response; its errors it may not look into.)
pub(crate) async fn an_aborted_upload_is_ignored(make: &dyn Fn() -> Subject) -> Verdict {
    for role in [Role::Opaque, Role::Client] {
        let subject = make();
        let before = subject.outcomes.as_ref().map(|outcomes| outcomes());
        let script = Script::new(async |_| Err(BoxError::from(RequestBodyError::new("the client is gone"))));
        let stack = Stack::new(&subject, role, script);
        let answer = stack.ask(get()).await;
        ensure!(answer.is_err(), "{role:?}: the upload's error became {}", show(&answer));
        for (place, meter) in [("in", &stack.inner), ("out", &stack.outer)] {
            let seen = meter.tally();
            ensure!(seen == Tally::of(Outcome::Ignored), "{role:?}: further {place} an aborted upload is {seen:?}");
        }
        let after = subject.outcomes.as_ref().map(|outcomes| outcomes());
        ensure!(
            before == after,
            "{role:?}: an aborted upload counts: {before:?} became {after:?} (successes, failures)"
        );
    }
    Ok(())
}
