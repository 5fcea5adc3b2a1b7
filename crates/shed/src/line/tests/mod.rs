mod model;
mod overload;
mod timing;

use super::*;

const MS: u64 = 1_000_000;

fn rules(max: u32) -> Rules {
    Rules {
        max,
        burst_share: 0.6,
        standing_wait: [5 * MS, 60 * MS, 100 * MS],
        lowest_wait: 80 * MS,
        burst_wait: 500 * MS,
        reserve: 0.02,
        tenants: 64,
    }
}

fn ask(priority: Priority, tenant: u64) -> Ask {
    Ask { priority, tenant, deadline: None }
}

fn normal(tenant: u64) -> Ask {
    ask(Priority::Normal, tenant)
}

type Out<T> = Vec<(T, Why)>;

/// A line with what it says of others beside it.
struct Bench {
    line: Line<u32>,
    out: Out<u32>,
    now: u64,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        Self { line: Line::new(rules), out: Vec::new(), now: 0 }
    }

    fn push(&mut self, ask: Ask, item: u32) -> Result<Place, Why> {
        self.line.push(ask, self.now, None, 0, || item, &mut self.out)
    }

    fn grant(&mut self) -> Option<u32> {
        self.line.peek(self.now, 0, &mut self.out)?;
        self.line.pop()
    }

    /// A spell in which calls like this one have always waited; they still do.
    fn keep(&mut self, ask: Ask) {
        for _ in 0..=500 {
            let _ = self.push(ask, u32::MAX);
            let _ = self.push(ask, u32::MAX);
            self.grant();
            self.now += MS;
        }
        self.out.clear();
        assert_eq!(self.line.mode(self.now), LineMode::Standing);
    }

    /// A line that stands, although nobody waits.
    fn stand(&mut self) {
        self.keep(ask(Priority::Critical, 1));
        while self.grant().is_some() {}
        self.out.clear();
    }
}

#[test]
fn a_burst_is_served_in_order_and_one_that_does_not_end_newest_first() {
    let mut bench = Bench::new(rules(10));
    let order = |bench: &mut Bench| {
        for item in 0..3 {
            bench.push(normal(1), item).unwrap();
        }
        [(); 3].map(|()| bench.grant().unwrap())
    };
    assert_eq!(order(&mut bench), [0, 1, 2]);
    bench.stand();
    assert_eq!(order(&mut bench), [0, 1, 2], "others may stand, this one's calls have just come");
    // Twice: in a line that stands they have the waits of one.
    bench.keep(normal(1));
    bench.keep(normal(1));
    while bench.line.len() > 1 {
        bench.grant();
    }
    bench.now += 20 * MS;
    assert_eq!(order(&mut bench), [2, 1, 0]);
}

#[test]
fn a_queue_stands_after_a_spell_without_being_empty_and_until_a_spell_without_a_shed() {
    let mut bench = Bench::new(rules(1));
    bench.push(normal(1), 0).unwrap();
    bench.now += 499 * MS;
    assert_eq!(bench.line.mode(bench.now), LineMode::Burst);
    bench.grant();
    bench.push(normal(1), 1).unwrap();
    bench.now += 300 * MS;
    bench.push(ask(Priority::Critical, 1), 2).unwrap();
    assert_eq!((bench.line.mode(bench.now), bench.out.len()), (LineMode::Burst, 1), "it was empty for a moment");
    bench.now += 200 * MS;
    assert_eq!(bench.line.mode(bench.now), LineMode::Standing);
    bench.grant();
    bench.now += 400 * MS;
    bench.push(ask(Priority::Critical, 1), 3).unwrap();
    assert_eq!(bench.push(ask(Priority::Normal, 1), 4), Err(Why::Full));
    bench.now += 499 * MS;
    assert_eq!(bench.line.mode(bench.now), LineMode::Standing, "one was refused 499 ms ago");
    bench.now += MS;
    bench.line.remove(3, bench.now);
    assert_eq!(bench.line.mode(bench.now), LineMode::Burst);
}

#[test]
fn who_leaves_because_its_time_is_up_was_shed_and_who_leaves_before_was_not() {
    for (late, mode) in [(false, LineMode::Burst), (true, LineMode::Standing)] {
        let mut bench = Bench::new(rules(9));
        bench.stand();
        bench.now += 450 * MS;
        let place = bench.push(normal(1), 0).unwrap();
        bench.now = place.until - u64::from(!late);
        assert_eq!(bench.line.remove(place.number, bench.now), Some(0));
        assert_eq!(bench.line.remove(place.number, bench.now), None, "it has left");
        bench.now += 20 * MS;
        bench.grant();
        assert_eq!(bench.line.mode(bench.now), mode);
    }
}

