//! `--demo`: the gateway between clients and two upstreams that misbehave on a script.

mod layers;
mod traffic;
mod upstreams;
mod view;

use crate::{
    config::Config,
    proxy::Gateway,
    server::{self, Phase},
};
use layers::{Acts, Side, Watch};
use std::{io, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until},
};
use traffic::{Call, End, Seen};
use upstreams::{SCRIPT_A, SCRIPT_B, Stage, Upstream};
use view::View;

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

/// Plays for `length`; `seed` decides when calls are made and how long answers take.
pub(crate) fn run(length: Duration, seed: u64) -> io::Result<ExitCode> {
    tokio::runtime::Runtime::new()?.block_on(play(length, seed))
}

async fn play(length: Duration, seed: u64) -> io::Result<ExitCode> {
    let (a, listens_a) = Upstream::bind(SCRIPT_A, seed).await?;
    let (b, listens_b) = Upstream::bind(SCRIPT_B, seed ^ 1).await?;
    let config = Config::parse(&config(&a, &b, length)).map_err(|errors| io::Error::other(errors.join("\n")))?;
    let gateway = Arc::new(Gateway::build(&config).map_err(io::Error::other)?);
    let listener = TcpListener::bind(config.server.listen).await?;
    let address = listener.local_addr()?;
    let (_running, phases) = watch::channel(Phase::Running);
    let mut watches = [Side::A, Side::B].map(|side| Watch::new(&gateway, side));
    let proxied = tokio::spawn(async move { server::serve(listener, gateway, &config.server, phases).await });

    let view = View::new();
    view.intro(length, seed, RATE, LIMIT, PER_TRY);
    let stage = Stage { start: Instant::now() + Duration::from_millis(50), length };
    let direct = [a.address(), b.address()];
    tokio::spawn(a.play(listens_a, stage));
    tokio::spawn(b.play(listens_b, stage));
    let uri = |text: String| text.parse().expect("an address and a path are a URI");
    let clients = [
        traffic::send(uri(format!("http://{address}/a")), RATE, None, seed ^ 2, stage),
        traffic::send(uri(format!("http://{address}/b")), RATE, None, seed ^ 3, stage),
    ];
    let given = [4, 5].map(|salt| {
        let upstream = direct[salt as usize - 4];
        traffic::send(uri(format!("http://{upstream}/")), PROBES, Some(PER_TRY * 2), seed ^ salt, stage)
    });

    let told = tell(&view, stage, &mut watches, &clients, &given).await;
    let holds = verdict(&view, stage, &told, &clients);
    proxied.abort();
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The config of the demo's gateway; what must fit the script scales with its length.
fn config(a: &Upstream, b: &Upstream, length: Duration) -> String {
    let millis = |share: f64, least: u64| (length.mul_f64(share).as_millis() as u64).max(least);
    let (window, open_for) = (millis(0.05, 500), millis(0.03, 100));
    let mut text = "[server]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, upstream) in [("a", a), ("b", b)] {
        text += &format!(
            r#"
            [route.{name}]
            prefix = "/{name}"
            upstream = "{name}"
            deadline = {{ total = "400ms" }}

            [upstream.{name}]
            address = "{address}"
            bulkhead = {{ limit = {LIMIT} }}
            deadline = {{ per_try = "{per_try}ms" }}

            [upstream.{name}.breaker]
            failure_rate = 0.5
            min_calls = 5
            window = {{ time = "{window}ms" }}
            open_for = "{open_for}ms"
            max_open = "{max_open}ms"
            "#,
            address = upstream.address(),
            per_try = PER_TRY.as_millis(),
            max_open = open_for * 2,
        );
    }
    text
}

/// What the whole demo saw.
struct Told {
    /// Calls through the gateway.
    clients: [Vec<Call>; 2],
    /// Calls that asked the upstreams directly.
    given: [Vec<Call>; 2],
    acts: [Acts; 2],
}

/// Prints every second until the stage closes.
async fn tell(
    view: &View,
    stage: Stage,
    watches: &mut [Watch; 2],
    clients: &[Arc<Seen>; 2],
    given: &[Arc<Seen>; 2],
) -> Told {
    let mut told = Told { clients: Default::default(), given: Default::default(), acts: Default::default() };
    let mut captions: Vec<_> = SCRIPT_A.iter().chain(SCRIPT_B).filter(|scene| !scene.caption.is_empty()).collect();
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
    fn add(&mut self, clients: [Vec<Call>; 2], given: [Vec<Call>; 2], acts: &[Acts; 2]) {
        for (all, more) in self.clients.iter_mut().chain(&mut self.given).zip(clients.into_iter().chain(given)) {
            all.extend(more);
        }
        for (all, more) in self.acts.iter_mut().zip(acts) {
            all.add(more);
        }
    }
}

/// Says what was to be shown, and whether it was.
fn verdict(view: &View, stage: Stage, told: &Told, clients: &[Arc<Seen>; 2]) -> bool {
    let mut all = true;
    let mut say = |holds: bool, text: String| {
        view.verdict(holds, &text);
        all &= holds;
    };
    view.heading("Verdict");
    for (side, acts) in [Side::A, Side::B].into_iter().zip(&told.acts) {
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
    let after = told.clients.each_ref().map(|calls| share_ok(calls, 0.93, 1.0));
    say(
        after.iter().all(|share| *share >= 99.0),
        format!(
            "all is well after the faults: {:.1} % of the last calls to A and {:.1} % to B went well",
            after[0], after[1]
        ),
    );
    view.end(all);
    all
}
