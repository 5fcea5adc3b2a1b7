use crate::{
    AnyBody, Frames, Script, Tally,
    contract::{
        Role, Subject, Verdict,
        cast::{End, Exchange, FINISHED},
        stack::*,
    },
    grpc, poll_once,
};
use buttress_core::Outcome;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use std::task::Poll;

fn answers(response: fn() -> Response<AnyBody>) -> HttpScript {
    Script::new(move |_| async move {
        crate::pauses(1).await;
        Ok(response())
    })
}

/// Checks what subject and meters counted since `before`.
pub(super) fn counted(
    what: &str,
    outcome: Outcome,
    stack: &Stack,
    subject: &Subject,
    before: Option<(u64, u64)>,
) -> Verdict {
    for (place, meter) in [("in", &stack.inner), ("out", &stack.outer)] {
        let seen = meter.tally();
        ensure!(seen == Tally::of(outcome), "{what}: a layer further {place} saw {seen:?}, not one {outcome}");
    }
    if let (Some(outcomes), Some((successes, failures))) = (&subject.outcomes, before) {
        let seen = (outcomes().0 - successes, outcomes().1 - failures);
        let want = (u64::from(outcome == Outcome::Success), u64::from(outcome == Outcome::Failure));
        ensure!(seen == want, "{what}: counted as {seen:?} (successes, failures), not as one {outcome}");
    }
    Ok(())
}

pub(super) fn outcomes(subject: &Subject) -> Option<(u64, u64)> {
    subject.outcomes.as_ref().map(|outcomes| outcomes())
}

/// The permit is there as long as the body is not at its end, and not longer: hyper keeps ended bodies for a while.
pub(crate) async fn a_permit_is_held_to_the_end_of_the_body(make: &dyn Fn() -> Subject) -> Verdict {
    let failing = Exchange {
        name: "a body error",
        request: get,
        response: || Response::new(Frames::new().data("a").pause().error("reset").into()),
        outcome: Outcome::Failure,
        bytes: 1,
        end: End::Frames(2),
    };
    for role in Role::HTTP {
        for exchange in FINISHED.iter().chain([&failing]) {
            let name = exchange.name;
            let subject = make();
            let Some(before) = subject.running() else { return nothing_to_check("in_flight") };
            let mut one = service(&subject, role, &answers(exchange.response));
            one_ready(&mut one).await?;
            let mut call = tower_service::Service::call(&mut one, (exchange.request)());
            ensure!(poll_once(&mut call).await.is_pending(), "{role:?}, {name}: no answer should be there yet");
            held(&subject, before, 1, || format!("{role:?}, {name}: before the head"))?;
            let mut res = call.await.map_err(|error| format!("{role:?}, {name}: {error}"))?;
            let (frames, none) = match exchange.end {
                End::Head => (0, false),
                End::Frames(frames) => (frames, false),
                End::None(frames) => (frames, true),
            };
            for frame in 0..frames {
                held(&subject, before, 1, || format!("{role:?}, {name}: after {frame} of {frames} frames"))?;
                if res.body_mut().frame().await.is_none() {
                    return Err(format!("{role:?}, {name}: it has {frame} frames, not {frames}"));
                }
            }
            if none {
                held(&subject, before, 1, || format!("{role:?}, {name}: before the end shows"))?;
                if res.body_mut().frame().await.is_some() {
                    return Err(format!("{role:?}, {name}: it has more than {frames} frames"));
                }
            }
            held(&subject, before, 0, || format!("{role:?}, {name}: at its end, before it is dropped"))?;
            drop(res);
            held(&subject, before, 0, || format!("{role:?}, {name}: dropped"))?;
        }
    }
    Ok(())
}

async fn one_ready(service: &mut crate::wire::HttpService) -> Result<(), String> {
    tower::ServiceExt::ready(service).await.map(drop).map_err(|error| error.to_string())
}

fn held(subject: &Subject, before: u64, want: u64, what: impl Fn() -> String) -> Verdict {
    let running = subject.running().unwrap_or_default();
    ensure!(running == before + want, "{}: {running} in flight, not {}", what(), before + want);
    Ok(())
}

/// How a reader stops reading.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// At `None`, as `collect()` does.
    ToTheEnd,
    /// When the body says that it is at its end, or has given what it declared, as hyper does.
    AsHyper,
}