#[test]
fn waits_are_those_of_the_mode_the_class_and_the_deadline() {
    let mut bench = Bench::new(rules(10));
    let wait = |bench: &mut Bench, priority, deadline: Option<u64>, service| {
        let deadline = deadline.map(|after| bench.now + after);
        let ask = Ask { priority, tenant: 1, deadline };
        let place = bench.line.push(ask, bench.now, None, service, || 0, &mut bench.out)?;
        bench.line.remove(place.number, bench.now);
        Ok((place.until - bench.now) / MS)
    };
    assert_eq!(wait(&mut bench, Priority::Sheddable, None, 0), Ok(500));
    assert_eq!(wait(&mut bench, Priority::Sheddable, Some(100 * MS), 0), Ok(60));
    assert_eq!(wait(&mut bench, Priority::Sheddable, Some(100 * MS), 70 * MS), Ok(30), "it has to run, too");
    assert_eq!(wait(&mut bench, Priority::Critical, Some(100 * MS), 100 * MS), Err(Why::TooLate));
    assert_eq!(wait(&mut bench, Priority::Critical, Some(0), 0), Err(Why::TooLate));
    bench.stand();
    assert_eq!(wait(&mut bench, Priority::Sheddable, None, 0), Ok(5));
    assert_eq!(wait(&mut bench, Priority::Normal, Some(1000 * MS), 0), Ok(60));
    assert_eq!(wait(&mut bench, Priority::Critical, None, 0), Ok(100));
    assert_eq!(wait(&mut bench, Priority::Critical, Some(100 * MS), 0), Ok(60));
    bench.line.set_rules(Rules { standing_wait: [0; 3], ..rules(10) });
    assert_eq!(wait(&mut bench, Priority::Normal, None, 0), Err(Why::Full), "a class that may not wait");
}

#[test]
fn a_call_is_refused_when_those_before_it_will_keep_it_too_long() {
    let mut bench = Bench::new(rules(100));
    for item in 0..30 {
        bench.push(normal(u64::from(item % 3)), item).unwrap();
    }
    let mut push = |priority, tenant, pace, service| {
        let ask = Ask { priority, tenant, deadline: Some(bench.now + 100 * MS) };
        let place = bench.line.push(ask, bench.now, Some(pace), service, || 99, &mut bench.out);
        place.map(|place| bench.line.remove(place.number, bench.now)).err()
    };
    let (late, in_time) = (Some(Why::TooLate), None);
    assert_eq!(push(Priority::Sheddable, 9, 3 * MS, 10 * MS + 1), late, "30 are before it, and it has to run, too");
    assert_eq!(push(Priority::Sheddable, 9, MS, 10 * MS), in_time);
    assert_eq!(push(Priority::Normal, 1, 4 * MS, 0), late);
    assert_eq!(push(Priority::Normal, 9, 19 * MS, 10 * MS), in_time, "its tenant is next but three");
    assert_eq!(
        push(Priority::Normal, 9, 20 * MS, 10 * MS),
        Some(Why::Full),
        "and it would wait in vain, while others fit"
    );
    assert_eq!(push(Priority::Normal, 9, 30 * MS, 10 * MS + 1), late);
    assert_eq!(push(Priority::Critical, 1, u64::MAX, 0), in_time, "nobody is before it");
}

#[test]
fn a_call_that_cannot_make_its_deadline_any_more_gets_no_room() {
    let mut bench = Bench::new(rules(9));
    bench.push(Ask { deadline: Some(100 * MS), ..normal(1) }, 0).unwrap();
    bench.push(Ask { deadline: Some(101 * MS), ..normal(1) }, 1).unwrap();
    bench.now = 50 * MS;
    assert_eq!(bench.line.peek(bench.now, 51 * MS, &mut bench.out), Some(&1));
    assert_eq!(bench.out, [(0, Why::TooLate)]);
    bench.now = 61 * MS;
    assert_eq!(bench.line.pop(), Some(1), "it was shown, and nothing happened since");
    assert_eq!(bench.line.pop(), None);
}

#[test]
fn a_full_queue_sends_away_the_oldest_of_the_lowest_class() {
    let mut bench = Bench::new(Rules { reserve: 0.0, ..rules(3) });
    for (item, priority) in [Priority::Normal, Priority::Sheddable, Priority::Sheddable].into_iter().enumerate() {
        bench.push(ask(priority, 1), item as u32).unwrap();
    }
    assert_eq!(bench.push(ask(Priority::Sheddable, 1), 3), Err(Why::Full));
    bench.push(ask(Priority::Critical, 1), 4).unwrap();
    bench.push(ask(Priority::Normal, 1), 5).unwrap();
    assert_eq!(bench.push(ask(Priority::Normal, 1), 6), Err(Why::Full), "a burst keeps those who came first");
    bench.push(ask(Priority::Critical, 1), 7).unwrap();
    let pushed_out = [1, 2, 0].map(|item| (item, Why::PushedOut));
    assert_eq!(bench.out, pushed_out);
    assert_eq!([(); 4].map(|()| bench.grant()), [Some(4), Some(7), Some(5), None]);
}

