//! The micro-benchmarks live in `benches/`, what the gateway costs in `src/bin/gateway-cost`, how layers behave under failure in
//! `src/bin/track`.
