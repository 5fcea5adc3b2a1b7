//! The reference gateway of Buttress: a reverse proxy whose routes run the whole chain.
//!
//! `buttress-gateway --demo` shows it working with upstreams that fail in front of your eyes;
//! `buttress-gateway run -c gateway.toml` puts it in front of real ones.

mod admin;
mod answer;
mod chain;
mod config;
mod demo;
mod message;
mod proxy;
mod router;
mod server;
mod tls;
mod trust;
mod tunnel;
mod upload;
mod upstream;

use clap::{Parser, Subcommand};
use config::{Config, Problems};
use proxy::Gateway;
use server::Listening;
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{self, SignalKind},
    sync::watch,
};

/// A reverse proxy that stays useful while its upstreams fail.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Shows the gateway at work between clients and three clusters that fail on a script.
    #[arg(long)]
    demo: bool,
    /// How long the demo goes on.
    #[arg(long, default_value = "20s", value_parser = demo_length, requires = "demo")]
    duration: Duration,
    /// Decides when the demo's calls are made and how long answers take.
    #[arg(long, default_value_t = 1, requires = "demo")]
    seed: u64,
    /// Whether the layers of the demo's gateway do anything: without them it shows what they are for.
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = switch, action = clap::ArgAction::Set, requires = "demo")]
    protection: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Proxies, as the config says, until SIGTERM or SIGINT; then drains: a second signal stops at once (exit code 1).
    Run {
        /// The config file.
        #[arg(short, long, default_value = "gateway.toml")]
        config: PathBuf,
    },
    /// Says what is wrong with a config, and starts nothing.
    Check {
        /// The config file.
        #[arg(short, long, default_value = "gateway.toml")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Run { config }) => run(&config),
        Some(Command::Check { config }) => check(&config),
        None if cli.demo => {
            let settings = demo::Settings { length: cli.duration, seed: cli.seed, protection: cli.protection };
            demo::run(settings).map_err(|error| Problems::one("--demo".as_ref(), error))
        }
        None => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn demo_length(text: &str) -> Result<Duration, String> {
    // A number alone is seconds, as with `sleep`.
    let length = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => buttress::core::config::parse_duration(text)?,
    };
    let allowed = Duration::from_secs(5)..=Duration::from_secs(3600);
    if allowed.contains(&length) { Ok(length) } else { Err("allowed: 5s to 1h".to_owned()) }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("allowed: on, off".to_owned()),
    }
}

fn check(path: &Path) -> Result<ExitCode, Problems> {
    let config = Config::read(path)?;
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (routes, clusters) = (count(config.routes.len(), "route"), count(config.clusters.len(), "cluster"));
    println!("{} is fine: {routes}, {clusters}", path.display());
    print!("\n{}", config.chains());
    for warning in config.warnings() {
        eprintln!("{}: warning: {warning}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn run(path: &Path) -> Result<ExitCode, Problems> {
    // The config is judged before anything starts.
    let config = Config::read(path)?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .init();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Problems::one(path, error))?;
    let ended = runtime.block_on(async {
        let gateway = Gateway::build(&config).map_err(|error| Problems::one(path, error))?;
        serve(config, gateway).await.map_err(|error| Problems::one(path, error))
    });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    ended
}

/// Runs until a signal, then drains until it is done or a second signal comes. A failure when calls had to be aborted.
async fn serve(config: Config, gateway: Gateway) -> std::io::Result<ExitCode> {
    let bind = async |field: &str, address| {
        TcpListener::bind(address)
            .await
            .map_err(|e| std::io::Error::new(e.kind(), format!("cannot listen on {address} (`{field}`): {e}")))
    };
    let mut listeners = Vec::new();
    for (name, listener) in &config.listeners {
        let tls = listener.tls.as_ref().map(tls::acceptor).transpose().map_err(std::io::Error::other)?;
        let listening = Listening { listener: bind(&format!("listener.{name}.address"), listener.address).await?, tls };
        let scheme = if listening.tls.is_some() { "https" } else { "http" };
        println!("listening on {scheme}://{}", listening.listener.local_addr()?);
        listeners.push(listening);
    }
    let admin = bind("admin.address", config.admin.address).await?;
    let mut signals = Signals::new()?;
    println!("admin on http://{}", admin.local_addr()?);

    let gateway = Arc::new(gateway);
    let (phase, phases) = watch::channel(server::Phase::Running);
    tokio::spawn(admin::serve(admin, gateway.clone(), phases.clone()));
    let drain = config.drain.min;
    let ordered_to_stop = async {
        signals.next().await;
        tracing::info!("draining; a second signal stops at once");
        phase.send_replace(server::Phase::Draining);
        let drained = async {
            tokio::time::sleep(drain).await;
            phase.send_replace(server::Phase::Stopping);
            std::future::pending().await
        };
        tokio::select! {
            () = signals.next() => {}
            () = drained => {}
        }
    };
    let aborted = tokio::select! {
        aborted = server::serve(listeners, gateway, &config, phases) => aborted,
        () = ordered_to_stop => {
            tracing::warn!("stopped by a second signal; what was in flight is aborted");
            return Ok(ExitCode::FAILURE);
        }
    };
    if aborted > 0 {
        tracing::warn!(connections = aborted, "aborted what did not end in time");
        return Ok(ExitCode::FAILURE);
    }
    tracing::info!("drained");
    Ok(ExitCode::SUCCESS)
}

/// SIGTERM and SIGINT, listened for from the beginning.
struct Signals {
    term: unix::Signal,
    int: unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: unix::signal(SignalKind::terminate())?, int: unix::signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