/// Each kind of finished answer, however it is read, counts once, as what it is, in the subject and around it.
pub(crate) async fn a_finished_call_settles_once_with_its_outcome(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::HTTP {
        for exchange in FINISHED {
            for reader in [Reader::ToTheEnd, Reader::AsHyper] {
                let what = format!("{role:?}, {}, read {reader:?}", exchange.name);
                let subject = make();
                let before = outcomes(&subject);
                let stack = Stack::new(&subject, role, answers(exchange.response));
                let res = stack.ask((exchange.request)()).await.map_err(|error| format!("{what}: {error}"))?;
                let bytes = match reader {
                    Reader::ToTheEnd => read(res.into_body()).await.map_err(|error| format!("{what}: {error}"))?.len(),
                    Reader::AsHyper => read_as_hyper(exchange, res).await?,
                };
                ensure!(bytes == exchange.bytes, "{what}: {bytes} bytes arrived, not {}", exchange.bytes);
                counted(&what, exchange.outcome, &stack, &subject, before)?;
            }
        }
        let what = format!("{role:?}, a body error");
        let subject = make();
        let before = outcomes(&subject);
        let stack =
            Stack::new(&subject, role, answers(|| Response::new(Frames::new().data("a").error("reset").into())));
        let res = stack.ask(get()).await.map_err(|error| format!("{what}: {error}"))?;
        let error = read(res.into_body()).await.err().map(|error| error.to_string());
        ensure!(error.as_deref() == Some("reset"), "{what}: the reader saw {error:?}");
        counted(&what, Outcome::Failure, &stack, &subject, before)?;
    }
    // An opaque call is over when it returns.
    let subject = make();
    let before = outcomes(&subject);
    let stack = Stack::new(&subject, Role::Opaque, answers(|| Response::new(Frames::new().never().into())));
    let answer = stack.ask(get()).await;
    ensure!(answer.is_ok(), "Opaque: {}", show(&answer));
    counted("Opaque, a value", Outcome::Success, &stack, &subject, before)?;
    for role in [Role::Opaque, Role::Client, Role::Server] {
        let subject = make();
        let before = outcomes(&subject);
        let stack = Stack::new(&subject, role, Script::new(async |_| Err("no connection".into())));
        let answer = stack.ask(get()).await;
        let seen = answer.as_ref().err().map(ToString::to_string);
        ensure!(seen.as_deref() == Some("no connection"), "{role:?}: an error became {}", show(&answer));
        counted(&format!("{role:?}, an error"), Outcome::Failure, &stack, &subject, before)?;
    }
    Ok(())
}

/// Reads as hyper's dispatcher does: it never asks a body for a `None` it knows of.
async fn read_as_hyper(exchange: &Exchange, res: Response<AnyBody>) -> Result<usize, String> {
    let mut left = res.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = res.into_body();
    let mut bytes = 0;
    if exchange.end == End::Head {
        return Ok(0);
    }
    while !body.is_end_stream() && left != Some(0) {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                bytes += len;
                left = left.map(|left| left - len);
            }
            Some(Err(error)) => return Err(error.to_string()),
        }
    }
    Ok(bytes)
}

