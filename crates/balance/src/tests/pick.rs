use super::*;
use crate::{
    load::Sample,
    now::Now,
    pick::{Avoid, Picked, Roster},
};
use buttress_core::{Draw, Tried};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

struct Rig {
    roster: Roster,
    signals: Vec<Signal>,
    tuning: Arc<Tuning>,
    draw: Draw,
    now: Instant,
}

impl Rig {
    fn new(endpoints: usize) -> Self {
        let now = TokioClock.now();
        let tuning = Arc::new(Tuning::new(Origin::new(now), &BalanceConfig::default()));
        let signals: Vec<_> = (0..endpoints).map(|_| signal(now)).collect();
        let nodes = signals.iter().map(|signal| node("", std::slice::from_ref(signal), &tuning)).collect();
        Self { roster: Roster { nodes }, signals, tuning, draw: Draw::new(1), now }
    }

    fn pick(&self, avoid: Avoid<'_>) -> Picked {
        let now = Now::new(self.now, self.tuning.origin, self.tuning.origin.nanos(self.now));
        self.roster.pick(&self.draw, &now, &self.tuning, avoid)
    }

    fn counts(&self, picks: usize, avoid: Avoid<'_>) -> Vec<usize> {
        let mut counts = vec![0; self.signals.len()];
        for _ in 0..picks {
            let Picked::Node(place) = self.pick(avoid) else { panic!("nobody") };
            counts[place] += 1;
        }
        counts
    }

    fn open(&self, place: usize, millis: u64) {
        self.signals[place].raise(Signal::OPEN, Some(self.now + ms(millis)));
    }

    fn ids(&self) -> Vec<u32> {
        self.roster.nodes.iter().map(|node| node.id).collect()
    }
}

