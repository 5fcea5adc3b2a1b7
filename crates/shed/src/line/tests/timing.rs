use super::*;
use std::{hint::black_box, time::Duration};

/// `cargo test --release -p buttress-shed --lib -- --ignored --nocapture a_turn_costs`
#[test]
#[ignore = "a measurement, for a release build"]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn a_turn_costs() {
    const TURNS: u32 = 200_000;
    for (name, deadline, tenants, extra) in [
        ("one tenant, full", None, 1, 1),
        ("ten tenants, full", None, 10, 1),
        ("ten tenants, deadlines, pace", Some(MS), 10, 1),
        ("ten tenants, 2x: one pushed out or refused each turn", None, 10, 2),
        ("1000 tenants, 2x", None, 1000, 2),
    ] {
        for mode in [LineMode::Burst, LineMode::Standing] {
            let mut bench = Bench::new(Rules { standing_wait: [u64::MAX; 3], ..rules(1000) });
            if mode == LineMode::Standing {
                (0..tenants).for_each(|tenant| bench.keep(normal(tenant)));
            } else {
                bench.line.set_rules(Rules { burst_wait: u64::MAX, ..rules(1000) });
            }
            let draw = buttress_core::Draw::new(1);
            let push = |bench: &mut Bench| {
                let deadline = deadline.map(|ms| bench.now + 100_000 * ms);
                let ask = Ask { deadline, ..normal(draw.draw() % tenants) };
                let _ = black_box(bench.line.push(ask, bench.now, deadline.map(|_| 1000), 0, || 0, &mut bench.out));
                bench.out.clear();
            };
            for _ in 0..1000 {
                push(&mut bench);
            }
            assert_eq!(bench.line.mode(bench.now), mode);
            let best = (0..7).map(|_| {
                let start = std::time::Instant::now();
                for _ in 0..TURNS {
                    bench.now += 100;
                    black_box(bench.grant());
                    for _ in 0..extra {
                        push(&mut bench);
                    }
                }
                start.elapsed()
            });
            let best = best.min().unwrap_or(Duration::ZERO).as_nanos() as f64 / f64::from(TURNS);
            println!("{name}, {mode:?}: {best:.0} ns for peek + pop + {extra} push, {} wait", bench.line.len());
        }
    }
}
