//! What a layer costs: nanoseconds and allocations that it adds to a call, ours beside tower's and tower-resilience's.
//!
//! ```text
//! cargo bench -p buttress-benches --bench overhead -- [--quick] [--filter "breaker-closed http"]
//! ```
//!
//! One loop does `poll_ready`, `call`, and polls a future that lives on the stack, with a waker that does nothing, inside a
//! tokio runtime; an HTTP body is read to its end as hyper does. What the same loop takes around the bare inner service is
//! subtracted. All contestants take turns in one run, and the median of each counts; two threads call clones of one service
//! at the same time. Every measured call is checked: admitted calls succeed, an open breaker and a full bulkhead refuse,
//! and at the end every permit is back.

mod alloc;
mod contest;
mod measure;
mod ours;
mod peers;
mod report;
mod shedding;
mod traffic;

use contest::{Contestant, Field, Path, Who};
use measure::Effort;
use std::{env, error::Error, time::Duration};
use tokio::runtime::{Builder, Runtime};
use traffic::{Plain, Web};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(env::args().skip(1))?;
    let runtime = live_runtime()?;
    let _inside = runtime.enter();
    let mut contestants = contestants();
    contestants.retain(|contestant| options.wants(contestant));

    let costs = measure::measure(&mut contestants, options.effort, runtime.handle());
    contestants.iter_mut().for_each(Contestant::assert_at_rest);

    let rows = report::rows(&contestants, &costs);
    report::print(&rows, &contestants, &costs);
    println!("\nwritten to {}", report::write(&rows)?.display());
    Ok(())
}

fn contestants() -> Vec<Contestant> {
    let mut rows = Vec::new();
    for path in Path::ALL {
        let mut plain = Field::<Plain>::new(path, &mut rows);
        plain.bare();
        ours::opaque(&mut plain);
        shedding::opaque(&mut plain);
        peers::tower(&mut plain);
        peers::tower_resilience(&mut plain);
        let mut web = Field::<Web>::new(path, &mut rows);
        web.bare();
        ours::http(&mut web);
        shedding::http(&mut web);
        peers::tower(&mut web);
        peers::tower_resilience(&mut web);
    }
    rows.sort_by_key(|row| (row.title.case, row.protocol == "http", row.path != Path::Ready, row.title.who as u8));
    rows
}

/// A runtime as a server has it: a worker that turns the timer wheel and is due soon, so that a timer of seconds, registered
/// and dropped by a call, wakes nobody.
fn live_runtime() -> std::io::Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    runtime.spawn(async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            tick.tick().await;
        }
    });
    Ok(runtime)
}

struct Options {
    effort: Effort,
    /// Words that a row's case, config, protocol, path or contestant must be.
    filter: Vec<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        // Without cargo's `--bench` this is a test run.
        let mut options = Self { effort: Effort::QUICK, filter: Vec::new() };
        let mut quick = false;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => options.effort = Effort::FULL,
                "--quick" => quick = true,
                "--filter" => {
                    let words = args.next().ok_or("--filter needs words, as in --filter \"bulkhead http\"")?;
                    options.filter.extend(words.split_whitespace().map(str::to_owned));
                }
                other => return Err(format!("`{other}` is not an option, allowed: --quick, --filter <words>")),
            }
        }
        if quick {
            options.effort = Effort::QUICK;
        }
        Ok(options)
    }

    fn wants(&self, row: &Contestant) -> bool {
        let names = [row.title.case, row.title.config, row.protocol, row.path.as_str(), row.title.who.as_str()];
        row.title.who == Who::Bare || self.filter.iter().all(|word| names.contains(&word.as_str()))
    }
}
