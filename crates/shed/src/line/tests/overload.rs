//! Simulated overload: fairness and reserve are properties of many grants.

use super::*;
use buttress_core::Draw;
use std::{cmp::Reverse, collections::BinaryHeap};

const SECOND: u64 = 1000 * MS;

/// A stream of calls: Poisson, so many a second.
struct Stream {
    ask: Ask,
    rate: f64,
}

/// Runs `streams` against 20 workers of 10 ms on average (exponential) for so many seconds: which share of each was served.
fn served(rules: Rules, streams: &[Stream], seconds: u64, seed: u64) -> Vec<f64> {
    const DEADLINE: u64 = 500 * MS;
    let draw = Draw::new(seed);
    let exponential = |mean: f64| {
        let uniform = ((draw.draw() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        (-uniform.ln() * mean) as u64 + 1
    };
    let mut line = Line::new(rules);
    let mut out = Vec::new();
    // The event of a stream is its next arrival; others are the ends of calls.
    let mut events: BinaryHeap<_> = streams
        .iter()
        .enumerate()
        .map(|(index, stream)| Reverse((exponential(SECOND as f64 / stream.rate), index)))
        .collect();
    let mut free = 20;
    let mut counts = vec![(0u64, 0u64); streams.len()];
    while let Some(Reverse((now, index))) = events.pop() {
        if now > seconds * SECOND {
            break;
        }
        // The first second is for the line to find its mode.
        let counted = now > SECOND;
        if let Some(stream) = streams.get(index) {
            events.push(Reverse((now + exponential(SECOND as f64 / stream.rate), index)));
            counts[index].0 += u64::from(counted);
            if free > 0 {
                free -= 1;
                counts[index].1 += u64::from(counted);
                events.push(Reverse((now + exponential(10.0 * MS as f64), usize::MAX)));
            } else {
                let ask = Ask { deadline: Some(now + DEADLINE), ..stream.ask };
                let _ = line.push(ask, now, Some(MS / 2), 10 * MS, || index, &mut out);
            }
        } else {
            free += 1;
            if line.peek(now, 10 * MS, &mut out).is_some() {
                let index = line.pop().expect("it was shown");
                free -= 1;
                counts[index].1 += u64::from(counted);
                events.push(Reverse((now + exponential(10.0 * MS as f64), usize::MAX)));
            }
        }
        out.clear();
    }
    counts.iter().map(|&(offered, served)| served as f64 / offered as f64).collect()
}

/// Ten tenants, of whom the first sends ten times what each other does; in all `load` of what can be served.
fn noisy(load: f64, max: u32, seed: u64) -> (f64, f64) {
    let share = load * 2000.0 / 19.0;
    let streams: Vec<_> = (0..10)
        .map(|tenant| Stream { ask: normal(tenant + 100), rate: if tenant == 0 { 10.0 * share } else { share } })
        .collect();
    let served = served(rules(max), &streams, 11, seed);
    let quiet = served[1..].iter().sum::<f64>() / 9.0;
    (quiet, served[0] * 10.0 * share)
}

#[test]
fn a_noisy_tenant_gets_what_the_quiet_leave() {
    for load in [1.33, 1.5, 1.9] {
        let (quiet, noisy) = noisy(load, 100, 1);
        let left = 2000.0 - 9.0 * load * 2000.0 / 19.0;
        assert!(quiet >= 0.995, "at {load}: {quiet} of the quiet were served");
        assert!((noisy - left).abs() < 60.0, "at {load}: {noisy}/s of the noisy were served, and {left} left");
    }
}

/// `cargo test --release -p buttress-shed --lib -- --ignored --nocapture print_overload`
#[test]
#[ignore = "prints a table"]
fn print_overload() {
    for max in [20, 100, 400] {
        for load in [1.1, 1.33, 1.5, 1.7, 1.9, 2.0, 3.0] {
            let runs = Vec::from_iter((0..10).map(|seed| noisy(load, max, seed)));
            let quiet = runs.iter().map(|run| run.0).sum::<f64>() / 10.0;
            let noisy = runs.iter().map(|run| run.1).sum::<f64>() / 10.0;
            println!("max {max}, load {load}: quiet {:.2} %, noisy {noisy:.0}/s", quiet * 100.0);
        }
    }
    for max in [20, 100, 400] {
        let runs = Vec::from_iter((0..10).map(|seed| classes(max, seed)));
        let mean = [0, 1, 2].map(|class| runs.iter().map(|run| run[class]).sum::<f64>() / 10.0);
        println!("max {max}, 20/30/50 at 2x: {mean:.4?}");
    }
}

fn classes(max: u32, seed: u64) -> Vec<f64> {
    let classes = [(Priority::Critical, 800.0), (Priority::Normal, 1200.0), (Priority::Sheddable, 2000.0)];
    let streams: Vec<_> = classes.map(|(class, rate)| Stream { ask: ask(class, 1), rate }).into();
    served(rules(max), &streams, 11, seed)
}

#[test]
fn critical_calls_are_served_at_twice_the_load() {
    let served = classes(100, 1);
    assert!(served[0] >= 0.999, "{served:?}");
    // Both together are all that can be served, and sheddable calls take what lulls leave.
    assert!(served[1] >= 0.93, "{served:?}");
    assert!(served[2] > 0.0, "{served:?}");
}

/// Keeps the queue full of what `arrivals` say for so many grants: how many each item had.
fn grants(rules: Rules, arrivals: &[(Ask, usize)], count: usize) -> Vec<usize> {
    let mut line = Line::new(rules);
    let mut out = Vec::new();
    let mut got = vec![0; arrivals.len()];
    for now in 0..count as u64 {
        for (item, &(ask, times)) in arrivals.iter().enumerate() {
            for _ in 0..times {
                let _ = line.push(ask, now * 1000, None, 0, || item, &mut out);
            }
        }
        out.clear();
        line.peek(now * 1000, 0, &mut out);
        got[line.pop().expect("the queue is full")] += 1;
    }
    got
}

#[test]
fn the_lowest_class_has_its_reserve_and_no_more_behind_a_queue_full_of_critical_calls() {
    for (reserve, want) in [(0.01, 100), (0.02, 200), (0.0, 0)] {
        for (critical, sheddable) in [(1, 1), (3, 1), (10, 2)] {
            let arrivals = [(ask(Priority::Critical, 1), critical), (ask(Priority::Sheddable, 1), sheddable)];
            let got = grants(Rules { reserve, ..rules(50) }, &arrivals, 10_000);
            assert!(got[1].abs_diff(want) <= 2, "{got:?} of {want} at {critical} : {sheddable}");
        }
    }
}

#[test]
fn a_deadline_far_off_costs_the_lowest_class_nothing_of_its_reserve() {
    // A grant each 20 ms, and a second's worth of critical calls in front: much longer than a sheddable call waits here, and far
    // less than the 30 s that its client does.
    const PACE: u64 = 20 * MS;
    let mut bench = Bench::new(Rules { reserve: 0.02, ..rules(50) });
    bench.stand();
    let began = bench.now;
    let (mut got, mut late) = ([0, 0], 0);
    for turn in 0..5_000 {
        bench.now = began + turn * PACE;
        for (item, priority) in [(0, Priority::Critical), (0, Priority::Critical), (1, Priority::Sheddable)] {
            let ask = Ask { deadline: Some(bench.now + 30_000 * MS), ..ask(priority, 1) };
            let refusal = bench.line.push(ask, bench.now, Some(PACE), 10 * MS, || item, &mut bench.out);
            late += u32::from(refusal == Err(Why::TooLate));
        }
        if let Some(item) = bench.grant() {
            got[item as usize] += 1;
        }
    }
    late += bench.out.iter().filter(|(_, why)| *why == Why::TooLate).count() as u32;
    assert_eq!(late, 0, "there was time for all of them");
    assert!(got[1] >= 95, "a fiftieth of 5000 is 100: {got:?}");
}

#[test]
fn a_call_is_too_late_where_its_deadline_and_not_where_its_wait_ends() {
    let mut bench = Bench::new(rules(50));
    for _ in 0..20 {
        bench.push(ask(Priority::Critical, 1), 0).unwrap();
    }
    // 20 turns of 100 ms, and 10 ms to serve it: 2.01 s.
    let mut arrive = |deadline: u64| {
        let ask = Ask { deadline: Some(deadline * MS), ..ask(Priority::Sheddable, 1) };
        let place = bench.line.push(ask, 0, Some(100 * MS), 10 * MS, || 1, &mut bench.out);
        place.map(|place| bench.line.remove(place.number, 0).unwrap())
    };
    assert_eq!(arrive(2_009), Err(Why::TooLate));
    // They would make their deadlines. Whether there is a place to wait in is for the reserve to say.
    assert_ne!(arrive(2_010), Err(Why::TooLate));
    assert_ne!(arrive(30_000), Err(Why::TooLate));
}

#[test]
fn tenants_who_ask_alike_get_alike_and_one_who_asks_more_gets_no_more() {
    let got = grants(rules(40), &[1, 2, 3, 4].map(|tenant| (normal(tenant), 1)), 10_000);
    assert!(got.iter().all(|got| got.abs_diff(2500) <= 60), "{got:?}");
    let got =
        grants(rules(40), &[(1, 10), (2, 1), (3, 1), (4, 1)].map(|(tenant, times)| (normal(tenant), times)), 10_000);
    assert!(got[0] <= 2500, "{got:?}");
    assert!(got[0] >= 10_000 / 25 - 20, "it asks ten times as much and is not forgotten: {got:?}");
    assert!(got[1..].iter().all(|&one| one.abs_diff(got[1]) <= 60), "{got:?}");
}

#[test]
fn nobody_saves_up_turns_while_away() {
    let mut bench = Bench::new(rules(100));
    for _ in 0..1000 {
        bench.push(normal(1), 0).unwrap();
        assert_eq!(bench.grant(), Some(0));
    }
    let mut got = [0, 0];
    let mut out = Vec::new();
    for turn in 0..2000 {
        for item in 0..2 {
            let _ = bench.line.push(normal(u64::from(item) + 1), 0, None, 0, || item, &mut out);
        }
        got[bench.grant().unwrap() as usize] += 1;
        assert!(turn != 20 || got[0] >= 2, "the newcomer has no thousand turns to make up for: {got:?}");
    }
    assert!(got[0] >= 800, "{got:?}");
}

#[test]
fn a_million_tenants_take_the_room_of_the_table() {
    let mut line = Line::new(Rules { tenants: 16, ..rules(1000) });
    let mut out = Vec::new();
    for tenant in 0..1_000_000u64 {
        let _ = line.push(normal(tenant), tenant, None, 0, || (), &mut out);
        if tenant % 3 == 0 {
            line.peek(tenant, 0, &mut out);
            line.pop();
        }
        out.clear();
        assert!(line.len() <= 1000);
    }
    let room = line.slots.room() + line.classes.iter().map(Tenants::room).sum::<usize>();
    assert!(room <= 1000 + 3 * 2 * 16, "{room}");
}

#[test]
fn a_place_that_goes_to_another_tenant_takes_its_past_along() {
    let mut bench = Bench::new(Rules { tenants: 2, ..rules(10) });
    for tenant in 1..100 {
        for _ in 0..tenant % 3 {
            bench.push(normal(tenant), 0).unwrap();
        }
        assert!(bench.line.classes[1].adds_up());
        while bench.grant().is_some() {}
    }
}
