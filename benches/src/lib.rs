//! The micro-benchmarks live in `benches/`, what the gateway costs in `src/bin/gateway-cost`.
