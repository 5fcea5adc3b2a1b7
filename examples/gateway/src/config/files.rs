//! The files that a config names.

use std::{fs, path::Path};

/// What a PEM file must hold: its label's end, and its name.
pub(super) type Held = (&'static str, &'static str);

pub(super) const CERTIFICATE: Held = ("CERTIFICATE-----", "certificate");
pub(super) const KEY: Held = ("PRIVATE KEY-----", "private key");

/// No file that a config names is larger.
const MOST: u64 = 4 << 20;

/// The file's text, or why there is none.
pub(super) fn text(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?;
    if !length.is_file() {
        return Err("it is no file".to_owned());
    }
    if length.len() > MOST {
        return Err("it is larger than 4MiB".to_owned());
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Whether it is PEM and holds a `held`; whether that can be used is for those who use it to say.
pub(super) fn pem(path: &Path, (label, name): Held) -> Result<(), String> {
    let allowed = format!("a file in PEM, relative to this one, with a {name}");
    let text = text(path).map_err(|error| format!("{allowed}: {error}"))?;
    let holds = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(label));
    if holds { Ok(()) } else { Err(format!("{allowed}: it has none")) }
}
