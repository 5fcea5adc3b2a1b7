//! The toggle against a naive model, event by event: with numbers for moments and lists for windows.

use buttress_core::{Clock, Draw, Outcome, Settle, Signal, TokioClock};
use buttress_fallback::{Back, Switch, Toggle, ToggleConfig, TogglePermit, ToggleState};
use proptest::prelude::*;
use std::time::{Duration, Instant};

const AFTER: u64 = 50;
const OVER: u64 = 200;
const SUCCESSES: u32 = 2;
const MIN_CALLS: usize = 4;
const RATE: f64 = 0.5;
const SEED: u64 = 42;
/// Of the window: 1 s in ten of them.
const BUCKET: u64 = 100;

#[derive(Clone, Copy, Debug)]
struct Way {
    first_failure: bool,
    rated: bool,
    back: Back,
}

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Admit,
    Ask,
    /// The head of a call's answer.
    Head(usize),
    End(usize, Outcome),
    Set(Switch),
    /// Raised for so long; 0 clears it.
    Raise(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Success),
        3 => Just(Outcome::Failure),
        1 => Just(Outcome::Overload),
        1 => Just(Outcome::Ignored),
    ];
    prop_oneof![
        4 => (0..12u64).prop_map(|tens| Event::Pass(10 * tens)),
        8 => Just(Event::Admit),
        2 => Just(Event::Ask),
        1 => any::<usize>().prop_map(Event::Head),
        8 => (any::<usize>(), outcome).prop_map(|(call, outcome)| Event::End(call, outcome)),
        1 => prop_oneof![3 => Just(Switch::Auto), 1 => Just(Switch::On), 1 => Just(Switch::Off)].prop_map(Event::Set),
        1 => prop_oneof![Just(0), (1..30u64).prop_map(|tens| 10 * tens)].prop_map(Event::Raise),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    let ms = Duration::from_millis;
    let back = prop_oneof![
        1 => Just(Back::Manual),
        3 => Just(Back::Probe { after: ms(AFTER), successes: SUCCESSES }),
        3 => Just(Back::Ramp { after: ms(AFTER), over: ms(OVER) }),
    ];
    (any::<bool>(), any::<bool>(), back).prop_map(|(first_failure, rated, back)| Way { first_failure, rated, back })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    On,
    /// `None`: until an operator says otherwise.
    Off(Option<u64>),
    Probing {
        good: u32,
        out: Option<u64>,
    },
    Ramping(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ticket {
    Free,
    Counted { era: u64 },
    Probe { era: u64, holds: bool },
}

struct Model {
    way: Way,
    now: u64,
    switch: Switch,
    state: State,
    /// A number for each state but for a ramp and what it ends in.
    era: u64,
    /// The signal is raised until then.
    raised: u64,
    /// The bucket and the kind of every result.
    results: Vec<(u64, bool)>,
    first_bucket: u64,
    draw: Draw,
}

impl Model {
    fn go(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }

    fn off(&mut self, by_signal: bool) {
        let until = if by_signal { 0 } else { self.now + AFTER };
        self.go(State::Off((self.way.back != Back::Manual).then_some(until)));
    }

    fn forget(&mut self) {
        self.first_bucket = (self.now / BUCKET).max(self.first_bucket) + 1;
    }

    fn admit(&mut self, reports: bool) -> Option<Ticket> {
        match self.switch {
            Switch::On => return Some(Ticket::Free),
            Switch::Off => return None,
            Switch::Auto => {}
        }
        let raised = self.raised > self.now;
        let counted = Ticket::Counted { era: self.era };
        match self.state {
            State::On | State::Ramping(_) if raised => {
                self.off(true);
                None
            }
            State::On => Some(counted),
            State::Ramping(begun) if self.now - begun >= OVER => {
                self.state = State::On;
                Some(counted)
            }
            State::Ramping(begun) => {
                let drawn = (self.draw.draw() >> 11) as f64 / (1u64 << 53) as f64;
                (drawn * (OVER as f64) < (self.now - begun) as f64).then_some(counted)
            }
            State::Off(until) if raised || until.is_none_or(|until| self.now < until) => None,
            State::Off(_) => {
                self.forget();
                let ramps = matches!(self.way.back, Back::Ramp { .. });
                self.go(if ramps { State::Ramping(self.now) } else { State::Probing { good: 0, out: None } });
                self.admit(reports)
            }
            State::Probing { out: Some(began), .. } => {
                if self.now - began >= AFTER {
                    self.off(false);
                }
                None
            }
            State::Probing { .. } if raised || !reports => None,
            State::Probing { good, out: None } => {
                self.state = State::Probing { good, out: Some(self.now) };
                Some(Ticket::Probe { era: self.era, holds: true })
            }
        }
    }

    fn head(&mut self, ticket: &mut Ticket) {
        if let (Ticket::Probe { era, holds }, State::Probing { good, .. }) = (ticket, self.state)
            && std::mem::take(holds)
            && *era == self.era
        {
            self.state = State::Probing { good, out: None };
        }
    }

    fn end(&mut self, ticket: Ticket, outcome: Outcome) {
        match (ticket, self.state) {
            (Ticket::Counted { era }, _) if era == self.era => self.count(outcome),
            (Ticket::Probe { era, holds }, State::Probing { good, out }) if era == self.era => {
                let out = out.filter(|_| !holds);
                match outcome {
                    Outcome::Success if good + 1 == SUCCESSES => {
                        self.forget();
                        self.go(State::On);
                    }
                    Outcome::Success => self.state = State::Probing { good: good + 1, out },
                    Outcome::Ignored => self.state = State::Probing { good, out },
                    _ => self.off(false),
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, outcome: Outcome) {
        let failed = match outcome {
            Outcome::Success => false,
            Outcome::Failure => true,
            _ => return,
        };
        let bucket = (self.now / BUCKET).max(self.first_bucket);
        self.results.push((bucket, failed));
        let counted = |results: &[(u64, bool)], only_failed: bool| {
            let in_window = |(b, f): &&(u64, bool)| *b >= self.first_bucket && b + 10 > bucket && (*f || !only_failed);
            results.iter().filter(in_window).count()
        };
        let (total, failures) = (counted(&self.results, false), counted(&self.results, true));
        let too_many = self.way.rated && total >= MIN_CALLS && failures as f64 >= RATE * total as f64;
        if failed && (self.way.first_failure || too_many) {
            self.off(false);
        }
    }

    fn shown(&self) -> ToggleState {
        match (self.switch, self.state) {
            (Switch::On, _) | (Switch::Auto, State::On) => ToggleState::On,
            (Switch::Off, _) | (_, State::Off(_)) => ToggleState::Off,
            (_, State::Probing { .. }) => ToggleState::Probing,
            (_, State::Ramping(_)) => ToggleState::Ramping,
        }
    }
}

/// A finished call counts where and when the clock says.
fn admit(toggle: &Toggle, clock: &Instant) -> Option<TogglePermit> {
    let mut permit = toggle.admit_at(clock)?;
    permit.pending();
    Some(permit)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(way in way(), events in prop::collection::vec(event(), 1..120)) {
        let start = TokioClock.now();
        let at = |now: u64| start + Duration::from_millis(now);
        let signal = Signal::new(start);
        let toggle = ToggleConfig::new("feature")
            .first_failure(way.first_failure)
            .failure_rate(way.rated.then_some(RATE))
            .window(Duration::from_millis(10 * BUCKET))
            .min_calls(MIN_CALLS as u32)
            .back(way.back)
            .seed(SEED)
            .signal(signal.clone())
            .build_at(&start)
            .unwrap();
        let mut model = Model {
            way,
            now: 0,
            switch: Switch::Auto,
            state: State::On,
            era: 0,
            raised: 0,
            results: Vec::new(),
            first_bucket: 0,
            draw: Draw::new(SEED),
        };
        let mut calls = Vec::new();
        for event in events {
            let now = at(model.now);
            match event {
                Event::Pass(millis) => model.now += millis,
                Event::Admit => {
                    let (ours, theirs) = (admit(&toggle, &now), model.admit(true));
                    prop_assert_eq!(ours.is_some(), theirs.is_some());
                    calls.extend(ours.zip(theirs));
                }
                Event::Ask => prop_assert_eq!(toggle.is_on_at(&now), model.admit(false).is_some()),
                Event::Head(_) | Event::End(..) if calls.is_empty() => {}
                Event::Head(n) => {
                    let n = n % calls.len();
                    let (permit, ticket) = &mut calls[n];
                    permit.head();
                    model.head(ticket);
                }
                Event::End(n, outcome) => {
                    let (mut permit, ticket) = calls.swap_remove(n % calls.len());
                    permit.conclude_at(outcome, &now);
                    model.end(ticket, outcome);
                }
                Event::Set(switch) => {
                    toggle.set_at(switch, &now);
                    model.forget();
                    model.go(State::On);
                    model.switch = switch;
                }
                Event::Raise(0) => {
                    signal.clear(Signal::OPEN);
                    model.raised = 0;
                }
                Event::Raise(millis) => {
                    model.raised = model.now + millis;
                    signal.raise(Signal::OPEN, Some(at(model.raised)));
                }
            }
            let seen = toggle.snapshot_at(&at(model.now));
            prop_assert_eq!(seen.state, model.shown());
            prop_assert_eq!(seen.probe_out, matches!(model.state, State::Probing { out: Some(_), .. }));
        }
    }
}
