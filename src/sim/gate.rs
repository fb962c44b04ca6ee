//! What `cargo sim` runs, and what it prints.
//!
//! Everything ends with a plain line `N passed, N failed`. A seed, an image enumeration, a break and the check that a
//! seed is the same twice each count as one; so does each class of faults or images, which fails where the run never had one.

use super::arguments::{Arguments, Task};
use super::breaks::{self, Verdict};
use super::checkers::invariants;
use super::crash_states::{self, Enumeration};
use super::fault::Fault;
use super::node::Machine;
use super::world::{Counts, Outcome};
use crate::base::{Break, Breaks};
use std::time::Duration;

/// Seeds that found something once, with what it was.
const FOUND: &str = include_str!("regressions/found.txt");

/// What the gate runs.
const GATE_SEEDS: u64 = 200;
const GATE_IMAGES: u64 = 10_000;
/// Seeds that are run twice.
const GATE_TWICE: u64 = 3;
/// From so many seeds on, a class of faults that was never consumed makes the run void.
const SEEDS_FOR_ALL_CLASSES: u64 = 100;

/// Counts what passed and what failed.
struct Tally {
    passed: u64,
    failed: u64,
    /// Since the program began; the one thing from the world that is needed, and only for the rate.
    clock: fn() -> Duration,
}

impl Tally {
    fn pass(&mut self) {
        self.passed += 1;
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        println!("FAILED: {what}");
    }
}

