//! What the compiler says to those who forget something. The messages are the compiler's, so they are compared only for the
//! version they were written with.

const WRITTEN_WITH: &str = "rustc 1.95.";

#[test]
fn mistakes_are_explained_by_the_compiler() {
    let rustc =
        std::process::Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into())).arg("--version").output();
    let version = String::from_utf8(rustc.expect("rustc runs").stdout).expect("its version is text");
    if !version.starts_with(WRITTEN_WITH) {
        eprintln!("SKIPPED: the messages were written with {WRITTEN_WITH}*, this is {version}");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
