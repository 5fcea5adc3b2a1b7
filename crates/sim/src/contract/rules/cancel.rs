use super::ready::{held_by, hold};
use crate::{
    Frames, Latch, PANIC, Script,
    contract::{Role, Subject, Verdict, panic_text, stack::*},
    pauses, poll_once,
};
use futures_util::FutureExt;
use http::Response;
use std::{
    future::poll_fn,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
};
use tower::ServiceExt;
use tower_service::Service;

/// A call and its body as one thing that is polled.
enum Drive {
    Call(Call),
    Body(crate::AnyBody),
    Done,
}

impl Drive {
    async fn step(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Call(call) => {
                if let Poll::Ready(answer) = call.poll_unpin(cx) {
                    *self = answer.map_or(Self::Done, |res| Self::Body(res.into_body()));
                }
            }
            Self::Body(body) => {
                if let Poll::Ready(None | Some(Err(_))) = poll_frame(body, cx) {
                    *self = Self::Done;
                }
            }
            Self::Done => {}
        }
    }
}

/// Whatever was reserved, counted or queued for a call is given back when it is dropped, whenever that is.
pub(crate) async fn a_call_dropped_at_any_poll_leaves_nothing_behind(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        for polls in 0.. {
            let subject = make();
            let rest = subject.rest();
            let script = Script::new(async |_| {
                pauses(3).await;
                Ok(Response::new(Frames::new().data("a").pause().data("b").pause().data("c").pause().into()))
            });
            let mut stack = Stack::new(&subject, role, script.clone());
            let mut drive = Drive::Call(start(&mut stack.service).await?);
            for _ in 0..polls {
                drive.step().await;
            }
            let done = matches!(drive, Drive::Done);
            drop(drive);
            for (what, left) in [
                ("inner calls go on", script.probe().now()),
                ("calls go on further in", stack.inner.in_flight()),
                ("calls go on further out", stack.outer.in_flight()),
            ] {
                ensure!(left == 0, "{role:?}: dropped after {polls} polls: {left} {what}");
            }
            ensure!(
                subject.rest() == rest,
                "{role:?}: dropped after {polls} polls: {rest:?} became {:?}",
                subject.rest()
            );
            if done {
                break;
            }
            ensure!(polls < 100, "{role:?}: a call is not at its end after {polls} polls");
        }
    }
    Ok(())
}

/// A place in a queue is given up with the call; a turn that was given to a call that is gone goes to the next one.
pub(crate) async fn a_waiting_call_that_is_dropped_leaves_nothing_behind(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let Some(limit) = subject.limit else { return nothing_to_check("limit") };
        let rest = subject.rest();
        for polls in 0..4 {
            let latch = Latch::new();
            let script = held_by(&latch);
            let one = service(&subject, role, &script);
            let mut held = hold(std::slice::from_ref(&one), limit).await?;
            let full = subject.rest();

            let mut waiting = one.clone();
            if poll_ready(&mut waiting).await.is_ready() {
                let mut call = waiting.call(get());
                let mut over = false;
                for _ in 0..polls {
                    over = over || poll_once(&mut call).await.is_ready();
                }
                drop(call);
                ensure!(
                    subject.rest() == full,
                    "{role:?}: a waiting call dropped after {polls} polls: {full:?} became {:?}",
                    subject.rest()
                );
                // Once more; this time its turn comes, and nobody takes it.
                if !over && let Poll::Ready(Ok(())) = poll_ready(&mut waiting).await {
                    let mut call = waiting.call(get());
                    let _ = poll_once(&mut call).await;
                    drop(held.pop());
                    drop(call);
                    let answer = start(&mut one.clone()).await?;
                    held.push(answer);
                }
            }
            drop((held, waiting, one));
            ensure!(subject.rest() == rest, "{role:?}: with no call left: {rest:?} became {:?}", subject.rest());
        }
        latch_free(&subject, role, limit).await?;
    }
    Ok(())
}

/// All the room is there again.
async fn latch_free(subject: &Subject, role: Role, limit: u64) -> Verdict {
    let script = held_by(&Latch::new());
    let held = hold(&[service(subject, role, &script)], limit).await;
    held.map(drop).map_err(|what| format!("{role:?}: after dropped calls, room is missing: {what}"))
}

