use super::{Call, CallRecord, End, Reply, World, lock, nanos, random::Stream};
use buttress_core::{ChainError, Deadline, Priority};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use tower::ServiceExt;
use tower_service::Service;

/// Clients that come in their own time, whether or not those before them were served (an open loop), as a Poisson process.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Load {
    /// Calls a second, in the beginning.
    pub rate: f64,
    /// From when on there are how many.
    pub steps: Vec<(Duration, f64)>,
    /// Bursts on top of that.
    pub bursts: Option<Bursts>,
    /// How long a client waits for each attempt. Default: 500 ms.
    pub time_out: Duration,
    /// How often a client tries in all, at once and without asking anybody: what a naive client does. Default: 1.
    pub attempts: u32,
    /// How many of the calls are sheddable, normal and critical, as weights. Default: all are normal.
    pub classes: [f64; 3],
    /// How many of the calls are whose, as weights. Default: all are of tenant 0.
    pub tenants: Vec<f64>,
    /// When the last one comes. Default: never.
    pub until: Option<Duration>,
}

/// Spells in which more calls come, the first one at the world's beginning.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Bursts {
    /// From the beginning of one to that of the next.
    pub every: Duration,
    /// How long one lasts: shorter than that.
    pub length: Duration,
    /// How many times as many calls come then.
    pub factor: f64,
}

impl Bursts {
    /// Each time `every` has passed, for `length`, `factor` times as many calls.
    pub fn new(every: Duration, length: Duration, factor: f64) -> Self {
        Self { every, length, factor }
    }
}

const CLASSES: [Priority; 3] = [Priority::Sheddable, Priority::Normal, Priority::Critical];

impl Load {
    /// So many calls a second.
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            steps: Vec::new(),
            bursts: None,
            time_out: Duration::from_millis(500),
            attempts: 1,
            classes: [0.0, 1.0, 0.0],
            tenants: vec![1.0],
            until: None,
        }
    }

    /// From `at` on there are `rate` calls a second.
    #[must_use]
    pub fn step(mut self, at: Duration, rate: f64) -> Self {
        self.steps.push((at, rate));
        self.steps.sort_by_key(|(at, _)| *at);
        self
    }

    buttress_core::setters! {
        /// Sets [`bursts`](Self#structfield.bursts).
        bursts: Bursts => Some(bursts);
        /// Sets [`time_out`](Self#structfield.time_out).
        time_out: Duration => time_out;
        /// Sets [`attempts`](Self#structfield.attempts).
        attempts: u32 => attempts;
        /// Sets [`classes`](Self#structfield.classes).
        classes: [f64; 3] => classes;
        /// Sets [`tenants`](Self#structfield.tenants).
        tenants: Vec<f64> => tenants;
        /// Sets [`until`](Self#structfield.until).
        until: Duration => Some(until);
    }

    fn check(&self) {
        let is_amount = |value: f64| value.is_finite() && value >= 0.0;
        let are_weights = |weights: &[f64]| {
            weights.iter().copied().all(is_amount) && (f64::MIN_POSITIVE..f64::INFINITY).contains(&weights.iter().sum())
        };
        for rate in [self.rate].into_iter().chain(self.steps.iter().map(|(_, rate)| *rate)) {
            assert!(is_amount(rate), "a load's rate is finite and not negative, in calls a second: {rate}");
        }
        if let Some(Bursts { every, length, factor }) = self.bursts {
            assert!(length < every, "a burst's length is less than what lies between two: {length:?} every {every:?}");
            assert!(is_amount(factor), "a burst's factor is finite and not negative: {factor}");
        }
        assert!(are_weights(&self.classes), "weights of classes are not negative, and not all 0: {:?}", self.classes);
        assert!(are_weights(&self.tenants), "weights of tenants are not negative, and not all 0: {:?}", self.tenants);
    }

    /// The rate at a moment, and until when it is that.
    fn rate_at(&self, now: u64) -> (f64, u64) {
        let step = self.steps.iter().rev().find(|(at, _)| nanos(*at) <= now);
        let mut rate = step.map_or(self.rate, |(_, rate)| *rate);
        let mut end = self.steps.iter().map(|(at, _)| nanos(*at)).find(|at| *at > now).unwrap_or(u64::MAX);
        if let Some(Bursts { every, length, factor }) = self.bursts {
            let (every, length) = (nanos(every), nanos(length));
            let into = now % every;
            if into < length {
                rate *= factor;
                end = end.min(now - into + length);
            } else {
                end = end.min(now - into + every);
            }
        }
        (rate, end)
    }

    /// When something is next after `now`, and whether it is a call: else it is another rate, at which to ask again. The end of time
    /// if nothing is.
    fn next(&self, now: u64, draws: &Stream) -> (u64, bool) {
        let (rate, end) = self.rate_at(now);
        // Without memory: a gap that reaches into another rate is drawn anew from there.
        let gap = if rate > 0.0 { draws.exponential() / rate * 1e9 } else { f64::INFINITY };
        if now as f64 + gap < end as f64 { (now.saturating_add(gap as u64), true) } else { (end, false) }
    }
}

