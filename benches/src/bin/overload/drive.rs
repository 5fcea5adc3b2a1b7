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