#[test]
fn a_full_standing_queue_takes_the_newest_for_the_oldest_while_that_is_old() {
    let mut bench = Bench::new(rules(2));
    bench.keep(normal(1));
    bench.keep(normal(1));
    bench.now += 20 * MS;
    bench.push(normal(1), 0).unwrap();
    bench.push(normal(1), 1).unwrap();
    assert_eq!(bench.out, [(u32::MAX, Why::PushedOut)]);
    assert_eq!(bench.push(normal(1), 2), Err(Why::Full), "those who wait have just come, and will be in time");
    bench.now += 15 * MS;
    bench.push(normal(1), 3).unwrap();
    assert_eq!(bench.out[1..], [(0, Why::PushedOut)]);
    assert_eq!([(); 3].map(|()| bench.grant()), [Some(3), Some(1), None]);
}

#[test]
fn the_tenant_with_most_waiting_makes_room_for_the_others() {
    let mut bench = Bench::new(rules(4));
    for item in 0..4 {
        bench.push(normal(1), item).unwrap();
    }
    bench.push(normal(2), 4).unwrap();
    bench.push(normal(3), 5).unwrap();
    assert_eq!(bench.out, [(0, Why::PushedOut), (1, Why::PushedOut)]);
    assert_eq!(bench.push(normal(1), 6), Err(Why::Full), "it has most itself");
    assert_eq!(bench.push(normal(2), 7), Err(Why::Full), "it would have as many");
    assert_eq!([(); 5].map(|()| bench.grant()), [Some(2), Some(4), Some(5), Some(3), None]);
}

#[test]
fn nobody_waits_where_there_is_no_queue_and_lower_rules_send_nobody_away() {
    let mut bench = Bench::new(rules(0));
    assert_eq!(bench.push(ask(Priority::Critical, 1), 0), Err(Why::Full));
    bench.line.set_rules(rules(3));
    for item in 0..3 {
        bench.push(normal(1), item).unwrap();
    }
    bench.line.set_rules(Rules { tenants: 1, ..rules(1) });
    assert_eq!(bench.push(normal(1), 3), Err(Why::Full));
    assert_eq!([(); 4].map(|()| bench.grant()), [Some(0), Some(1), Some(2), None]);
    bench.push(normal(1), 4).unwrap();
    bench.push(normal(2), 5).unwrap_err();
    assert_eq!(bench.out, []);
}

#[test]
fn the_number_of_one_that_has_left_is_not_that_of_the_next() {
    let mut bench = Bench::new(rules(5));
    let first = bench.push(normal(1), 0).unwrap();
    bench.grant();
    let second = bench.push(normal(1), 1).unwrap();
    assert_eq!(bench.line.remove(first.number, 0), None);
    assert_eq!(bench.line.remove(second.number, 0), Some(1));
}

#[test]
fn a_tenant_beyond_the_table_shares_one_place_and_its_owner_keeps_it() {
    let mut bench = Bench::new(Rules { tenants: 2, ..rules(20) });
    let rows = |bench: &Bench| [0, 1].map(|bucket| bench.line.classes[1].row(bucket).len());
    for item in [1, 2, 3, 3, 3, 3] {
        bench.push(normal(u64::from(item)), item).unwrap();
    }
    assert!([[1, 5], [5, 1]].contains(&rows(&bench)), "the third's calls stay together: {:?}", rows(&bench));
    let before = rows(&bench);
    bench.push(normal(1), 1).unwrap();
    bench.push(normal(2), 2).unwrap();
    assert_eq!(rows(&bench), before.map(|len| len + 1), "the others are where they were");
}

#[test]
fn whose_time_is_up_first_is_found_whoever_leaves_before() {
    let draw = buttress_core::Draw::new(7);
    let (mut expiry, mut naive) = (Expiry::new(), std::collections::BTreeSet::new());
    let mut times = Vec::new();
    for slot in 0..200 {
        times.push(draw.draw() % 1000);
        expiry.insert(times[slot as usize], slot);
        naive.insert((times[slot as usize], slot));
    }
    for _ in 0..5000 {
        let slot = (draw.draw() % 200) as u32;
        if naive.remove(&(times[slot as usize], slot)) {
            expiry.remove(slot);
        } else {
            times[slot as usize] = draw.draw() % 1000;
            expiry.insert(times[slot as usize], slot);
            naive.insert((times[slot as usize], slot));
        }
        assert_eq!(expiry.first(1000), naive.first().map(|first| first.1));
        assert_eq!(expiry.first(0), naive.first().filter(|first| first.0 == 0).map(|first| first.1));
    }
}

#[test]
fn what_waits_can_be_read() {
    let mut bench = Bench::new(rules(5));
    assert_eq!((bench.line.is_empty(), bench.line.oldest_wait(7)), (true, 0));
    bench.push(normal(1), 0).unwrap();
    bench.now += MS;
    bench.push(normal(2), 1).unwrap();
    bench.push(ask(Priority::Sheddable, 2), 2).unwrap();
    let waiting = [Priority::Sheddable, Priority::Normal, Priority::Critical].map(|class| bench.line.waiting(class));
    assert_eq!((waiting, bench.line.len(), bench.line.is_empty()), ([1, 2, 0], 3, false));
    assert_eq!(bench.line.oldest_wait(3 * MS), 3 * MS);
    assert_eq!(bench.line.oldest_wait(0), 0, "a clock that stepped back");
}