#[test]
fn equal_endpoints_get_equal_shares_however_many_there_are() {
    for endpoints in [1, 2, 3, 4, 5, 10, 100] {
        let counts = Rig::new(endpoints).counts(1_000 * endpoints, Avoid::default());
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}

#[test]
fn the_less_loaded_of_two_is_taken_always_and_the_busiest_never() {
    let rig = Rig::new(2);
    rig.roster.nodes[0].load.sample(0, 0, 20 * MILLI, Sample::Success, &rig.tuning);
    rig.roster.nodes[1].load.sample(0, 0, 10 * MILLI, Sample::Success, &rig.tuning);
    assert_eq!(rig.counts(1000, Avoid::default()), [0, 1000]);
    // 10 ms x 3 is more than 20 ms x 1.
    rig.roster.nodes[1].load.enter();
    rig.roster.nodes[1].load.enter();
    assert_eq!(rig.counts(1000, Avoid::default()), [1000, 0]);
    let rig = Rig::new(10);
    for (place, node) in rig.roster.nodes.iter().enumerate() {
        node.load.sample(0, 0, MILLI << place, Sample::Success, &rig.tuning);
    }
    let counts = rig.counts(9_000, Avoid::default());
    assert_eq!(counts[9], 0);
    // The best of ten is in two of ten pairs, the next one loses one of its nine.
    assert!((1_650..1_950).contains(&counts[0]) && (1_450..1_750).contains(&counts[1]), "{counts:?}");
}

#[test]
fn endpoints_that_are_about_as_good_share_the_calls_of_a_quiet_client() {
    let rig = Rig::new(2);
    rig.roster.nodes[0].load.sample(0, 0, 10 * MILLI, Sample::Success, &rig.tuning);
    rig.roster.nodes[1].load.sample(0, 0, 14 * MILLI, Sample::Success, &rig.tuning);
    assert!(rig.counts(1000, Avoid::default()).iter().all(|count| *count > 400));
    rig.roster.nodes[1].load.enter();
    assert_eq!(rig.counts(1000, Avoid::default()), [1000, 0], "it is busy");
}

#[test]
fn all_shut_the_refusal_knows_the_first_probe_and_the_last_signal_of_each_decides() {
    let rig = Rig::new(3);
    (0..3).for_each(|place| rig.open(place, 5_000 - 1_000 * place as u64));
    assert_eq!(rig.pick(Avoid::default()), Picked::Shut(Some(rig.now + ms(3_000))));
    let both = [signal(rig.now), signal(rig.now)];
    both[0].raise(Signal::OPEN, Some(rig.now + ms(10)));
    both[1].raise(Signal::EJECTED, Some(rig.now + ms(700)));
    let roster = Roster { nodes: [node("", &both, &rig.tuning)].into() };
    let rig = Rig { roster, ..rig };
    assert_eq!(rig.pick(Avoid::default()), Picked::Shut(Some(rig.now + ms(700))));
    assert!(matches!(rig.pick(Avoid { force: true, ..Avoid::default() }), Picked::Node(0)));
}

#[test]
fn a_circuit_whose_time_has_come_gets_one_probe_at_once_whatever_it_cost_before() {
    let mut rig = Rig::new(2);
    for _ in 0..3 {
        rig.roster.nodes[0].load.sample(0, 0, 0, Sample::Failure, &rig.tuning);
    }
    rig.roster.nodes[1].load.sample(0, 0, MILLI, Sample::Success, &rig.tuning);
    rig.open(0, 1_000);
    assert_eq!(rig.counts(100, Avoid::default()), [0, 100]);
    rig.now += ms(1_000);
    assert_eq!(rig.counts(100, Avoid::default()), [100, 0]);
    rig.roster.nodes[0].load.enter();
    assert_eq!(rig.counts(100, Avoid::default()), [0, 100], "its probe is on its way");
}

#[test]
fn a_circuit_that_is_forced_open_never_looks_due() {
    let mut rig = Rig::new(2);
    rig.signals[0].raise(Signal::OPEN, None);
    rig.now += Duration::from_secs(86_400);
    assert_eq!(rig.counts(100, Avoid::default()), [0, 100]);
}

#[test]
fn the_clock_is_read_by_one_pick_in_sixteen_and_where_a_signal_is_raised() {
    struct Counted(AtomicU32, Instant);
    impl Clock for &Counted {
        fn now(&self) -> Instant {
            self.0.fetch_add(1, Relaxed);
            self.1
        }
    }
    let rig = Rig::new(10);
    let clock = Counted(0.into(), rig.now);
    let picks = |count: u32| {
        let before = clock.0.load(Relaxed);
        for _ in 0..count {
            rig.roster.pick(&rig.draw, &Now::new(&clock, rig.tuning.origin, 0), &rig.tuning, Avoid::default());
        }
        clock.0.load(Relaxed) - before
    };
    let reads = picks(16_000);
    assert!((850..1150).contains(&reads), "{reads}");
    (0..10).for_each(|place| rig.open(place, 1_000));
    assert_eq!(picks(100), 100, "once each, however many are open");
}

#[test]
fn endpoints_in_turn_is_every_one_as_often_also_those_that_are_shut() {
    let rig = Rig::new(3);
    rig.open(1, 1_000);
    rig.roster.nodes[2].load.enter();
    let turns = (0..6).map(|turn| rig.pick(Avoid { turn: Some(turn), ..Avoid::default() }));
    assert_eq!(turns.collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2].map(Picked::Node));
}

#[test]
fn draws_with_one_seed_are_the_same() {
    let picks = |seed| {
        let rig = Rig { draw: Draw::new(seed), ..Rig::new(20) };
        (0..100).map(|_| rig.pick(Avoid::default())).collect::<Vec<_>>()
    };
    assert_eq!(picks(5), picks(5));
    assert_ne!(picks(5), picks(6));
}

#[test]
fn a_failing_endpoint_gets_no_calls_however_busy_the_others_are_and_one_after_a_rest() {
    let mut rig = Rig::new(3);
    for node in &rig.roster.nodes[1..] {
        node.load.sample(0, 0, 5 * SECOND, Sample::Success, &rig.tuning);
        (0..1_000).for_each(|_| node.load.enter());
    }
    (0..3).for_each(|_| rig.roster.nodes[0].load.sample(0, 0, MILLI, Sample::Failure, &rig.tuning));
    assert_eq!(rig.counts(100, Avoid::default())[0], 0);
    rig.now += ms(1_000);
    assert_eq!(rig.counts(100, Avoid::default())[0], 1);
    // All of them fail: then by load.
    for node in &rig.roster.nodes[1..] {
        let now = rig.tuning.origin.nanos(rig.now);
        (0..3).for_each(|_| node.load.sample(now, now, MILLI, Sample::Failure, &rig.tuning));
    }
    assert!(rig.counts(900, Avoid::default())[0] > 400);
}

