//! The reference gateway of Buttress: a reverse proxy whose routes run the whole chain.
//!
//! `buttress-gateway --demo` shows it working with upstreams that fail in front of your eyes;
//! `buttress-gateway run gateway.toml` puts it in front of real ones.

mod admin;
mod answer;
mod chain;
mod clients;
mod commands;
mod config;
mod demo;
mod message;
mod orders;
mod proxy;
mod quota;
mod router;
mod run;
mod server;
mod taken;
mod tls;
mod trust;
mod tunnel;
mod upload;
mod upstream;

use clap::{Parser, Subcommand};
use commands::Format;
use config::Problems;
use orders::Order;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// A reverse proxy that stays useful while its upstreams fail.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, args_conflicts_with_subcommands = true)]
struct Cli {
    /// Shows the gateway at work between clients and four clusters: three fail on a script, one gets too many calls.
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
        #[command(flatten)]
        file: File,
    },
    /// Says what is wrong with a config, and starts nothing. Exit code 2: it cannot be used.
    Check {
        #[command(flatten)]
        file: File,
        /// How it is said.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Takes warnings for errors.
        #[arg(long)]
        strict: bool,
    },
    /// Prints a config as it holds: with what is inherited and all defaults written out.
    PrintConfig {
        #[command(flatten)]
        file: File,
        /// Says of each value where it came from: a line, a policy, a default.
        #[arg(long)]
        origin: bool,
    },
    #[command(flatten)]
    Order(Order),
}

/// Which config: `check gateway.toml` is the same as `check -c gateway.toml`.
#[derive(clap::Args)]
struct File {
    /// The config file.
    #[arg(value_name = "FILE", default_value = "gateway.toml")]
    file: PathBuf,
    /// The same.
    #[arg(short, long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
}

impl File {
    fn path(&self) -> &Path {
        self.config.as_ref().unwrap_or(&self.file)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    raise_open_files();
    let result = match cli.command {
        Some(Command::Run { file }) => run::run(file.path()),
        Some(Command::Check { file, format, strict }) => Ok(commands::check(file.path(), format, strict)),
        Some(Command::PrintConfig { file, origin }) => commands::print_config(file.path(), origin),
        Some(Command::Order(order)) => Ok(orders::give(order)),
        None if cli.demo => {
            let settings = demo::Settings { length: cli.duration, seed: cli.seed, protection: cli.protection };
            demo::run(settings).map_err(|error| Problems::one("--demo".as_ref(), error))
        }
        None => Ok(ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|problems| problems.report())
}

/// Each call needs two file descriptors, and 1024 is what most systems let a process have until it asks for more. Where that is refused it
/// does with what there is.
fn raise_open_files() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
}

fn demo_length(text: &str) -> Result<Duration, String> {
    // A number alone is seconds, as with `sleep`.
    let length = match text.parse::<u32>() {
        Ok(seconds) => Duration::from_secs(seconds.into()),
        Err(_) => buttress::core::config::parse_duration(text)?,
    };
    let allowed = Duration::from_secs(10)..=Duration::from_secs(3600);
    if allowed.contains(&length) { Ok(length) } else { Err("allowed: 10s to 1h".to_owned()) }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("allowed: on, off".to_owned()),
    }
}
