//! The micro-benchmarks live in `benches/`; what the gateway costs, and overload over real sockets, in `src/bin/`.
