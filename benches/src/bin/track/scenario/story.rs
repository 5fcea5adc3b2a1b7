//! A scenario as data: who calls how much, what happens to the upstream, and what is looked at.

use crate::setup::Setup;
use buttress_sim::world::{Bursts, Down, Load, Model, Upstream, World};
use std::{ops::Range, time::Duration};

/// What happens in one run.
#[derive(Clone, Debug)]
pub struct Story {
    pub workers: u32,
    pub contention: f64,
    /// From when on how much is offered, over the capacity in the beginning. The first is the beginning.
    pub load: Vec<(Duration, f64)>,
    pub bursts: Option<Bursts>,
    /// Sheddable, normal, critical.
    pub classes: [f64; 3],
    /// The first one may be noisy.
    pub tenants: Vec<f64>,
    /// How often a call is tried in all.
    pub attempts: u32,
    pub events: Vec<(Duration, Event)>,
    /// What is looked at.
    pub span: Range<Duration>,
    /// When something is wrong.
    pub fault: Range<Duration>,
    /// How long the queue is that the oracle lets come about.
    pub patience: Duration,
    /// Through how many gateways the load comes.
    pub gateways: u32,
    /// How far apart the wall clocks of the first and the last gateway are.
    pub skew: Duration,
    /// Three layers that retry, instead of what else a contestant has.
    pub storm: Option<Storm>,
    /// How much longer everything takes than it was written for.
    pub factor: f64,
    /// It takes less time than it should, for there would be too many calls.
    pub is_cut: bool,
}

/// What happens to the upstream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Workers(u32),
    /// Times the mean service time.
    Latency(f64),
    /// The share of calls that fail.
    Errors(f64),
    Down(Option<Down>),
}

/// Layers that retry in front of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// In processes of their own that know nothing of each other.
    Apart,
    /// In one process: each attempt is marked.
    Marked,
}

impl Event {
    pub fn happen(self, upstream: &Upstream) {
        match self {
            Self::Workers(workers) => upstream.set_workers(workers),
            Self::Latency(factor) => upstream.set_latency_factor(factor),
            Self::Errors(rate) => upstream.set_error_rate(rate),
            Self::Down(down) => upstream.set_down(down),
        }
    }
}

/// How much must be seen after a fault: as long as things have to stay well.
const RECOVERY: Duration = Duration::from_secs(2);

/// No more calls than this in one run: time is cut to it.
const MOST_CALLS: f64 = 2e6;

impl Story {
    /// The load of `setup` from the beginning to the end and nothing else. `seconds`: how long what is looked at takes where the
    /// mean service time is the default; `None`: as the setup says. `peak`: the greatest load that is to come.
    pub fn calm(setup: &Setup, seconds: Option<f64>, peak: f64) -> Self {
        let measured = seconds.map_or(setup.measured, Duration::from_secs_f64);
        let (fitted, factor) = Setup { measured, ..setup.clone() }.fit(peak, MOST_CALLS);
        let begin = fitted.warm_up;
        let end = begin + fitted.measured;
        Self {
            workers: setup.workers,
            contention: 0.0,
            load: vec![(Duration::ZERO, setup.load)],
            bursts: None,
            classes: [0.0, 1.0, 0.0],
            tenants: vec![1.0],
            attempts: 1,
            events: Vec::new(),
            span: begin..end,
            fault: begin..end,
            patience: setup.mean.mul_f64(0.5),
            gateways: 1,
            skew: Duration::ZERO,
            storm: None,
            factor,
            is_cut: factor < setup.stretch(),
        }
    }

    /// So many seconds, as they are written, after the warm-up.
    pub fn after(&self, seconds: f64) -> Duration {
        self.span.start + self.length(seconds)
    }

