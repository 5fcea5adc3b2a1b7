//! scratch
#![allow(dead_code)]
mod chain;
mod contestant;
mod goals;
mod metric;
mod scenario;
mod setup;
fn main() {
    let setup = setup::Setup::default();
    let only: Vec<String> = std::env::args().skip(1).collect();
    for s in scenario::SCENARIOS.iter().filter(|s| only.is_empty() || only.iter().any(|o| o == goals::number(s.name))) {
        for c in contestant::Contestant::ALL {
            if !s.admits(&setup, c) { continue; }
            #[allow(clippy::disallowed_methods)]
            let t = std::time::Instant::now();
            let p = s.play(&setup, c, 1);
            #[allow(clippy::disallowed_methods)]
            let e = t.elapsed();
            println!("{:10} {:8} {:?} {:?}", s.name, c.name(), e, p.metrics);
        }
    }
}
