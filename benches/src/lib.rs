//! Benchmarks live in `benches/`, one file per thing measured.
