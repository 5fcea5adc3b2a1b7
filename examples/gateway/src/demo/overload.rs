//! The overload: three times what cluster `d` can do comes in, of every importance.

use super::{
    script::Stage,
    tally::{Tally, good, quantile},
    traffic::{Call, Caller, End, PATIENCE, Seen, Source},
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
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, sleep},
};

/// When it comes.
pub(crate) const SCENE: (f64, f64) = (0.74, 0.89);
/// Calls that the one endpoint works on at once; all others wait there, and are worked on though their callers have gone.
const WORKERS: usize = 4;
const WORK: Duration = Duration::from_millis(40);
/// Who calls, how often a second at any time, and how often more in the scene: three times what the endpoint can do in all.
const CLASSES: [(Priority, f64, f64); 3] =
    [(Priority::Critical, 10.0, 20.0), (Priority::Normal, 10.0, 80.0), (Priority::Sheddable, 10.0, 170.0)];

/// What is promised to critical calls.
const CRITICAL: f64 = 0.99;
/// What the endpoint is to do of what it can.
const GOODPUT: f64 = 0.7;
/// How long good answers may take.
const BOUND: Duration = Duration::from_millis(1500);
/// Who has no answer for so long counts as one who has got none, or nobody would be unhappy before the first gives up.
pub(crate) const LONG: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 / 3);
/// Without protection critical calls fare as all others do, and most wait in vain.
const UNPROTECTED: f64 = 0.8;

/// Calls by importance, the most important first.
pub(crate) struct Callers([Arc<Seen>; 3]);

/// What became of them.
#[derive(Default)]
pub(crate) struct Told {
    ended: [Tally; 3],
    /// When each began, ended or not.
    begun: [Vec<Instant>; 3],
}

