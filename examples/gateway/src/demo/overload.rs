//! The overload: three times what cluster `d` can do comes in, of every importance.

use super::{
    script::Stage,
    tally::{Tally, good, quantile},
    traffic::{Caller, End, Seen, Source},
    upstreams::whole_answer,
    verdict::percent,
};
use crate::chain::Shedder;
use buttress::Priority;
use http::{Request, Uri};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{array, convert::Infallible, io, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};

/// When it comes.
pub(crate) const SCENE: (f64, f64) = (0.74, 0.89);
/// Calls that the one endpoint works on at once; all others wait there, and are worked on though their callers have gone.
const WORKERS: usize = 2;
const WORK: Duration = Duration::from_millis(40);
/// Who calls, how often a second at any time, and how often more in the scene: three times what the endpoint can do in all.
const CLASSES: [(Priority, f64, f64); 3] =
    [(Priority::Critical, 5.0, 10.0), (Priority::Normal, 5.0, 40.0), (Priority::Sheddable, 5.0, 85.0)];

/// What is promised to critical calls.
const CRITICAL: f64 = 0.99;
/// What the endpoint is to do of what it can.
const GOODPUT: f64 = 0.7;
/// How long good answers may take.
const BOUND: Duration = Duration::from_millis(1500);
/// Without protection critical calls fare as all others do, and most wait in vain.
const UNPROTECTED: f64 = 0.8;

/// Calls by importance, the most important first.
pub(crate) struct Callers([Arc<Seen>; 3]);

/// What became of them.
#[derive(Default)]
pub(crate) struct Told([Tally; 3]);

/// The cluster at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    limit: u32,
    in_flight: u32,
    queued: u32,
    /// The share of good calls of each class since the scene began.
    good: [Option<f64>; 3],
}

/// Serves `listener` as an endpoint with few workers and no end to its queue.
pub(crate) async fn serve(listener: TcpListener) -> io::Result<()> {
    let workers = Arc::new(Semaphore::new(WORKERS));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let workers = workers.clone();
        let service = service_fn(move |req: Request<Incoming>| {
            let workers = workers.clone();
            async move {
                let _ = req.into_body().collect().await;
                let work = tokio::spawn(async move {
                    let _worker = workers.acquire().await;
                    sleep(WORK).await;
                });
                let _ = work.await;
                Ok::<_, Infallible>(whole_answer())
            }
        });
        let http1 = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(http1);
    }
}

impl Callers {
    /// Calls `uri` as the script says.
    pub(crate) fn begin(uri: &Uri, stage: Stage, mut salted: impl FnMut() -> u64) -> Self {
        Self(CLASSES.map(|(priority, always, more)| {
            let seen = Arc::<Seen>::default();
            for (rate, times) in [(always, (0.0, 1.0)), (more, SCENE)] {
                let source = Source::new(Caller::Of(priority), salted(), seen.clone());
                tokio::spawn(source.send(vec![uri.clone()], rate, times, stage));
            }
            seen
        }))
    }

    pub(crate) fn open(&self) -> usize {
        self.0.iter().map(|seen| seen.open()).sum()
    }
}

impl Told {
    pub(crate) fn add(&mut self, callers: &Callers, share: f64) {
        for (tally, seen) in self.0.iter_mut().zip(&callers.0) {
            tally.add(seen.take(), share);
        }
    }

    /// The calls of a class that began between two shares of the demo.
    fn between(&self, class: usize, stage: Stage, (from, to): (f64, f64)) -> Vec<super::traffic::Call> {
        let times = stage.at(from)..stage.at(to);
        self.0[class].calls.iter().filter(|call| times.contains(&call.began)).copied().collect()
    }

    pub(crate) fn read(&self, shed: &Shedder, stage: Stage) -> Reading {
        let seen = shed.snapshot();
        Reading {
            limit: seen.limit,
            in_flight: seen.in_flight,
            queued: seen.queued,
            good: array::from_fn(|class| good(&self.between(class, stage, (SCENE.0, 1.0)))),
        }
    }

    /// Whether it was held.
    pub(crate) fn verdict(&self, stage: Stage, protection: bool, after: f64, say: &mut impl FnMut(bool, String)) {
        let classes: [Vec<_>; 3] = array::from_fn(|class| self.between(class, stage, SCENE));
        let [critical, normal, sheddable] = classes.each_ref().map(|calls| good(calls).unwrap_or(0.0));
        let shares =
            format!("critical {}, normal {}, sheddable {}", percent(critical), percent(normal), percent(sheddable));
        if !protection {
            let text =
                format!("as expected without protection: in the overload of d all fared alike, good were {shares}");
            say(critical < UNPROTECTED, text);
            return;
        }
        let all: Vec<_> = classes.concat();
        say(
            critical >= CRITICAL && critical >= normal && normal > sheddable,
            format!(
                "overload of d: of {} calls good were {shares} (critical at least {})",
                all.len(),
                percent(CRITICAL)
            ),
        );
        let well: Vec<_> = all.iter().filter(|call| call.end == End::Good).copied().collect();
        let length = stage.length.mul_f64(SCENE.1 - SCENE.0).as_secs_f64();
        let could = WORKERS as f64 / WORK.as_secs_f64() * length;
        let p99 = quantile(&well, 0.99);
        say(
            well.len() as f64 >= GOODPUT * could && p99 <= BOUND,
            format!(
                "d did {} of the {could:.0} calls it could; p99 of good ones {} ms (at most {})",
                well.len(),
                p99.as_millis(),
                BOUND.as_millis()
            ),
        );
        let last: Vec<_> = (0..3).flat_map(|class| self.between(class, stage, (after, 1.0))).collect();
        let share = good(&last).unwrap_or(0.0);
        say(
            share >= CRITICAL,
            format!("after it {} of all calls to d were good, of whatever importance", percent(share)),
        );
    }
}

impl Reading {
    /// One line.
    pub(crate) fn say(&self) -> String {
        let share = |class: usize| self.good[class].map_or("-".to_owned(), percent);
        let Self { limit, in_flight, queued, .. } = self;
        format!(
            "d takes {in_flight} of {limit}, {queued} wait; good: critical {}, normal {}, sheddable {}",
            share(0),
            share(1),
            share(2)
        )
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self { limit: 120, in_flight: 120, queued: 1000, good: [Some(1.0), Some(0.876), None] }
    }
}