impl World {
    /// Lets clients call `service` from now on. Each call has a clone of it.
    ///
    /// Of several loads of one world each has arrivals of its own, in the order in which they were given.
    ///
    /// # Panics
    ///
    /// If a rate, a factor or a weight is negative, infinite or not a number, if all weights of classes or tenants are 0, if bursts
    /// last as long as what lies between them.
    pub fn load<S>(&self, load: Load, service: S)
    where
        S: Service<Call, Response = Reply> + Clone + Send + Sync + 'static,
        S::Error: ChainError + Send,
        S::Future: Send,
    {
        load.check();
        let number = self.0.loads.fetch_add(1, Relaxed);
        let stream = |purpose: &str| Stream::new(self.0.seed ^ u64::from(number) << 48, purpose);
        let (arrivals, classes, tenants) = (stream("arrivals"), stream("classes"), stream("tenants"));
        let world = self.clone();
        let load = Arc::new(load);
        self.spawn(async move {
            let mut at = nanos(world.now());
            let until = load.until.map_or(u64::MAX, nanos);
            loop {
                let (next, is_call) = load.next(at, &arrivals);
                if next >= until {
                    return;
                }
                at = next;
                // Also until a change of rate: a world that stops before looks no further.
                world.0.kernel.sleep_until(at).await;
                if !is_call {
                    continue;
                }
                let priority = CLASSES[classes.pick(&load.classes)];
                let tenant = tenants.pick(&load.tenants) as u32;
                world.spawn(client(world.clone(), load.clone(), service.clone(), priority, tenant, number));
            }
        });
    }
}

/// One client.
async fn client<S>(world: World, load: Arc<Load>, service: S, priority: Priority, tenant: u32, number: u32)
where
    S: Service<Call, Response = Reply> + Clone,
    S::Error: ChainError,
{
    let arrived = nanos(world.now());
    let sent = Arc::new(AtomicU32::new(0));
    let id = {
        let mut records = lock(&world.0.records);
        let id = records.len() as u64;
        records.push(CallRecord { arrived, priority, tenant, load: number, ..CallRecord::default() });
        id
    };
    let mut end = End::TimedOut;
    let mut work = 0;
    for attempt in 0..load.attempts.max(1) {
        // Who waits for ever waits until the end of time.
        let at = world.now().saturating_add(load.time_out);
        let call = Call {
            id,
            arrived: world.instant(Duration::from_nanos(arrived)),
            deadline: Deadline::new(world.instant(at)),
            priority,
            tenant,
            attempt,
            sent: sent.clone(),
        };
        let answer = tokio::select! {
            biased;
            answer = service.clone().oneshot(call) => Some(answer),
            () = world.sleep_until(at) => None,
        };
        end = match answer {
            Some(Ok(reply)) => {
                work = nanos(reply.work);
                End::Good
            }
            Some(Err(error)) => error.rejection().map_or(End::Failed, |refused| End::Refused(refused.reason)),
            None => End::TimedOut,
        };
        if end == End::Good {
            break;
        }
    }
    let ended = nanos(world.now());
    let record = &mut lock(&world.0.records)[id as usize];
    *record = CallRecord { ended, end, work, sent: sent.load(Relaxed), ..*record };
}
