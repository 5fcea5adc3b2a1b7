//! `--demo`: the gateway between clients and four clusters: the endpoints of three fail on a script, more comes to the fourth than it can do.

mod frame;
mod line;
mod overload;
mod script;
mod setup;
mod tally;
mod traffic;
mod upstreams;
mod verdict;
mod view;
mod watch;

use crate::{
    chain::Shedder,
    config::Config,
    proxy::Gateway,
    server::{self, Listening, Phase},
};
use buttress::Mode;
use frame::Frame;
use overload::Callers;
use script::{BURST, CANARY, CAST, Stage};
use setup::{CLUSTERS, EXTRAS, OVERLOADED};
use std::{io, process::ExitCode, sync::Arc, time::Duration};
use tally::Tally;
use tokio::{
    net::TcpListener,
    sync::watch as channel,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use traffic::{Caller, Seen, Source};
use upstreams::Upstream;
use view::View;
use watch::{Change, Watch};

/// Calls a second to `a`, `b` and `c`, through the gateway.
const RATES: [f64; 3] = [80.0, 80.0, 40.0];
/// Calls a second to what is given up first.
const EXTRAS_RATE: f64 = 10.0;
/// Calls a second that ask all endpoints in turn, without it.
const UNPROTECTED: f64 = 64.0;
/// Reports that are asked for at once.
const REPORTS: usize = 11;
/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(100);

/// What is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) length: Duration,
    /// Decides when calls are made and how long answers take.
    pub(crate) seed: u64,
    /// Whether the layers do anything.
    pub(crate) protection: bool,
}

/// Plays it. A failure where what is promised did not come true.
pub(crate) fn run(settings: Settings) -> io::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let view = View::new();
        let stopped = async {
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                interrupted = tokio::signal::ctrl_c() => interrupted,
                _ = term.recv() => Ok(()),
            }
        };
        tokio::select! {
            played = play(settings, &view) => played,
            stopped = stopped => {
                stopped?;
                // What a shell says of a program that was interrupted. The view gives the screen back as it goes.
                Ok(ExitCode::from(130))
            }
        }
    })
}

async fn play(settings: Settings, view: &View) -> io::Result<ExitCode> {
    let Settings { length, seed, protection } = settings;
    let mut salts = (1..).map(|salt: u64| seed ^ (salt << 32));
    let mut salted = || salts.next().expect("there are many");
    let (mut upstreams, mut addresses) = (Vec::new(), Vec::new());
    for role in CAST.iter().chain([&CANARY]) {
        let (upstream, listener) = Upstream::bind(role, salted()).await?;
        addresses.push(upstream.address());
        upstreams.push((upstream, listener));
    }
    let (cast, canary) = (&addresses[..CAST.len()], addresses[CAST.len()]);
    let few = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let text = setup::config(cast, canary, few.local_addr()?, length, protection);
    let config = Config::parse(&text).map_err(io::Error::other)?;
    let gateway = Arc::new(Gateway::build(&config).map_err(io::Error::other)?);
    if !protection {
        // A plain proxy takes endpoints in turn.
        for balancer in gateway.controls().balancers.values() {
            buttress::Handle::set_mode(&**balancer, Mode::Disabled).map_err(io::Error::other)?;
        }
    }
    let shed = gateway.controls().sheds[OVERLOADED].clone();
    let mut watch = Watch::new(&gateway, cast);
    let listener = TcpListener::bind(config.listeners["demo"].address).await?;
    let address = listener.local_addr()?;
    let (_running, phases) = channel::channel(Phase::Running);
    let listeners = vec![Listening { listener, tls: None }];
    let proxied = tokio::spawn(async move { server::serve(listeners, gateway, &config, phases).await });

    let stage = Stage { start: Instant::now() + Duration::from_millis(50), length };
    for (upstream, listener) in upstreams {
        tokio::spawn(upstream.play(listener, stage));
    }
    tokio::spawn(overload::serve(few));
    let uri = |text: String| text.parse::<http::Uri>().expect("an address and a path are a URI");
    let (through, direct) = (Arc::<Seen>::default(), Arc::<Seen>::default());
    for (cluster, rate) in CLUSTERS.into_iter().zip(RATES) {
        let source = Source::new(Caller::Client, salted(), through.clone());
        tokio::spawn(source.send(vec![uri(format!("http://{address}/{cluster}"))], rate, (0.0, 1.0), stage));
    }
    let source = Source::new(Caller::Client, salted(), through.clone());
    let extras = uri(format!("http://{address}{EXTRAS}"));
    tokio::spawn(source.send(vec![extras], EXTRAS_RATE, (0.0, 1.0), stage));
    let source = Source::new(Caller::Client, salted(), through.clone());
    tokio::spawn(source.burst(uri(format!("http://{address}/b/report")), REPORTS, BURST, stage));
    let endpoints = cast.iter().map(|endpoint| uri(format!("http://{endpoint}/"))).collect();
    let source = Source::new(Caller::Unprotected, salted(), direct.clone());
    tokio::spawn(source.send(endpoints, UNPROTECTED, (0.0, 1.0), stage));
    let callers = Callers::begin(&uri(format!("http://{address}/{OVERLOADED}")), stage, salted);

    view.begin(settings);
    let told = tell(settings, view, stage, &mut watch, &through, &direct, (&callers, &shed)).await;
    proxied.abort();
    let verdict = verdict::of(settings, stage, &told);
    view.end(&verdict);
    Ok(if verdict.iter().all(|line| line.holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the whole demo saw.
struct Told {
    /// Calls through the gateway.
    clients: Tally,
    /// Calls that asked the endpoints.
    given: Tally,
    overload: overload::Told,
    acts: watch::Acts,
    astray: watch::Astray,
    changes: Vec<Change>,
    readings: Vec<watch::Reading>,
    /// Calls through the gateway that never ended.
    unanswered: usize,
    /// By how much this program itself was late.
    lag: Duration,
}

/// Shows what happens until all is over.
async fn tell(
    settings: Settings,
    view: &View,
    stage: Stage,
    watch: &mut Watch,
    through: &Seen,
    direct: &Seen,
    (callers, shed): (&Callers, &Shedder),
) -> Told {
    let (mut clients, mut given, mut changes) = (Tally::default(), Tally::default(), Vec::new());
    let mut overload = overload::Told::default();
    let mut ticks = interval_at(stage.start, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lag = Duration::ZERO;
    loop {
        let due = ticks.tick().await;
        let now = Instant::now();
        lag = lag.max(now - due);
        let over = now >= stage.end();
        if over {
            // What is still under way ends within a client's patience.
            for _ in 0..400 {
                if through.open() + direct.open() + callers.open() == 0 {
                    break;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
        watch.sample(now, stage);
        clients.add(through.take(), stage.share(now));
        given.add(direct.take(), stage.share(now));
        overload.add(callers, stage.share(now));
        changes.extend(watch.changes());
        // Not past the end, so that what is said belongs to the last scene.
        let seen = overload.read(shed, stage, settings.protection, now);
        let frame = Frame::new(settings, stage, now.min(stage.end()), watch, [&clients, &given], &changes, seen);
        view.show(&frame);
        if over {
            let (acts, astray, readings) = (watch.total(), watch.astray, watch.readings());
            let unanswered = through.open() + callers.open();
            return Told { clients, given, overload, acts, astray, changes, readings, unanswered, lag };
        }
    }
}
