//! The reference gateway of Buttress: a reverse proxy whose routes run the whole chain.
//!
//! `buttress-gateway --demo` shows it working with upstreams that fail in front of your eyes;
//! `buttress-gateway run -c gateway.toml` puts it in front of real ones.

mod admin;
mod chain;
mod commands;
mod config;
mod demo;
mod proxy;
mod server;
mod upload;
mod upstream;

use clap::{Parser, Subcommand};
use commands::Format;
use config::{Config, Loaded, Problems};
use proxy::Gateway;
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
    /// Shows the gateway at work between clients and three upstreams that fail on a script.
    #[arg(long)]
    demo: bool,
    /// How long the demo goes on.
    #[arg(long, default_value = "20s", value_parser = demo_length, requires = "demo")]
    duration: Duration,
    /// Decides when the demo's calls are made and how long answers take.
    #[arg(long, default_value_t = 1, requires = "demo")]
    seed: u64,
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
    /// Says what is wrong with a config, and starts nothing. Exit code 2: it cannot be used.
    Check {
        /// The config file.
        #[arg(short, long, default_value = "gateway.toml")]
        config: PathBuf,
        /// How it is said.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Takes warnings for errors.
        #[arg(long)]
        strict: bool,
    },
    /// Prints a config as it holds: with what is inherited and all defaults written out.
    PrintConfig {
        /// The config file.
        #[arg(short, long, default_value = "gateway.toml")]
        config: PathBuf,
        /// Says of each value where it came from: a line, a policy, a default.
        #[arg(long)]
        origin: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Run { config }) => run(&config),
        Some(Command::Check { config, format, strict }) => Ok(commands::check(&config, format, strict)),
        Some(Command::PrintConfig { config, origin }) => commands::print_config(&config, origin),
        None if cli.demo => demo::run(cli.duration, cli.seed).map_err(|error| Problems::one("--demo".as_ref(), error)),
        None => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|problems| problems.report())
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

fn run(path: &Path) -> Result<ExitCode, Problems> {
    // The config is judged before anything starts.
    let Loaded { config, warnings, .. } = Config::read(path)?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .init();
    for warning in warnings.iter() {
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
    let bind = async |field, address| {
        TcpListener::bind(address)
            .await
            .map_err(|e| std::io::Error::new(e.kind(), format!("cannot listen on {address} (`{field}`): {e}")))
    };
    let listener = bind("listener", config.listeners.values().next().expect("there is one").address).await?;
    let admin = bind("admin.address", config.admin.address).await?;
    let mut signals = Signals::new()?;
    println!("listening on http://{}", listener.local_addr()?);
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
        aborted = server::serve(listener, gateway, &config, phases) => aborted,
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
