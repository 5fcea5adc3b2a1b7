//! What `check` says of every kind of config that is wrong: `tests/configs/*.toml`, with the whole answer beside each, as text
//! (`.txt`) and for some as JSON (`.json`). After a change that is meant, `BLESS=1 cargo test -p buttress-gateway golden` writes the
//! answers anew: read them before they are committed.

use crate::process::binary;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/configs");

fn configs() -> Vec<PathBuf> {
    let files = fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().path());
    let mut configs: Vec<_> = files.filter(|path| path.extension() == Some(OsStr::new("toml"))).collect();
    configs.sort();
    configs
}

/// Relative to its folder, so that the answer is the same wherever the tree stands.
fn check(config: &Path, args: &[&str]) -> Output {
    binary().current_dir(FOLDER).arg("check").args(args).arg("-c").arg(config.file_name().unwrap()).output().unwrap()
}

/// Compares with the file, or writes it; whether it is the same.
fn is_as_written(path: &Path, said: &str) -> bool {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, said).unwrap();
        return true;
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    if written != said {
        eprintln!("{} says\n{written}\nand is\n{said}\n", path.display());
    }
    written == said
}

#[test]
fn every_wrong_config_is_answered_as_it_is_written_down() {
    let configs = configs();
    assert!(configs.len() > 20, "{configs:?}");
    let mut others = Vec::new();
    for config in configs {
        let output = check(&config, &[]);
        let text = String::from_utf8(output.stderr).unwrap();
        let code = if text.contains("Error: ") { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{}: {text}", config.display());
        assert!(!text.is_empty(), "{} is fine", config.display());
        if !is_as_written(&config.with_extension("txt"), &text) {
            others.push(config);
        }
    }
    assert!(others.is_empty(), "not as written (BLESS=1 writes them anew): {others:?}");
}

#[test]
fn some_are_answered_in_json_as_it_is_written_down() {
    let with_json: Vec<_> = configs().into_iter().filter(|path| path.with_extension("json").exists()).collect();
    assert!(with_json.len() >= 3, "{with_json:?}");
    for config in with_json {
        let output = check(&config, &["--format", "json"]);
        let json = String::from_utf8(output.stdout).unwrap();
        assert!(output.stderr.is_empty());
        assert!(is_as_written(&config.with_extension("json"), &json), "{} (BLESS=1)", config.display());
        let list: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
        assert_eq!(list.iter().any(|entry| entry["severity"] == "error"), output.status.code() == Some(2));
    }
}
