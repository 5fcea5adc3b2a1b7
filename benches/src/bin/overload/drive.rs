//! The load generator: clients that come in their own time, and a script of what happens to the server meanwhile.

use crate::{
    client::{Chain, Clients, Wire},
    pace::{Arrivals, Phase, pace},
    server::Server,
    stats::{End, Record, Run},
};
use std::{error::Error, sync::mpsc, time::Duration};
use tokio::{
    runtime::{Handle, Runtime},
    time::{Instant, sleep_until, timeout_at},
};
use tower::ServiceExt;

/// Who calls how much.
pub struct Load {
    pub clients: Clients,
    pub phases: Vec<Phase>,
    pub seed: u64,
}

/// The time of a run, for its script.
pub struct Time<'a> {
    began: Instant,
    handle: &'a Handle,
}

impl Time<'_> {
    /// Waits until so much has passed since the beginning of the run.
    pub fn until(&self, at: Duration) {
        self.handle.block_on(async { sleep_until(self.began + at).await });
    }
}

/// What a run came to, and how many attempts found no port or no file.
pub struct Driven {
    pub run: Run,
    pub scarce: usize,
}

/// Puts the load on the server, and runs the script beside it.
pub fn drive(
    runtime: &Runtime,
    server: &mut Server,
    time_out: Duration,
    load: &Load,
    script: impl FnOnce(&mut Server, &Time<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<Driven, Box<dyn Error>> {
    let wire = Wire::to(server.address())?;
    let (attempts, patience) = load.clients.patience(time_out);
    let chain = {
        // Layers may look for a runtime.
        let _entered = runtime.enter();
        load.clients.chain(wire.clone(), time_out)?
    };
    let handle = runtime.handle().clone();
    let began = Instant::now() + Duration::from_millis(20);
    let (send, records) = mpsc::channel();
    let pacer = pace(Arrivals::new(load.seed, &load.phases), began, move |due| {
        let (chain, send) = (chain.clone(), send.clone());
        handle.spawn(async move {
            let late = Instant::now() - due;
            let end = call(chain, due, attempts, patience).await;
            let (at, ended) = (due - began, Instant::now() - began);
            // Who collects is there until all have ended.
            let _ = send.send(Record { at, ended, end, late });
        });
    });
    let done = script(server, &Time { began, handle: runtime.handle() });
    pacer.join().map_err(|_| "the pacing thread has panicked")?;
    let records = records.iter().collect();
    done?;
    let sent = wire.take_sent().into_iter().map(|at| at.saturating_duration_since(began)).collect();
    Ok(Driven { run: Run { records, sent }, scarce: wire.scarce() })
}

/// One call. The first attempt's time runs from when it was to come, however late it is begun.
async fn call(chain: Chain, due: Instant, attempts: u32, patience: Duration) -> End {
    let mut until = due + patience;
    for attempt in 1.. {
        let end = match timeout_at(until, chain.clone().oneshot(())).await {
            // Tokio's timers may be late, too.
            Ok(Ok(end)) if end != End::Good || Instant::now() <= until => end,
            _ => End::TimedOut,
        };
        if end == End::Good || attempt == attempts {
            return end;
        }
        until = Instant::now() + patience;
    }
    unreachable!("it returns in the last attempt")
}

/// How many calls a second the server answers when there is always one more waiting, and nobody gives up.
pub fn capacity(
    runtime: &Runtime,
    server: &Server,
    clients: usize,
    warm_up: Duration,
    length: Duration,
) -> Result<f64, Box<dyn Error>> {
    const FOR_EVER: Duration = Duration::from_secs(3600);
    let wire = Wire::to(server.address())?;
    let chain = Clients::Naive(1).chain(wire, FOR_EVER)?;
    let from = Instant::now() + warm_up;
    let to = from + length;
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let chain = chain.clone();
            runtime.spawn(async move {
                let mut answered = 0_u64;
                while Instant::now() < to {
                    let end = chain.clone().oneshot(()).await;
                    let counts = end == Ok(End::Good) && (from..to).contains(&Instant::now());
                    answered += u64::from(counts);
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        answered += runtime.block_on(task)?;
    }
    if answered == 0 {
        return Err("no call was answered".into());
    }
    Ok(answered as f64 / length.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protection::Protection,
        server::{Server, Site},
    };
    use tokio::runtime::Builder;

    const SITE: Site = Site { workers: 4, work: Duration::from_millis(5), time_out: Duration::from_millis(500) };

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn an_outage_refuses_and_ends() {
        let runtime = runtime();
        let mut server = Server::start(SITE, Protection::None).unwrap();
        let load = Load { clients: Clients::Naive(3), phases: vec![(millis(3000), 50.0)], seed: 1 };
        let driven = drive(&runtime, &mut server, SITE.time_out, &load, |server, time| {
            time.until(millis(1000));
            server.stop();
            time.until(millis(2000));
            server.restart(SITE, Protection::None)
        });
        let run = driven.unwrap().run;
        let all = |from, to| run.tally(&(millis(from)..millis(to)));
        assert_eq!(all(0, 900).good, 1.0);
        let out = all(1300, 1900);
        // Attempts of a call at either end of the span may lie outside of it.
        assert!(
            out.failed == 1.0 && (2.8..=3.2).contains(&out.amplification),
            "refused at once, each of three times: {out:?}"
        );
        assert_eq!(all(2400, 3000).good, 1.0);
    }

    #[test]
    fn every_protection_serves_who_comes_one_by_one() {
        let runtime = runtime();
        for protection in Protection::ALL {
            let mut server = Server::start(SITE, protection).unwrap();
            let load = Load { clients: Clients::Ours, phases: vec![(millis(300), 50.0)], seed: 1 };
            let driven = drive(&runtime, &mut server, SITE.time_out, &load, |_, _| Ok(())).unwrap();
            let ends: Vec<_> = driven.run.records.iter().map(|call| call.end).collect();
            assert!(ends.len() > 5 && ends.iter().all(|end| *end == End::Good), "{protection:?}: {ends:?}");
            assert_eq!(driven.scarce, 0);
        }
    }

    #[test]
    fn a_limit_is_one_for_all_connections() {
        let runtime = runtime();
        let site = Site { work: millis(250), time_out: millis(10_000), ..SITE };
        for protection in [Protection::Tower, Protection::Aimd] {
            let mut server = Server::start(site, protection).unwrap();
            // Forty at once: four or ten pass, as tower and as tower-resilience says.
            let load = Load { clients: Clients::Naive(1), phases: vec![(millis(100), 400.0)], seed: 1 };
            let run = drive(&runtime, &mut server, site.time_out, &load, |_, _| Ok(())).unwrap().run;
            let refused = run.records.iter().filter(|call| call.end == End::Refused).count();
            assert!(run.records.len() - refused <= 10, "{protection:?}: {refused} of {}", run.records.len());
        }
    }

    #[test]
    fn capacity_is_what_the_workers_can_do() {
        let server = Server::start(SITE, Protection::None).unwrap();
        let capacity = capacity(&runtime(), &server, 12, millis(200), millis(1000)).unwrap();
        assert!((200.0..=810.0).contains(&capacity), "four workers of 5 ms: {capacity}");
    }
}
