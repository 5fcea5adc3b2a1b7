//! The micro-benchmarks live in `benches/`; what the gateway costs, how layers behave under failure (`track`), and overload over real
//! sockets (`overload`), in `src/bin/`.