/// Does what the command line says; whether everything passed.
pub fn run<M: Machine>(arguments: &Arguments, clock: fn() -> Duration) -> bool {
    let mut tally = Tally {
        passed: 0,
        failed: 0,
        clock,
    };
    match arguments.task {
        Task::ListBreaks => {
            for &which in Break::ALL {
                let finder = breaks::checker_of(which).name();
                println!("{:<22} found by {finder}", which.name());
            }
            return true;
        }
        Task::Breaks => run_breaks::<M>(&mut tally),
        Task::Seeds => run_seeds::<M>(arguments, &mut tally),
        Task::Images(wanted) => {
            let planted = arguments.planted.map_or(Breaks::NONE, Breaks::only);
            run_images::<M>(
                wanted,
                arguments.start,
                planted,
                arguments.trace,
                &mut tally,
            );
        }
        Task::Gate => {
            let seeds = Arguments {
                seeds: GATE_SEEDS,
                ..arguments.clone()
            };
            run_seeds::<M>(&seeds, &mut tally);
            run_found::<M>(arguments, &mut tally);
            run_images::<M>(
                GATE_IMAGES,
                arguments.start,
                Breaks::NONE,
                arguments.trace,
                &mut tally,
            );
            run_breaks::<M>(&mut tally);
            run_twice::<M>(arguments.start, &mut tally);
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    tally.failed == 0
}

/// The seeds that found something once.
fn run_found<M: Machine>(arguments: &Arguments, tally: &mut Tally) {
    for line in FOUND.lines().filter(|line| !line.starts_with('#')) {
        let (seed, what) = line.split_once(' ').unwrap_or((line, ""));
        let outcome = match seed.parse() {
            Ok(seed) => breaks::run::<M>(seed, Breaks::NONE, arguments.trace).result,
            Err(error) => {
                tally.fail(format!("regressions/found.txt, {line:?}: {error}"));
                continue;
            }
        };
        match outcome {
            Ok(()) => tally.pass(),
            Err(failure) => tally.fail(format!("seed {seed} again ({what}): {failure}")),
        }
    }
}

fn run_seeds<M: Machine>(arguments: &Arguments, tally: &mut Tally) {
    let planted = arguments.planted.map_or(Breaks::NONE, Breaks::only);
    let began = (tally.clock)();
    let mut counts = Counts::default();
    for seed in arguments.start..arguments.start + arguments.seeds {
        let outcome = breaks::run::<M>(seed, planted, arguments.trace);
        counts.add(&outcome.counts);
        if arguments.seeds == 1 {
            println!("trace hash {}", outcome.hash);
        }
        match outcome.result {
            Ok(()) => tally.pass(),
            Err(failure) => {
                tally.fail(format!("seed {seed}: {failure}{}", replay(seed, arguments)))
            }
        }
    }
    report_counts(&counts, (tally.clock)() - began);
    if arguments.seeds >= SEEDS_FOR_ALL_CLASSES && arguments.planted.is_none() {
        for &fault in Fault::ALL {
            match counts.faults.of(fault) {
                (_, 0) => tally.fail(format!("void: no {} fault was consumed", fault.name())),
                _ => tally.pass(),
            }
        }
    }
}

fn replay(seed: u64, arguments: &Arguments) -> String {
    let planted = arguments.planted;
    let planted = planted.map_or(String::new(), |which| format!(" --break {}", which.name()));
    format!("\n    replay: cargo sim store {seed}{planted} --trace")
}

fn report_counts(counts: &Counts, took: Duration) {
    let rate = counts.steps as f64 / took.as_secs_f64().max(1e-9);
    println!(
        "{} seeds, {} operations, {} steps, {rate:.0} steps/s",
        counts.seeds, counts.operations, counts.steps
    );
    println!(
        "{} lives, {} verified whole, {} checkpoints, {} journal wraps, {} snapshots, {} started over",
        counts.lives,
        counts.verified,
        counts.checkpoints,
        counts.wraps,
        counts.snapshots,
        counts.started_over
    );
    println!("faults (injected, consumed):");
    for &fault in Fault::ALL {
        let (injected, consumed) = counts.faults.of(fault);
        println!("    {:<18} {injected:>8} {consumed:>8}", fault.name());
    }
}

fn run_images<M: Machine>(
    wanted: u64,
    start: u64,
    planted: Breaks,
    trace: bool,
    tally: &mut Tally,
) {
    let began = (tally.clock)();
    let done: Enumeration = crash_states::enumerate::<M>(wanted, start, planted, trace);
    let images = &done.images;
    println!(
        "{} distinct crash states ({} built again), {} special, in {:.1} s:",
        images.distinct,
        images.repeated,
        images.special,
        ((tally.clock)() - began).as_secs_f64()
    );
    for (kind, count) in images.kinds() {
        println!("    {kind:<18} {count:>8}");
    }
    for bad in &done.bad {
        tally.fail(format!(
            "image {} of seed {}: {}\n    replay: cargo sim store --images {} --start {} --trace",
            bad.image, bad.seed, bad.failure, bad.image, bad.seed
        ));
    }
    match images.void() {
        _ if !done.bad.is_empty() => {}
        Some(why) => tally.fail(format!("void: {why}")),
        None if images.distinct < wanted => tally.fail(format!("only {} images", images.distinct)),
        None => tally.pass(),
    }
}

fn run_breaks<M: Machine>(tally: &mut Tally) {
    for &which in Break::ALL {
        let (name, finder) = (which.name(), breaks::checker_of(which).name());
        match invariants::quietly(|| breaks::judge::<M>(which)) {
            Verdict::Found { seed } => {
                println!("break {name:<22} found by {finder} on seed {seed}");
                tally.pass();
            }
            Verdict::FoundAnew { seed } => {
                println!("break {name:<22} found by {finder}; pin it anew: {name} {seed}");
                tally.pass();
            }
            Verdict::Missed { instead } => {
                let instead: Vec<String> = instead
                    .iter()
                    .map(|(seed, checker)| format!("{} on {seed}", checker.name()))
                    .collect();
                tally.fail(format!(
                    "break {name}: {finder} does not find it (others: {})",
                    instead.join(", ")
                ));
            }
        }
    }
}

fn run_twice<M: Machine>(start: u64, tally: &mut Tally) {
    for seed in start..start + GATE_TWICE {
        let hash = || {
            let Outcome { hash, .. } = breaks::run::<M>(seed, Breaks::NONE, false);
            hash
        };
        let (first, second) = (hash(), hash());
        match first == second {
            true => tally.pass(),
            false => tally.fail(format!("seed {seed} has the traces {first} and {second}")),
        }
    }
    println!("{GATE_TWICE} seeds run twice");
}
