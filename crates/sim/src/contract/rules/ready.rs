use crate::{
    Latch, Readiness, ReadinessError, Script,
    contract::{Role, Subject, Verdict, stack::*},
    poll_once,
};
use std::task::Poll;
use tower::ServiceExt;
use tower_service::Service;

/// A script whose calls last until the latch opens.
pub(super) fn held_by(latch: &Latch) -> HttpScript {
    let latch = latch.clone();
    Script::new(move |_| {
        let latch = latch.clone();
        async move {
            latch.wait().await;
            Ok(ok())
        }
    })
}

/// Starts `count` calls and polls each once.
pub(super) async fn hold(service: &HttpServices, count: u64) -> Result<Vec<Call>, String> {
    let mut held = Vec::new();
    for i in 0..count as usize {
        let mut service = service[i % service.len()].clone();
        let mut call = start(&mut service).await?;
        let polled = poll_once(&mut call).await;
        if let Poll::Ready(answer) = polled {
            return Err(format!("call {} of {count} was not let in: {}", i + 1, show(&answer)));
        }
        held.push(call);
    }
    Ok(held)
}

pub(super) type HttpServices = [crate::wire::HttpService];

/// The state is made with the layer, not in `layer()`: routes, connections and clones share it.
pub(crate) async fn clones_and_layer_calls_share_one_state(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let latch = Latch::new();
        let script = held_by(&latch);
        let (a, b) = (service(&subject, role, &script), service(&subject, role, &script));
        let services = [a.clone(), b.clone(), a, b];
        let before = subject.running();
        let held = hold(&services, subject.limit.unwrap_or(4)).await?;
        if let (Some(before), Some(running)) = (before, subject.running()) {
            let started = held.len() as u64;
            ensure!(
                running == before + started,
                "{role:?}: {started} calls through two layer() calls and their clones, {} in flight",
                running - before
            );
        }
        if subject.limit.is_some() {
            let mut other = service(&subject, role, &script);
            // With back-pressure it is not even ready.
            let mut call = match poll_ready(&mut other).await {
                Poll::Ready(Ok(())) => Some(other.call(get())),
                Poll::Ready(Err(error)) => return Err(format!("{role:?}: poll_ready failed: {error}")),
                Poll::Pending => None,
            };
            if let Some(call) = &mut call {
                let _ = poll_once(call).await;
            }
            ensure!(
                script.probe().now() == held.len() as u64,
                "{role:?}: another layer() call let a call in beyond the limit"
            );
        }
        drop(held);
        if let Some(outcomes) = &subject.outcomes {
            let script = answering();
            let (a, b) = (service(&subject, role, &script), service(&subject, role, &script));
            let before = outcomes().0;
            for service in [a.clone(), b.clone(), a, b] {
                let _ = service.oneshot(get()).await;
            }
            let seen = outcomes().0 - before;
            ensure!(seen == 4, "{role:?}: 4 successes through two layer() calls and their clones, {seen} counted");
        }
        if let Some(shut) = &subject.shut {
            shut(true);
            for service in services {
                let answer = service.oneshot(get()).await;
                ensure!(refusal(role, &answer).is_some(), "{role:?}: shut, one of its services gave {}", show(&answer));
            }
        }
    }
    Ok(())
}

/// `poll_ready` never refuses: to tower an error there means that the service is broken for good.
pub(crate) async fn poll_ready_fails_only_with_the_inner_services_own_error(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let mut failing = service(&subject, role, &answering().readiness(Readiness::Fails));
        match poll_ready(&mut failing).await {
            Poll::Ready(Err(error)) if error.is::<ReadinessError>() => {}
            other => return Err(format!("{role:?}: the inner readiness failed, the layer said {other:?}")),
        }
        drop(failing);
        if let Some(limit) = subject.limit {
            let latch = Latch::new();
            let script = held_by(&latch);
            let held = hold(&[service(&subject, role, &script)], limit).await?;
            let full = poll_ready(&mut service(&subject, role, &script)).await;
            ensure!(!matches!(full, Poll::Ready(Err(_))), "{role:?}: at its limit, poll_ready fails: {full:?}");
            drop(held);
        }
        if let Some(shut) = &subject.shut {
            shut(true);
            let refusing = poll_ready(&mut service(&subject, role, &answering())).await;
            ensure!(!matches!(refusing, Poll::Ready(Err(_))), "{role:?}: shut, poll_ready fails: {refusing:?}");
        }
    }
    Ok(())
}

/// Clones that are ready and never called (a balancer, a buffer, a keep-alive connection) starve nobody.
pub(crate) async fn ready_clones_reserve_nothing(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let rest = subject.rest();
        let mut next = service(&subject, role, &answering());
        let count = if subject.back_pressure { 1 } else { subject.limit.unwrap_or(8) + 3 };
        let mut idle = Vec::new();
        for i in 0..count {
            let mut clone = next.clone();
            let ready = poll_ready(&mut clone).await;
            ensure!(matches!(ready, Poll::Ready(Ok(()))), "{role:?}: after {i} idle clones, poll_ready says {ready:?}");
            idle.push(clone);
        }
        if !subject.back_pressure {
            ensure!(subject.rest() == rest, "{role:?}: ready and not called: {rest:?} became {:?}", subject.rest());
            let answer = start(&mut next).await?.await;
            ensure!(
                refusal(role, &answer).is_none(),
                "{role:?}: {count} idle clones, and a call gave {}",
                show(&answer)
            );
        }
        drop((idle, next));
        ensure!(subject.rest() == rest, "{role:?}: ready, then dropped: {rest:?} became {:?}", subject.rest());
    }
    Ok(())
}

/// Readiness belongs to one clone and one call. The script panics where that is forgotten.
pub(crate) async fn an_unready_inner_service_is_never_called(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let script = answering();
        let fine = |how: &str, answer: Answer| match answer {
            Ok(res) if res.status().is_success() => Ok(()),
            other => Err(format!("{role:?}, {how}: {}", show(&other))),
        };

        let mut unready = service(&subject, role, &script.clone().readiness(Readiness::Never));
        let ready = poll_ready(&mut unready).await;
        ensure!(ready.is_pending(), "{role:?}: the inner service is not ready, the layer says {ready:?}");
        drop(unready);

        let mut one = service(&subject, role, &script);
        for _ in 0..3 {
            script.set(Readiness::After(2));
            fine("a clone per call", one.clone().oneshot(get()).await)?;
            script.set(Readiness::After(2));
            fine("one service for all calls", start(&mut one).await?.await)?;
        }
        // The usual mistake: the clone is taken from the ready one, and called.
        let ready = one.ready().await.map_err(|error| format!("{role:?}: {error}"))?;
        script.set(Readiness::Never);
        let clone = ready.clone();
        fine("cloned after it was ready", one.call(get()).await)?;
        script.set(Readiness::Ready);
        fine("the clone, asked for itself", clone.oneshot(get()).await)?;

        // Calls that wait for their turn are made with the one that was ready.
        if let Some(limit) = subject.limit {
            let latch = Latch::new();
            let script = held_by(&latch);
            let mut one = service(&subject, role, &script);
            let held = hold(std::slice::from_ref(&one), limit).await?;
            if let Poll::Ready(Ok(())) = poll_ready(&mut one).await {
                let mut waiting = one.call(get());
                let early = poll_once(&mut waiting).await;
                latch.open();
                for call in held {
                    let _ = call.await;
                }
                if early.is_pending() {
                    fine("a call that waited", waiting.await)?;
                }
            }
        }
    }
    Ok(())
}
