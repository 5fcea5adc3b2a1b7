//! `--demo`: the gateway between clients and three upstreams that misbehave on a script.

mod layers;
mod traffic;
mod upstreams;
mod view;

use crate::{
    config::Config,
    proxy::Gateway,
    server::{self, Listening, Phase},
};
use layers::{Acts, Side, Watch};
use std::{io, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use traffic::{Call, End, Seen};
use upstreams::{SCRIPT_A, SCRIPT_B, SCRIPT_C, SCRIPT_C1, Stage, Upstream};
use view::View;

const SIDES: [Side; 3] = [Side::A, Side::B, Side::C];
/// Calls a second to each upstream, through the gateway.
const RATE: f64 = 60.0;
/// Calls a second that ask each upstream directly.
const PROBES: f64 = 10.0;
/// Calls at a time to each upstream.
const LIMIT: u32 = 8;
/// What a call gets before it is cut off.
const PER_TRY: Duration = Duration::from_millis(250);
/// What a busy machine may add to that.
const MARGIN: Duration = Duration::from_millis(150);
/// Retries per call that C's budget pays for, and per second besides.
const RATIO: f64 = 0.1;
const FLOOR: f64 = 1.0;

/// Plays for `length`; `seed` decides when calls are made and how long answers take.
pub(crate) fn run(length: Duration, seed: u64) -> io::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(play(length, seed))
}

