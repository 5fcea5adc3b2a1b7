use crate::{
    AnyBody, Frames, Script, Step, any,
    contract::{Role, Subject, Verdict, stack::*},
    grpc,
};
use buttress_core::{Outcome, http::UploadBody};
use http::{Request, Response};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const HEAD: Duration = Duration::from_millis(100);
const BODY: Duration = Duration::from_secs(5);

/// After the head a slow body, or a slow reader, is no latency; for gRPC, waiting for the first message is.
pub(crate) async fn the_latency_ends_at_the_head(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::HTTP {
        for is_grpc in [false, true] {
            let what = if is_grpc { format!("{role:?}, gRPC") } else { format!("{role:?}, HTTP") };
            let stack = Stack::new(
                &make(),
                role,
                Script::new(move |_| async move {
                    sleep(HEAD).await;
                    Ok(slow(is_grpc))
                }),
            );
            let request = if is_grpc { grpc::request("/s/m") } else { get() };
            let begin = Instant::now();
            let res = stack.ask(request).await.map_err(|error| format!("{what}: {error}"))?;
            let waited = begin.elapsed();
            ensure!(waited == HEAD, "{what}: the head came after {waited:?}, not {HEAD:?}: does it wait for the body?");
            read(res.into_body()).await.map_err(|error| format!("{what}: {error}"))?;
            let took = begin.elapsed();
            ensure!(took == HEAD + 2 * BODY, "{what}: all took {took:?}, not {:?}", HEAD + 2 * BODY);

            // Between a gRPC head and the first message somebody waits again.
            let waits = if is_grpc { 2 } else { 1 };
            let mut want = [Step::Pending, Step::Head].repeat(waits);
            want.extend([Step::Concluded(Outcome::Success), Step::Dropped]);
            let latency = if is_grpc { HEAD + BODY } else { HEAD };
            for (place, meter) in [("in", &stack.inner), ("out", &stack.outer)] {
                // A head may be told more than once: the first one counts.
                let mut steps = meter.steps(0);
                steps.dedup();
                ensure!(steps == want, "{what}: further {place} the order was {steps:?}");
                let seen = meter.latencies();
                ensure!(seen == [latency], "{what}: further {place} the latency is {seen:?}, not {latency:?}");
            }
        }
    }
    Ok(())
}

/// While the service waits for the client's request body, time is not the service's.
pub(crate) async fn waiting_for_the_client_is_no_latency(make: &dyn Fn() -> Subject) -> Verdict {
    const WAIT: Duration = Duration::from_millis(400);
    for role in Role::HTTP {
        let stack = Stack::new(
            &make(),
            role,
            Script::new(async |req: Request<AnyBody>| {
                read(req.into_body()).await?;
                sleep(HEAD).await;
                Ok(ok())
            }),
        );
        let body = Frames::new().wait(later(WAIT)).data("a").wait(later(WAIT)).data("b");
        let req = UploadBody::track(Request::post("/").body(body).expect("a request")).map(any);
        let begin = Instant::now();
        stack.ask(req).await.map_err(|error| format!("{role:?}: {error}"))?;
        let took = begin.elapsed();
        ensure!(took == 2 * WAIT + HEAD, "{role:?}: all took {took:?}, not {:?}", 2 * WAIT + HEAD);
        for (place, meter) in [("in", &stack.inner), ("out", &stack.outer)] {
            let seen = meter.latencies();
            ensure!(
                seen == [HEAD],
                "{role:?}: further {place} the latency is {seen:?}, not {HEAD:?}: the client took the rest"
            );
        }
    }
    Ok(())
}

/// A sleep that begins when it is first polled.
async fn later(delay: Duration) {
    sleep(delay).await;
}

fn slow(is_grpc: bool) -> Response<AnyBody> {
    let frames = Frames::new().wait(later(BODY)).data("a").wait(later(BODY));
    match is_grpc {
        true => grpc::response(frames.trailers([("grpc-status", "0")])),
        false => Response::new(frames.into()),
    }
}

/// Time is tokio's clock: an hour of idling costs a test nothing, and harms no layer.
pub(crate) async fn it_works_under_a_paused_clock(make: &dyn Fn() -> Subject) -> Verdict {
    for role in Role::ALL {
        let subject = make();
        let rest = subject.rest();
        let stack = Stack::new(
            &subject,
            role,
            Script::new(async |_| {
                sleep(Duration::from_millis(200)).await;
                Ok(Response::new(Frames::new().data("a").wait(later(Duration::from_millis(200))).data("b").into()))
            }),
        );
        for idle in [0, 1, 3_600] {
            sleep(Duration::from_secs(idle)).await;
            let begin = Instant::now();
            let answer = stack.ask(get()).await;
            let took = begin.elapsed();
            let Ok(res) = answer else {
                return Err(format!("{role:?}: after {idle} s, a call gave {}", show(&answer)));
            };
            ensure!(res.status() == 200, "{role:?}: after {idle} s, a call gave status {}", res.status());
            ensure!(took == Duration::from_millis(200), "{role:?}: a call of 200 ms took {took:?}");
            let bytes = read(res.into_body()).await.map_err(|error| format!("{role:?}: {error}"))?;
            ensure!(bytes == "ab", "{role:?}: the body was {bytes:?}");
        }
        ensure!(subject.rest() == rest, "{role:?}: with no call left: {rest:?} became {:?}", subject.rest());
    }
    Ok(())
}
