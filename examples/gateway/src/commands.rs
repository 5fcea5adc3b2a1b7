//! The commands that only read a config.

use crate::config::{Config, Problems};
use clap::ValueEnum;
use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

/// How `check` says what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// With the lines it is about.
    #[default]
    Text,
    /// A list of objects.
    Json,
}

/// A config that cannot be used.
const UNUSABLE: u8 = 2;

/// Says what is wrong with a config, else what it comes to. Exit code 2: errors, with `strict` warnings, too.
pub(crate) fn check(path: &Path, format: Format, strict: bool) -> ExitCode {
    let read = Config::read(path);
    let problems = match &read {
        Ok(loaded) => &loaded.warnings,
        Err(problems) => problems,
    };
    let fails = read.is_err() || problems.are_errors(strict);
    let said = match (format, &read) {
        (Format::Json, _) => say(&(problems.json() + "\n")),
        (Format::Text, Ok(loaded)) if !fails => {
            let config = &loaded.config;
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let (routes, clusters) = (count(config.routes.len(), "route"), count(config.clusters.len(), "cluster"));
            let good = format!("{} is fine: {routes}, {clusters}\n\n{}", path.display(), config.chains());
            say(&good).and_then(|()| tell(problems))
        }
        (Format::Text, _) => tell(problems),
    };
    match said {
        _ if fails => ExitCode::from(UNUSABLE),
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints the config as it holds, with the origin of every value where that is asked for.
pub(crate) fn print_config(path: &Path, origin: bool) -> Result<ExitCode, Problems> {
    let loaded = Config::read(path)?;
    let text = loaded.effective(origin).to_string();
    Ok(if say(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn say(text: &str) -> io::Result<()> {
    io::stdout().lock().write_all(text.as_bytes())
}

fn tell(problems: &Problems) -> io::Result<()> {
    let error = io::stderr();
    problems.write(&mut error.lock(), error.is_terminal())
}