#[derive(Clone, Copy, Debug)]
enum Panics {
    Call,
    Future,
    Body,
}

/// A panic further in passes on as it is, frees what the call held, and is a failure.
pub(crate) async fn a_panic_passes_on_and_frees_everything(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        for panics in [Panics::Call, Panics::Future, Panics::Body] {
            if role == Role::Opaque && matches!(panics, Panics::Body) {
                continue;
            }
            let subject = make();
            let rest = subject.rest();
            let before = subject.outcomes.as_ref().map(|outcomes| outcomes());
            let stack = Stack::new(&subject, role, panicking(panics));
            let one = stack.service.clone();
            // As a server does: the task's future is dropped while its panic unwinds.
            let task = tokio::spawn(async move {
                let res = one.oneshot(get()).await?;
                read(res.into_body()).await
            });
            match task.await {
                Ok(answer) => return Err(format!("{role:?}, {panics:?}: the panic became {answer:?}")),
                Err(join) => {
                    let Ok(payload) = join.try_into_panic() else {
                        return Err(format!("{role:?}, {panics:?}: the task was cancelled"));
                    };
                    let text = panic_text(&*payload);
                    ensure!(text == PANIC, "{role:?}, {panics:?}: another panic came out: {text}");
                }
            }
            ensure!(subject.rest() == rest, "{role:?}, {panics:?}: {rest:?} became {:?}", subject.rest());
            if let (Some(outcomes), Some((successes, failures))) = (&subject.outcomes, before) {
                let seen = (outcomes().0 - successes, outcomes().1 - failures);
                ensure!(seen == (0, 1), "{role:?}, {panics:?}: counted as {seen:?} (successes, failures)");
            }
            // The next call is not harmed.
            let next = AssertUnwindSafe(service(&subject, role, &answering()).oneshot(get())).catch_unwind().await;
            ensure!(matches!(next, Ok(Ok(_))), "{role:?}, {panics:?}: the next call does not get through");
        }
    }
    Ok(())
}

fn panicking(panics: Panics) -> HttpScript {
    Script::new(move |_| {
        if matches!(panics, Panics::Call) {
            panic!("{PANIC}");
        }
        async move {
            pauses(1).await;
            if matches!(panics, Panics::Future) {
                panic!("{PANIC}");
            }
            Ok(Response::new(Frames::new().data("a").pause().panic().into()))
        }
    })
}

/// Many clones on many threads: never more at once than the limit says, to the end of their bodies, and all room is back.
pub(crate) async fn no_more_calls_than_the_limit_run_at_once(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let Some(limit) = subject.limit else { return nothing_to_check("limit") };
        let rest = subject.rest();
        let probe = crate::Probe::default();
        let (tickets, bodies) = (probe.clone(), role != Role::Opaque);
        let script = Script::new(move |_| {
            let ticket = tickets.enter();
            async move {
                pauses(2).await;
                let frames = Frames::new().data("a").pause();
                // A body is part of the call where anyone looks at bodies.
                Ok(Response::new(match bodies {
                    true => frames.wait(async move { drop(ticket) }).into(),
                    false => frames.into(),
                }))
            }
        });
        let one = service(&subject, role, &script);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let tasks: Vec<_> = (0..64)
                    .map(|_| {
                        let one = one.clone();
                        tokio::spawn(async move {
                            for _ in 0..20 {
                                if let Ok(res) = one.clone().oneshot(get()).await {
                                    let _ = read(res.into_body()).await;
                                }
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    let _ = task.await;
                }
            });
        })
        .join()
        .map_err(|_| "a thread panicked".to_owned())?;
        let peak = probe.peak();
        ensure!(peak <= limit, "{role:?}: {peak} calls ran at once under a limit of {limit}");
        ensure!(script.probe().calls() >= limit, "{role:?}: only {} calls got through", script.probe().calls());
        ensure!(subject.rest() == rest, "{role:?}: with no call left: {rest:?} became {:?}", subject.rest());
        latch_free(&subject, role, limit).await?;
    }
    Ok(())
}
