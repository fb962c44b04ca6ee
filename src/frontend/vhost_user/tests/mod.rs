//! What holds of messages and rings whatever is done to them, by fuzzers with a seed whose input is mostly valid, so
//! that the parsers are really entered, and then bent.
//!
//! `SARSEN_FUZZ_ITERATIONS` and `SARSEN_FUZZ_SEED` make them run longer or elsewhere.

mod handover;
mod messages;
mod rings;

fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
        Err(_) => otherwise,
    }
}

fn iterations(otherwise: u64) -> u64 {
    number("SARSEN_FUZZ_ITERATIONS", otherwise)
}

fn seed() -> u64 {
    number("SARSEN_FUZZ_SEED", 1)
}