/// The cluster at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// None without protection.
    limit: Option<u32>,
    in_flight: u32,
    queued: u32,
    /// The share of good calls of each class since the scene began; who has waited for [`LONG`] has had none.
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
        for (class, seen) in callers.0.iter().enumerate() {
            // In this order: whoever ended had begun.
            self.ended[class].add(seen.take(), share);
            self.begun[class].extend(seen.take_begun());
        }
    }

    /// The calls of a class that began between two shares of the demo.
    fn between(&self, class: usize, stage: Stage, (from, to): (f64, f64)) -> Vec<Call> {
        let times = stage.at(from)..stage.at(to);
        self.ended[class].calls.iter().filter(|call| times.contains(&call.began)).copied().collect()
    }

    pub(crate) fn read(&self, shed: &Shedder, stage: Stage, protection: bool, now: Instant) -> Reading {
        let seen = shed.snapshot();
        Reading {
            limit: protection.then_some(seen.limit),
            in_flight: seen.in_flight,
            queued: seen.queued,
            good: array::from_fn(|class| self.good_so_far(class, stage.at(SCENE.0), now)),
        }
    }

    fn good_so_far(&self, class: usize, since: Instant, now: Instant) -> Option<f64> {
        let ended: Vec<_> = self.ended[class].calls.iter().filter(|call| call.began >= since).collect();
        let is_old = |began: Instant| began >= since && now.saturating_duration_since(began) >= LONG;
        let begun = self.begun[class].iter().filter(|began| is_old(**began)).count();
        let waiting = begun - ended.iter().filter(|call| is_old(call.began)).count();
        let share = ended.len() as f64 / (ended.len() + waiting) as f64;
        match good(ended) {
            Some(good) => Some(good * share),
            None => (waiting > 0).then_some(0.0),
        }
    }

    /// Good calls that ended in the scene.
    fn ended_well(&self, stage: Stage) -> usize {
        let times = stage.at(SCENE.0)..stage.at(SCENE.1);
        let calls = self.ended.iter().flat_map(|tally| &tally.calls);
        calls.filter(|call| call.end == End::Good && times.contains(&(call.began + call.latency))).count()
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
        let p99 = quantile(&well, 0.99);
        // Those that end in the scene, whenever they began: what waits at its end is done after it. Each worker may end a call right
        // at its beginning.
        let length = stage.length.mul_f64(SCENE.1 - SCENE.0).as_secs_f64();
        let most = WORKERS as f64 * (length / WORK.as_secs_f64() + 1.0);
        let done = self.ended_well(stage);
        say(
            done as f64 >= GOODPUT * most && p99 <= BOUND,
            format!(
                "d gave {done} good answers in that time, and can give {most:.0}; p99 of good ones {} ms (at most {})",
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
    /// In whole words.
    pub(crate) fn say(&self) -> String {
        let Self { in_flight, queued, .. } = self;
        let [critical, normal, sheddable] = self.good.map(|good| good.map_or("-".to_owned(), percent));
        let load = match self.limit {
            Some(limit) => format!("{in_flight} in flight of a limit of {limit}, {queued} waiting"),
            None => format!("{in_flight} in flight, no limit"),
        };
        format!("d: {load}; good so far: critical {critical}, normal {normal}, sheddable {sheddable}")
    }

    /// One line of a screen.
    pub(crate) fn line(&self) -> String {
        let Self { in_flight, queued, .. } = self;
        let good = |share: f64| format!("{:.0}", (share * 100.0).floor());
        let [critical, normal, sheddable] = self.good.map(|share| share.map_or("-".to_owned(), good));
        let load = match self.limit {
            Some(limit) => format!("{in_flight} of {limit} in flight, {queued} wait"),
            None => format!("{in_flight} in flight, no limit"),
        };
        format!("d: {load}; good %: critical {critical}, normal {normal}, sheddable {sheddable}")
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self { limit: Some(120), in_flight: 120, queued: 999, good: [Some(1.0), Some(0.876), Some(0.999)] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of a class that began so many milliseconds after the scene, and how they ended and when, if they did.
    fn told(stage: Stage, calls: &[(u64, Option<(End, u64)>)]) -> Told {
        let mut told = Told::default();
        for &(began, ended) in calls {
            let began = stage.at(SCENE.0) + Duration::from_millis(began);
            told.begun[0].push(began);
            let call =
                ended.map(|(end, latency)| Call { began, latency: Duration::from_millis(latency), once: false, end });
            told.ended[0].add(call.into_iter().collect(), 0.0);
        }
        told
    }

    fn stage() -> Stage {
        Stage { start: Instant::now(), length: Duration::from_secs(20) }
    }

    #[test]
    fn who_has_waited_for_long_has_had_no_good_answer_yet() {
        let stage = stage();
        let since = stage.at(SCENE.0);
        let told =
            told(stage, &[(0, Some((End::Good, 10))), (100, None), (200, Some((End::Hung, 2000))), (1000, None)]);
        let good = |millis| told.good_so_far(0, since, since + Duration::from_millis(millis));
        assert_eq!(good(100), Some(0.5), "the first that waits has not waited for long");
        assert_eq!(good(800), Some(1.0 / 3.0));
        assert_eq!(good(1700), Some(0.25));
        assert_eq!(told.good_so_far(1, since, since), None, "nobody called");
    }

    #[test]
    fn an_endpoint_has_done_what_ended_in_the_scene_and_not_what_it_did_afterwards() {
        let stage = stage();
        let length = stage.length.mul_f64(SCENE.1 - SCENE.0).as_millis() as u64;
        let good = |latency| Some((End::Good, latency));
        let told = told(
            stage,
            &[(0, good(50)), (length - 100, good(50)), (length - 100, good(150)), (0, Some((End::Refused, 1)))],
        );
        assert_eq!(told.ended_well(stage), 2);
    }

    #[test]
    fn a_reading_says_what_its_numbers_are() {
        let reading = Reading::sample();
        let said = "d: 120 in flight of a limit of 120, 999 waiting; good so far: critical 100.0 %, normal 87.6 %, sheddable 99.9 %";
        assert_eq!(reading.say(), said);
        assert_eq!(reading.line(), "d: 120 of 120 in flight, 999 wait; good %: critical 100, normal 87, sheddable 99");
        let unprotected = Reading { limit: None, good: [None; 3], ..reading };
        assert_eq!(unprotected.say(), "d: 120 in flight, no limit; good so far: critical -, normal -, sheddable -");
    }
}