#[test]
fn a_due_circuit_gets_its_probe_though_old_streams_are_in_flight() {
    let mut rig = Rig::new(2);
    (0..100).for_each(|_| rig.roster.nodes[0].load.enter());
    (0..3).for_each(|_| rig.roster.nodes[0].load.sample(0, 0, MILLI, Sample::Failure, &rig.tuning));
    rig.roster.nodes[1].load.sample(0, 0, MILLI, Sample::Success, &rig.tuning);
    rig.open(0, 1_000);
    rig.now += ms(1_001);
    assert_eq!(rig.counts(100, Avoid::default()), [1, 99]);
}

/// What one endpoint is, as seen by a call.
type Seen = (bool, bool, bool, u8);

proptest! {
    /// Each endpoint is shut, failing, tried, waited for, failed, or nothing of that.
    #[test]
    fn who_may_be_picked_is_what_a_naive_list_says(
        states in proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>(), 0..3u8), 0..12),
        (swept, impatient) in (any::<bool>(), any::<bool>()),
    ) {
        let rig = Rig::new(states.len());
        let (mut tried, ids) = (Tried::new(), rig.ids());
        let (mut waiting, mut failed) = (Vec::new(), Vec::new());
        for (place, (shut, fails, was_tried, asked)) in states.iter().enumerate() {
            if *shut {
                rig.open(place, 1_000 + place as u64);
            }
            if *fails {
                (0..3).for_each(|_| rig.roster.nodes[place].load.sample(0, 0, 0, Sample::Failure, &rig.tuning));
            }
            if *was_tried {
                tried.pick(ids[place], true);
                tried.turn();
            }
            match asked {
                1 => waiting.push(ids[place]),
                2 => failed.push(ids[place]),
                _ => {}
            }
        }
        let list = |is: &dyn Fn(&Seen) -> bool| -> Vec<usize> {
            (0..states.len()).filter(|place| is(&states[*place])).collect()
        };
        // From the best choice on: those that were not asked, and those that are waited for.
        let choices = [(false, false), (false, true), (true, false), (true, true)];
        let free = choices.map(|(fails, tried)| list(&|seen| *seen == (false, fails, tried, 0)));
        let waits = choices.map(|(fails, tried)| !list(&|seen| *seen == (false, fails, tried, 1)).is_empty());
        // Who is waited for rather than go to the next choice.
        let stops = [waits[0] && !swept, (waits[0] || waits[1] || swept && !free[0].is_empty()) && !impatient, false, false];
        let mut want = Vec::new();
        for choice in 0..4 {
            if !free[choice].is_empty() && (choice > 0 || !swept) {
                want = free[choice].clone();
                break;
            }
            if stops[choice] {
                break;
            }
        }
        let avoid = Avoid { tried: Some(&tried), waiting: &waiting, failed: &failed, swept, impatient, ..Avoid::default() };
        for _ in 0..50 {
            match rig.pick(avoid) {
                Picked::Node(place) => prop_assert!(want.contains(&place), "{place} of {want:?}"),
                Picked::Wait => prop_assert!(want.is_empty() && (waits.contains(&true) || !free[0].is_empty())),
                other => {
                    prop_assert!(want.is_empty() && !waits.contains(&true) && free.iter().all(Vec::is_empty));
                    let has_failed = !list(&|seen| !seen.0 && seen.3 == 2).is_empty();
                    let first = states.iter().position(|(shut, ..)| *shut);
                    let until = first.map(|place| rig.now + ms(1_000 + place as u64));
                    prop_assert_eq!(other, match states.len() {
                        0 => Picked::Empty,
                        _ if has_failed => Picked::Failed,
                        _ => Picked::Shut(until),
                    });
                }
            }
        }
    }
}