async fn play(length: Duration, seed: u64) -> io::Result<ExitCode> {
    let (a, listens_a) = Upstream::bind(SCRIPT_A, seed).await?;
    let (b, listens_b) = Upstream::bind(SCRIPT_B, seed ^ 1).await?;
    let mut fleet = Vec::new();
    for (salt, script) in [(6, SCRIPT_C1), (7, SCRIPT_C), (8, SCRIPT_C)] {
        fleet.push(Upstream::bind(script, seed ^ salt).await?);
    }
    let fleet_addresses: Vec<_> = fleet.iter().map(|(upstream, _)| upstream.address()).collect();
    let config =
        Config::parse(&config([a.address(), b.address()], &fleet_addresses, length)).map_err(io::Error::other)?;
    let gateway = Arc::new(Gateway::build(&config).map_err(io::Error::other)?);
    let listener = TcpListener::bind(config.listeners["demo"].address).await?;
    let address = listener.local_addr()?;
    let (_running, phases) = watch::channel(Phase::Running);
    let mut watches = SIDES.map(|side| Watch::new(&gateway, side));
    let listeners = vec![Listening { listener, tls: None }];
    let proxied = tokio::spawn(async move { server::serve(listeners, gateway, &config, phases).await });

    let view = View::new();
    view.intro(length, seed, RATE, LIMIT, PER_TRY, RATIO);
    let stage = Stage { start: Instant::now() + Duration::from_millis(50), length };
    let direct = [vec![a.address()], vec![b.address()], fleet_addresses];
    for (upstream, listens) in [(a, listens_a), (b, listens_b)].into_iter().chain(fleet) {
        tokio::spawn(upstream.play(listens, stage));
    }
    let uri = |text: String| text.parse().expect("an address and a path are a URI");
    let mut seeds = (16..).map(|salt| seed ^ salt);
    let mut salted = || seeds.next().expect("there are many");
    let clients = SIDES.map(|side| {
        let path = uri(format!("http://{address}/{}", side.name()));
        traffic::send(vec![path], RATE, None, salted(), stage)
    });
    let given = direct.map(|endpoints| {
        let uris = endpoints.into_iter().map(|endpoint| uri(format!("http://{endpoint}/"))).collect();
        traffic::send(uris, PROBES, Some(PER_TRY * 2), salted(), stage)
    });

    let told = tell(&view, stage, &mut watches, &clients, &given).await;
    let holds = verdict(&view, stage, &told, &clients);
    proxied.abort();
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The config of the demo's gateway; what must fit the script scales with its length.
fn config(addresses: [SocketAddr; 2], fleet: &[SocketAddr], length: Duration) -> String {
    let millis = |share: f64, least: u64| (length.mul_f64(share).as_millis() as u64).max(least);
    let (window, open_for) = (millis(0.05, 500), millis(0.03, 100));
    let mut text = "[listener.demo]\naddress = \"127.0.0.1:0\"\n".to_owned();
    for (name, address) in ["a", "b"].into_iter().zip(addresses) {
        text += &format!(
            r#"
            [route.{name}]
            prefix = "/{name}"
            cluster = "{name}"
            deadline = {{ total = "400ms" }}
            retry = false

            [cluster.{name}]
            endpoints = "{address}"
            bulkhead = {{ limit = {LIMIT} }}
            deadline = {{ per_try = "{per_try}ms" }}

            [cluster.{name}.breaker]
            failure_rate = 0.5
            min_calls = 5
            window = {{ time = "{window}ms" }}
            open_for = "{open_for}ms"
            max_open = "{max_open}ms"
            "#,
            per_try = PER_TRY.as_millis(),
            max_open = open_for * 2,
        );
    }
    let fleet: Vec<_> = fleet.iter().map(|address| format!("\"{address}\"")).collect();
    text += &format!(
        r#"
        [route.c]
        prefix = "/c"
        cluster = "c"
        deadline = {{ total = "400ms" }}

        [route.c.retry]
        max_attempts = 3
        backoff = {{ kind = "full_jitter", base = "10ms", cap = "50ms" }}
        budget = {{ ratio = {RATIO:?}, min_per_sec = {FLOOR:?} }}

        [cluster.c]
        endpoints = [{fleet}]
        breaker = false
        "#,
        fleet = fleet.join(", "),
    );
    text
}

/// What the whole demo saw.
struct Told {
    /// Calls through the gateway.
    clients: [Vec<Call>; 3],
    /// Calls that asked the upstreams directly.
    given: [Vec<Call>; 3],
    acts: [Acts; 3],
}

/// Prints every second until the stage closes.
async fn tell(
    view: &View,
    stage: Stage,
    watches: &mut [Watch; 3],
    clients: &[Arc<Seen>; 3],
    given: &[Arc<Seen>; 3],
) -> Told {
    let mut told = Told { clients: Default::default(), given: Default::default(), acts: Default::default() };
    let scenes = SCRIPT_A.iter().chain(SCRIPT_B).chain(SCRIPT_C1);
    let mut captions: Vec<_> = scenes.filter(|scene| !scene.caption.is_empty()).collect();
    captions.sort_by(|a, b| a.from.total_cmp(&b.from));
    let mut captions = captions.into_iter().peekable();
    // What happens at a row's time belongs after that row; a millisecond is for what shares of seconds lose.
    let mut caption = |now: Instant, row: Instant| {
        let due = |at: Instant| at <= now && at + Duration::from_millis(1) < row;
        while let Some(scene) = captions.next_if(|scene| due(stage.at(scene.from))) {
            view.caption(stage.length.mul_f64(scene.from), scene.caption);
        }
    };
    let mut row = stage.start + Duration::from_secs(1);
    let mut seconds = interval_at(stage.start + Duration::from_secs(1), Duration::from_secs(1));
    let mut samples = interval_at(stage.start, Duration::from_millis(5));
    samples.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = stage.start + stage.length + Duration::from_millis(100);
    loop {
        let now = tokio::select! {
            biased;
            now = seconds.tick() => now,
            _ = samples.tick() => {
                watches.iter_mut().for_each(Watch::sample);
                caption(Instant::now(), row);
                continue;
            }
            () = sleep_until(end) => break,
        };
        caption(now, now);
        row = now + Duration::from_secs(1);
        let (seen, met) = (clients.each_ref().map(|s| s.take()), given.each_ref().map(|s| s.take()));
        let acts = watches.each_mut().map(Watch::take);
        view.second(now - stage.start, &seen.concat(), met.each_ref().map(Vec::as_slice), acts.each_ref());
        told.add(seen, met, &acts);
    }
    // What is still under way ends within a deadline, or not at all.
    for _ in 0..100 {
        if clients.iter().all(|seen| seen.open() == 0) {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let (seen, met) = (clients.each_ref().map(|s| s.take()), given.each_ref().map(|s| s.take()));
    told.add(seen, met, &watches.each_mut().map(Watch::take));
    told
}

impl Told {
    fn add(&mut self, clients: [Vec<Call>; 3], given: [Vec<Call>; 3], acts: &[Acts; 3]) {
        for (all, more) in self.clients.iter_mut().chain(&mut self.given).zip(clients.into_iter().chain(given)) {
            all.extend(more);
        }
        for (all, more) in self.acts.iter_mut().zip(acts) {
            all.add(more);
        }
    }
}

/// Says what was to be shown, and whether it was.
fn verdict(view: &View, stage: Stage, told: &Told, clients: &[Arc<Seen>; 3]) -> bool {
    let mut all = true;
    let mut say = |holds: bool, text: String| {
        view.verdict(holds, &text);
        all &= holds;
    };
    view.heading("Verdict");
    for (side, acts) in SIDES.into_iter().zip(&told.acts).take(2) {
        let holds = acts.became("open") && acts.became("closed") && acts.states.last() == Some(&"closed");
        say(holds, format!("the breaker around {side} opened, refused {} calls, and closed again", acts.refused));
    }
    let (cut, full) = (told.acts.iter().map(|a| a.cut).sum::<u64>(), told.acts.iter().map(|a| a.full).sum::<u64>());
    say(cut > 0, format!("deadlines cut off {cut} calls that got no answer"));
    say(full > 0, format!("full bulkheads refused {full} calls"));

    let (through, direct) = (told.clients.concat(), told.given.concat());
    let unanswered: usize = clients.iter().map(|seen| seen.open()).sum();
    let p99 = view::quantile(&through, 0.99);
    let hung = direct.iter().filter(|call| call.end == End::Hung).count();
    say(
        unanswered == 0 && p99 <= PER_TRY + MARGIN,
        format!(
            "no client hung: p99 of all {} calls {}, the slowest {}, {unanswered} unanswered\n        (the same upstreams asked without the gateway: {hung} of {} calls hung)",
            through.len(),
            view::millis(p99),
            view::millis(view::quantile(&through, 1.0)),
            direct.len(),
        ),
    );
    let share_ok = |calls: &[Call], from: f64, to: f64| {
        let (mut ok, mut count) = (0, 0);
        for call in calls.iter().filter(|call| (stage.at(from)..stage.at(to)).contains(&call.began)) {
            ok += usize::from(call.end == End::Ok);
            count += 1;
        }
        if count == 0 { 0.0 } else { 100.0 * f64::from(ok as u32) / f64::from(count) }
    };
    let beside = share_ok(&told.clients[0], SCRIPT_B[1].from, SCRIPT_B[4].from);
    say(
        beside >= 99.0,
        format!("A's clients did not feel B's troubles: {beside:.1} % of their calls went well meanwhile"),
    );
    let c = &told.acts[2];
    // A call that is under way when the others fail as well may meet them.
    let phase = (SCRIPT_C1[1].from, SCRIPT_C1[2].from - 0.01);
    let one_fails = share_ok(&told.clients[2], phase.0, phase.1);
    let direct = share_ok(&told.given[2], phase.0, phase.1);
    say(
        one_fails >= 99.0 && direct < 90.0,
        format!(
            "C's clients did not feel that one of its endpoints failed: {one_fails:.1} % of their calls went well\n        (without the gateway: {direct:.1} %)"
        ),
    );
    let most = RATIO * told.clients[2].len() as f64 + FLOOR * (stage.length.as_secs_f64() + 1.0);
    say(
        c.denied > 0 && c.retried as f64 <= most,
        format!(
            "the budget kept retries down when all of C failed: {} for {} calls, {} denied",
            c.retried,
            told.clients[2].len(),
            c.denied
        ),
    );
    let after = told.clients.each_ref().map(|calls| share_ok(calls, 0.93, 1.0));
    say(
        after.iter().all(|share| *share >= 99.0),
        format!(
            "all is well after the faults: {:.1} %, {:.1} % and {:.1} % of the last calls to A, B and C went well",
            after[0], after[1], after[2]
        ),
    );
    view.end(all);
    all
}