    /// So many seconds, as they are written.
    pub fn length(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.factor)
    }

    /// From the end of the warm-up on, so much is offered.
    pub fn step(mut self, load: f64) -> Self {
        self.load.push((self.span.start, load));
        self
    }

    /// Something begins with the end of the warm-up, and ends so many seconds later.
    pub fn spell(mut self, seconds: f64, begin: Event, end: Event) -> Self {
        self.fault = self.span.start..self.after(seconds);
        self.events = vec![(self.fault.start, begin), (self.fault.end, end)];
        self
    }

    /// A fifth of the calls is critical, the others are normal.
    ///
    /// At 2x the three classes of [`classes`](Self::classes) would bring the two upper ones to exactly what there is: there
    /// either the middle one waits or it is refused, and a goal for each contradicts the other (heavy traffic).
    pub fn two_classes(self) -> Self {
        Self { classes: [0.0, 0.8, 0.2], ..self }
    }

    /// Half of the calls are sheddable, a fifth is critical.
    pub fn classes(self) -> Self {
        Self { classes: [0.5, 0.3, 0.2], ..self }
    }

    pub fn attempts(self, attempts: u32) -> Self {
        Self { attempts, ..self }
    }

    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Calls a second that keep every worker busy.
    pub fn capacity(&self, setup: &Setup) -> f64 {
        f64::from(self.workers) / setup.mean.as_secs_f64()
    }

    /// Whether the upstream answers with errors or not at all, by itself: what a breaker is for.
    pub fn fails(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::Errors(_) | Event::Down(_)))
    }

    /// How long what is wrong lasts, where it ends before the span does.
    pub fn spell_length(&self) -> Option<Duration> {
        (self.fault.end != self.span.end).then(|| self.fault.end.saturating_sub(self.fault.start))
    }

    /// Why figures of it would say nothing. `recovers`: whether one of them is when it recovered.
    ///
    /// # Errors
    ///
    /// What is too short or does not happen, and what is allowed.
    pub fn check(&self, recovers: bool) -> Result<(), String> {
        let Some(fault) = self.spell_length() else { return Ok(()) };
        let loses = |(_, event): &(Duration, Event)| !matches!(event, Event::Workers(left) if *left >= self.workers);
        if self.load.len() == 1 && !self.events.iter().any(loses) {
            return Err(format!("with {} worker nothing would be lost; allowed: --c of 2 and more", self.workers));
        }
        let seen = self.span.end.saturating_sub(self.fault.end);
        let needed = if recovers { RECOVERY } else { Duration::ZERO };
        if self.fault.end <= self.span.end && seen >= needed {
            return Ok(());
        }
        let cut =
            if self.is_cut { ", and fewer workers or a longer --mean: a run is cut to 2 million calls" } else { "" };
        let of = |length: Duration| length.as_secs_f64();
        Err(format!(
            "what is wrong lasts {:.2} s, and {:.2} s are seen after it; allowed: --measured of the fault and {} s more{cut}",
            of(fault),
            of(seen),
            of(needed)
        ))
    }

    /// What is offered at the end, over capacity.
    pub fn last_load(&self) -> f64 {
        self.load.last().map_or(0.0, |(_, load)| *load)
    }

    /// The upstream, to which it all happens.
    pub fn upstream(&self, world: &World, setup: &Setup) -> Upstream {
        let model = Model::new(self.workers).mean(setup.mean).work(setup.work).contention(self.contention);
        let upstream = world.upstream(model);
        for (at, event) in self.events.iter().copied() {
            let upstream = upstream.clone();
            world.at(at, move || event.happen(&upstream));
        }
        upstream
    }

    /// What one gateway's clients do.
    pub fn clients(&self, setup: &Setup, attempts: u32, time_out: Duration) -> Load {
        let rate = |load: f64| load * self.capacity(setup) / f64::from(self.gateways);
        let first = self.load.first().map_or(0.0, |(_, load)| *load);
        let mut load = Load::new(rate(first)).time_out(time_out).attempts(attempts);
        load = load.classes(self.classes).tenants(self.tenants.clone()).until(self.span.end);
        if let Some(bursts) = self.bursts {
            load = load.bursts(bursts);
        }
        self.load.iter().skip(1).fold(load, |load, (at, over)| load.step(*at, rate(*over)))
    }
}