/// A reader who goes away midway accuses nobody; a bad answer that is thrown away (by a retry, a fallback) is still bad.
pub(crate) async fn an_early_drop_says_nothing_unless_the_head_was_bad(make: &dyn Fn() -> Subject) -> Verdict {
    type Case = (&'static str, fn() -> Request<AnyBody>, fn() -> Response<AnyBody>, Outcome);
    const CASES: [Case; 5] = [
        ("200", get, || status(200), Outcome::Ignored),
        ("404", get, || status(404), Outcome::Ignored),
        ("500", get, || status(500), Outcome::Failure),
        ("429", get, || status(429), Outcome::Overload),
        ("gRPC", || grpc::request("/s/m"), || grpc::response(endless()), Outcome::Ignored),
    ];
    for role in Role::HTTP {
        for (name, request, response, outcome) in CASES {
            for frames in 0..2 {
                let what = format!("{role:?}, {name}, dropped after {frames} frames");
                let subject = make();
                let (rest, before) = (subject.rest(), outcomes(&subject));
                let stack = Stack::new(&subject, role, answers(response));
                let mut res = stack.ask(request()).await.map_err(|error| format!("{what}: {error}"))?;
                for _ in 0..frames {
                    let _ = res.body_mut().frame().await;
                }
                drop(res);
                counted(&what, outcome, &stack, &subject, before)?;
                ensure!(subject.rest() == rest, "{what}: {rest:?} became {:?}", subject.rest());
            }
        }
    }
    Ok(())
}

fn endless() -> Frames {
    Frames::new().data("a").pause().data("b").never()
}

fn status(status: u16) -> Response<AnyBody> {
    let mut res = Response::new(endless().into());
    *res.status_mut() = StatusCode::from_u16(status).expect("a status");
    res
}

/// The outcome of a 101 is known with it; the permit stays with the connection, in the response's extensions.
pub(crate) async fn an_upgraded_connection_keeps_its_permit(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::HTTP {
        let subject = make();
        let Some(running) = subject.running() else { return nothing_to_check("in_flight") };
        let before = outcomes(&subject);
        let upgrade = || {
            let mut res = Response::new(AnyBody::default());
            *res.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            res
        };
        let stack = Stack::new(&subject, role, answers(upgrade));
        let res = stack.ask(get()).await.map_err(|error| format!("{role:?}: {error}"))?;
        counted(&format!("{role:?}, 101"), Outcome::Success, &stack, &subject, before)?;
        let (parts, body) = res.into_parts();
        drop(body);
        held(&subject, running, 1, || format!("{role:?}, 101: its body is gone, the connection is not"))?;
        drop(parts);
        held(&subject, running, 0, || format!("{role:?}, 101: the connection is closed"))?;
    }
    Ok(())
}

/// What a reader sees of a body, step by step.
async fn trace(mut body: AnyBody) -> Vec<String> {
    let mut steps = Vec::new();
    let mut over = false;
    while !over {
        let hint = body.size_hint();
        let polled = std::future::poll_fn(|cx| Poll::Ready(poll_frame(&mut body, cx))).await;
        over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        let polled = match polled {
            Poll::Pending => "pending".to_owned(),
            Poll::Ready(None) => "none".to_owned(),
            Poll::Ready(Some(Err(error))) => format!("error {error}"),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => format!("data {data:?}"),
                Err(frame) => format!("trailers {:?}", frame.into_trailers().unwrap_or_else(|_| HeaderMap::new())),
            },
        };
        let (lower, upper, end) = (hint.lower(), hint.upper(), body.is_end_stream());
        steps.push(format!("size {lower}..{upper:?}, {polled}, end {end}"));
    }
    steps
}

/// Frames, trailers, errors, `size_hint`, `is_end_stream`, headers and status: nothing is lost, added, delayed or gathered.
pub(crate) async fn bodies_pass_through_unchanged(make: &dyn Fn() -> Subject) -> Verdict {
    const BODIES: [fn() -> Response<AnyBody>; 6] = [
        || Response::new(Frames::new().into()),
        || Response::new(Frames::new().declared().end_known().into()),
        || Response::new(Frames::new().data("one").pause().data("two").declared().end_known().into()),
        || Response::new(Frames::new().pause().data("one").pause().pause().data("two").pause().into()),
        || Response::new(Frames::new().data("one").pause().error("reset").into()),
        || grpc::unary("0"),
    ];
    for role in Role::ALL {
        for (number, response) in BODIES.into_iter().enumerate() {
            let request = if number == 5 { grpc::request("/s/m") } else { get() };
            let mut res = Stack::new(
                &make(),
                role,
                Script::new(move |_| async move {
                    let mut res = response();
                    *res.status_mut() = StatusCode::ACCEPTED;
                    if number == 5 {
                        *res.status_mut() = StatusCode::OK;
                    }
                    res.headers_mut().insert("x-own", "1".parse()?);
                    res.extensions_mut().insert(number);
                    Ok(res)
                }),
            )
            .ask(request)
            .await
            .map_err(|error| format!("{role:?}: {error}"))?;
            let kept = res.extensions_mut().remove::<usize>() == Some(number)
                && res.headers().contains_key("x-own")
                && (number == 5 || res.status() == StatusCode::ACCEPTED);
            ensure!(kept, "{role:?}, body {number}: the head was changed: {res:?}");
            let (seen, want) = (trace(res.into_body()).await, trace(response().into_body()).await);
            ensure!(seen == want, "{role:?}, body {number}: {want:?} became {seen:?}");
        }
    }
    Ok(())
}
