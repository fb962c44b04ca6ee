//! `cargo sim cluster`: what it runs, and what it prints.
//!
//! Everything ends with a plain line `N passed, N failed`. A seed, a rule that is switched off and a seed that is the same twice each
//! count as one; so does each class of faults, which fails where a run of many seeds never consumed one.

use super::checkers::{Failure, Promise};
use super::coverage::Fault;
use super::message::BRANCHES;
use super::plan::Plan;
use super::shelf::Stores;
use super::shrink::{Shrunk, shrink};
use super::swarm::Knobs;
use super::world::{Counts, Off, World};
use crate::base::{Break, Breaks};
use crate::protocol::{membership, replication, scrub, steward};
use crate::sim::arguments::Misunderstood;
use crate::sim::checkers::invariants;
use std::collections::BTreeMap;
use std::time::Duration;

pub const USAGE: &str = "\
usage: cargo sim cluster [SEED] [options]

  SEED              run this seed alone
  --seeds N         run N seeds (default 100)
  --start S         the first of them (default 0)
  --rule NAME       switch a rule off
  --list-rules      name the rules
  --rules           switch every rule off, each on its pinned seed; search one where there is none, or it is stale
  --search N        how many seeds are searched for it (default 200)
  --whole-stores    whole stores on simulated disks under the replicas; with room, and without lost writes and torn tables
  --trace           print a line for every event of SEED
  --gate            what the gate runs: 500 seeds, 40 with whole stores, regressions, rules, determinism
";

/// What the gate runs.
const GATE_SEEDS: u64 = 500;
const GATE_WHOLE: u64 = 40;
/// Seeds that are run twice.
const GATE_TWICE: u64 = 3;
/// From so many seeds on, a class of faults that was never consumed makes the run void.
const SEEDS_FOR_ALL_CLASSES: u64 = 100;
/// Plans that are run to make a failing one smaller, and steps of them all: a minute or less.
const SHRINKS_MAX: u32 = 400;
const SHRINK_STEPS_MAX: u64 = 30_000_000;
/// So many failing seeds of one call are made smaller.
const SHRUNK_MAX: u64 = 3;

/// Seeds that found something once, with what it was.
const FOUND: &str = include_str!("../regressions/cluster.txt");
/// For each rule a seed that misses it.
const PINNED: &str = include_str!("../regressions/rules.txt");

/// Rules that no seed is pinned for, and where their absence shows: a test, or what is run by hand.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "r9",
        "protocol/replication/tests/explore.rs: each_rule_that_is_switched_off_is_missed",
    ),
    ("r13-settled", SELDOM),
    (
        "r14-own",
        "nowhere: R14 (window) and R15 (entries) cover it, see docs/simulation.md",
    ),
    ("r16", SELDOM),
    (
        "r17",
        "protocol/volume/groups/tests.rs: with_the_rule_off_a_value_is_handed_out_after_the_lease_has_ended",
    ),
    (
        "r17-anew",
        "protocol/volume/groups/tests.rs: with_the_rule_off_a_later_lease_covers_everything",
    ),
    (
        "r18-confirm",
        "protocol/replication/tests/explore.rs: each_rule_that_is_switched_off_is_missed",
    ),
    (
        "r18-joining",
        "protocol/replication/tests/explore.rs: a_joiner_that_does_not_have_to_confirm_is_missed",
    ),
    (
        "r18-after",
        "protocol/replication/tests/explore.rs: a_confirmation_that_was_asked_for_before_the_value_was_there_is_missed",
    ),
    ("count-from-send", LEASES),
    ("drift-counts", LEASES),
    ("check-in-hand", LEASES),
    ("new-leader-waits", LEASES),
    ("majority-confirms", LEASES),
    ("expiry-confirmed", LEASES),
    (
        "clocks-are-checked",
        "protocol/membership/tests/clocks.rs: clocks_that_are_not_checked_are_not_found",
    ),
    (
        "mend-checksum",
        "protocol/scrub/tests/world.rs: each_rule_of_repair_that_is_switched_off_is_missed",
    ),
    (
        "mend-newer",
        "protocol/scrub/tests/world.rs: each_rule_of_repair_that_is_switched_off_is_missed",
    ),
    ("r11-version", STEWARD),
    ("r11-words", STEWARD),
    ("r24", STEWARD),
];
const SELDOM: &str =
    "protocol/replication/tests/explore.rs: each_rule_that_is_seldom_missed_is_missed";
const LEASES: &str =
    "protocol/membership/tests/properties.rs: each_rule_switched_off_is_found_broken";
const STEWARD: &str = "protocol/steward/tests/mod.rs: every_rule_that_is_switched_off_is_missed";

/// Planted breaks of the coordinator, and of the store under a replica, that this world has to find as well. Not among them: a stamp that stays
/// too high, and chunks of a replica that was dropped. Both make a session longer and nothing wrong: what is listed because of them is compared
/// with the source, which wins.
const PLANTED: &[Break] = &[
    Break::NoOverlapWait,
    Break::ExtentEdge,
    Break::ForgetMerge,
    Break::NoDsync,
    Break::LoseWindow,
    Break::LoseTombstone,
];

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arguments {
    start: u64,
    seeds: u64,
    search: u64,
    rule: Option<String>,
    what: What,
    stores: Stores,
    trace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Seeds,
    Rules,
    ListRules,
    Gate,
}

/// Every rule by its name, and how it is switched off.
fn rules() -> Vec<(&'static str, Off)> {
    let mut all = Vec::new();
    for &planted in PLANTED {
        let name = match planted {
            Break::NoOverlapWait => "r2",
            other => other.name(),
        };
        let breaks = Breaks::only(planted);
        all.push((
            name,
            Off {
                breaks,
                ..Off::default()
            },
        ));
    }
    for &rule in replication::Rule::ALL {
        let replication = replication::RulesOff::only(rule);
        all.push((
            rule.name(),
            Off {
                replication,
                ..Off::default()
            },
        ));
    }
    for &rule in membership::Rule::ALL {
        let membership = membership::RulesOff::only(rule);
        all.push((
            rule.name(),
            Off {
                membership,
                ..Off::default()
            },
        ));
    }
    for &rule in scrub::Rule::ALL {
        let scrub = scrub::RulesOff::only(rule);
        all.push((
            rule.name(),
            Off {
                scrub,
                ..Off::default()
            },
        ));
    }
    for &rule in steward::Rule::ALL {
        let steward = steward::RulesOff::only(rule);
        let name = match rule {
            steward::Rule::R16 => "r16-promotion",
            other => other.name(),
        };
        all.push((
            name,
            Off {
                steward,
                ..Off::default()
            },
        ));
    }
    all
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, Misunderstood> {
    let mut parsed = Arguments {
        start: 0,
        seeds: 100,
        search: 200,
        rule: None,
        what: What::Seeds,
        stores: Stores::Shelves,
        trace: false,
    };
    let wrong = |what: String| Misunderstood(format!("{what}\n\n{USAGE}"));
    let number = |word: &str, value: &str| {
        let not = |_| wrong(format!("{word} takes a number, not {value:?}"));
        value.parse::<u64>().map_err(not)
    };
    while let Some(word) = words.next() {
        let mut value = || {
            let missing = || wrong(format!("{word} needs a value"));
            words.next().ok_or_else(missing)
        };
        match word.as_str() {
            "--seeds" => parsed.seeds = number(&word, &value()?)?,
            "--start" => parsed.start = number(&word, &value()?)?,
            "--search" => parsed.search = number(&word, &value()?)?,
            "--rules" => parsed.what = What::Rules,
            "--list-rules" => parsed.what = What::ListRules,
            "--gate" => parsed.what = What::Gate,
            "--trace" => parsed.trace = true,
            "--whole-stores" => parsed.stores = Stores::Whole,
            "--rule" => {
                let name = value()?;
                if !rules().iter().any(|(rule, _)| *rule == name) {
                    return Err(wrong(format!("there is no rule {name:?}")));
                }
                parsed.rule = Some(name);
            }
            seed => {
                parsed.start = number("SEED", seed)?;
                parsed.seeds = 1;
            }
        }
    }
    match parsed.trace && parsed.seeds != 1 {
        true => Err(wrong("--trace is for one seed".to_owned())),
        false => Ok(parsed),
    }
}

struct Tally {
    passed: u64,
    failed: u64,
    clock: fn() -> Duration,
}

impl Tally {
    fn fail(&mut self, what: &str) {
        self.failed += 1;
        println!("FAILED: {what}");
    }

    fn count(&mut self, result: Result<(), String>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(what) => self.fail(&what),
        }
    }
}

/// How a run ended.
struct Outcome {
    result: Result<(), Failure>,
    counts: Counts,
    hash: u64,
}

fn run_plan(plan: &Plan, off: Off, print: bool) -> Outcome {
    let (mut knobs, mut plan) = (Knobs::draw(plan.seed), plan.clone());
    if off.stores == Stores::Whole {
        knobs.manner.room = usize::MAX;
        knobs.manner.reserve = 0;
        let damages = |fault: Fault| matches!(fault, Fault::LostWrite | Fault::TornTable);
        plan.strokes.retain(|of| !damages(of.stroke.fault()));
    }
    let judged = invariants::judge(|| {
        let mut world = World::new(knobs, plan, off, print);
        let result = world.run();
        let counts = world.counts.clone();
        Outcome {
            result,
            counts,
            hash: world.hash(),
        }
    });
    judged.unwrap_or_else(|failure| Outcome {
        result: Err(Failure::new(Promise::Invariants, failure.what)),
        counts: Counts::default(),
        hash: 0,
    })
}

fn plan_of(seed: u64) -> Plan {
    Plan::draw(seed, &Knobs::draw(seed))
}

fn run_seed(seed: u64, off: Off, print: bool) -> Outcome {
    run_plan(&plan_of(seed), off, print)
}

/// Runs the command line; whether everything passed.
pub fn run(
    words: impl Iterator<Item = String>,
    clock: fn() -> Duration,
) -> Result<bool, Misunderstood> {
    let arguments = parse(words)?;
    let mut tally = Tally {
        passed: 0,
        failed: 0,
        clock,
    };
    match arguments.what {
        What::ListRules => {
            rules().iter().for_each(|(name, _)| println!("{name}"));
            return Ok(true);
        }
        What::Seeds => run_seeds(&arguments, &mut tally),
        What::Rules => run_rules(arguments.search, &mut tally),
        What::Gate => {
            let seeds = GATE_SEEDS;
            run_seeds(
                &Arguments {
                    seeds,
                    ..arguments.clone()
                },
                &mut tally,
            );
            run_seeds(
                &Arguments {
                    seeds: GATE_WHOLE,
                    stores: Stores::Whole,
                    ..arguments.clone()
                },
                &mut tally,
            );
            run_found(&mut tally);
            run_rules(0, &mut tally);
            run_twice(arguments.start, &mut tally);
        }
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(tally.failed == 0)
}

fn run_seeds(arguments: &Arguments, tally: &mut Tally) {
    let named = |(name, _): &(&str, Off)| arguments.rule.as_deref() == Some(*name);
    let off = rules().into_iter().find(named).map(|(_, off)| off);
    let off = Off {
        stores: arguments.stores,
        ..off.unwrap_or_default()
    };
    let began = (tally.clock)();
    let mut all = Counts::default();
    for seed in arguments.start..arguments.start + arguments.seeds {
        let outcome = match arguments.trace {
            true => run_seed(seed, off, true),
            false => invariants::quietly(|| run_seed(seed, off, false)),
        };
        all.add(&outcome.counts);
        match outcome.result {
            Ok(()) => tally.passed += 1,
            // With a rule that is off a failure is what is asked for.
            Err(failure) if arguments.rule.is_some() => {
                tally.fail(&format!("seed {seed}: {failure}"));
            }
            Err(failure) => {
                tally.fail(&format!(
                    "seed {seed}: {failure}\n  again: cargo sim cluster {seed}{} --trace",
                    match arguments.stores {
                        Stores::Whole => " --whole-stores",
                        Stores::Shelves => "",
                    }
                ));
                if tally.failed <= SHRUNK_MAX {
                    println!("{}", told_smaller(seed, off, failure));
                }
            }
        }
        if arguments.seeds == 1 {
            println!("seed {seed}: hash {:016x}", outcome.hash);
        }
    }
    let took = (tally.clock)().saturating_sub(began).as_secs_f64();
    println!(
        "{} seeds: {} operations, {} answered, {} steps ({:.0} a second), {} strokes, {} turns, {} snapshots, {} evictions, {} promotions; healed after {:?} at most, {} need a person",
        arguments.seeds,
        all.operations,
        all.answered,
        all.steps,
        all.steps as f64 / took.max(0.001),
        all.strokes,
        all.turns,
        all.snapshots,
        all.evictions,
        all.promotions,
        all.healed_after,
        all.persons,
    );
    // Two failures at once: rare, or the manager gives up too soon.
    let persons = format!("{} runs of {} need a person", all.persons, arguments.seeds);
    if all.persons * 50 > arguments.seeds.max(SEEDS_FOR_ALL_CLASSES) {
        tally.fail(&persons);
    }
    print!("{}", all.met);
    for (name, highest, limit) in all.heights.all() {
        println!("  {name:<22} {highest:>9} at most, {limit} is the limit");
    }
    // Some of it is never met by whole stores.
    if arguments.seeds >= SEEDS_FOR_ALL_CLASSES && arguments.stores == Stores::Shelves {
        let wanted = Fault::ALL;
        let missing = all.met.missing(wanted, BRANCHES);
        tally.passed += (wanted.len() + BRANCHES.len() - missing.len()) as u64;
        for name in missing {
            tally.fail(&format!("void: {name} was never met"));
        }
    }
}

/// A failing seed, made small.
fn told_smaller(seed: u64, off: Off, failure: Failure) -> String {
    let Shrunk {
        plan,
        failure,
        tries,
    } = invariants::quietly(|| {
        let mut steps = 0;
        shrink(plan_of(seed), failure, SHRINKS_MAX, |plan| {
            let outcome = (steps < SHRINK_STEPS_MAX).then(|| run_plan(plan, off, false))?;
            steps += outcome.counts.steps;
            outcome.result.err()
        })
    });
    let mut told = format!(
        "  made smaller in {tries} tries: {} nodes, {} operations, {} strokes: {failure}",
        plan.nodes,
        plan.operations,
        plan.strokes.len()
    );
    for planned in &plan.strokes {
        told += &format!("\n    at {:?}: {:?}", planned.at, planned.stroke);
    }
    told
}

/// The seeds that found something once.
fn run_found(tally: &mut Tally) {
    for line in FOUND.lines().filter(|line| !line.starts_with('#')) {
        let (seed, what) = line.split_once(' ').unwrap_or((line, ""));
        let Ok(seed) = seed.parse() else {
            tally.fail(&format!("regressions/cluster.txt: {line:?}"));
            continue;
        };
        let outcome = invariants::quietly(|| run_seed(seed, Off::default(), false));
        let again = |failure| format!("seed {seed} again ({what}): {failure}");
        tally.count(outcome.result.map_err(again));
    }
}

/// The pinned seeds, each with its rule; `Err` is a line that is none.
fn pins(lines: &str) -> impl Iterator<Item = Result<(&str, u64), &str>> {
    let lines = lines.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (name, seed) = line.split_once(' ').ok_or(line)?;
        Ok((name, seed.parse().map_err(|_| line)?))
    })
}

/// What is wrong with where the rules are shown: each has one seed, or one place elsewhere, and nothing else has any.
fn misplaced(rules: &[&str], pinned: &str, elsewhere: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut places: BTreeMap<&str, u32> = BTreeMap::new();
    for pin in pins(pinned) {
        match pin {
            Ok((name, _)) => *places.entry(name).or_default() += 1,
            Err(line) => wrong.push(format!("regressions/rules.txt: {line:?} is no pin")),
        }
    }
    for (name, _) in elsewhere {
        *places.entry(name).or_default() += 1;
    }
    for name in rules {
        match places.remove(name) {
            None => wrong.push(format!(
                "{name} has no pinned seed, and is shown nowhere else"
            )),
            Some(1) => {}
            Some(many) => wrong.push(format!("{name} has {many} places")),
        }
    }
    let unknown = places.into_keys();
    wrong
        .extend(unknown.map(|name| format!("{name} is pinned or shown elsewhere, and is no rule")));
    wrong
}

/// Every rule that is pinned, switched off: its seed misses it, and passes with it. With a search, the others are looked for as well. A rule that is
/// neither pinned nor shown elsewhere fails.
fn run_rules(search: u64, tally: &mut Tally) {
    let names: Vec<&str> = rules().iter().map(|(name, _)| *name).collect();
    for wrong in misplaced(&names, PINNED, ELSEWHERE) {
        tally.fail(&wrong);
    }
    let pins: Vec<(&str, u64)> = pins(PINNED).filter_map(Result::ok).collect();
    for (name, off) in rules() {
        let pin = pins
            .iter()
            .find(|(of, _)| *of == name)
            .map(|(_, seed)| *seed);
        let missed = |seed: u64| {
            let outcome = invariants::quietly(|| run_seed(seed, off, false));
            outcome.result.err()
        };
        let passes = |seed: u64| {
            invariants::quietly(|| run_seed(seed, Off::default(), false))
                .result
                .is_ok()
        };
        if let Some(seed) = pin
            && let Some(failure) = missed(seed)
        {
            println!("{name:<22} off: seed {seed}: {failure}");
            let fails = format!("seed {seed} of {name} fails without it as well");
            tally.count(passes(seed).then_some(()).ok_or(fails));
            continue;
        }
        let found = (0..search).find_map(|seed| Some((seed, missed(seed)?)));
        match found {
            Some((seed, failure)) => {
                println!("{name:<22} off: to pin: {name} {seed}   ({failure})");
                tally.passed += 1;
            }
            None if pin.is_some() => tally.fail(&format!("{name}: its pinned seed is stale")),
            None => {
                let place = ELSEWHERE.iter().find(|(of, _)| *of == name);
                let place = place.map_or("nowhere", |(_, place)| *place);
                println!("{name:<22} off: not missed in {search} seeds; {place}");
            }
        }
    }
}

fn run_twice(start: u64, tally: &mut Tally) {
    for seed in start..start + GATE_TWICE {
        let (once, twice) = (
            run_seed(seed, Off::default(), false).hash,
            run_seed(seed, Off::default(), false).hash,
        );
        let differs = format!("seed {seed} is not the same twice");
        tally.count((once == twice).then_some(()).ok_or(differs));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Arguments, Misunderstood> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_said() {
        assert_eq!(words("17 --trace").unwrap().start, 17);
        assert_eq!(words("--rule r7").unwrap().rule.as_deref(), Some("r7"));
        for (line, said) in [
            ("--seeds", "--seeds needs a value"),
            ("--seeds x", "\"x\""),
            ("--rule moon", "no rule \"moon\""),
            ("--trace", "one seed"),
        ] {
            let error = words(line).unwrap_err();
            assert!(error.0.contains(said), "{line}: {}", error.0);
        }
    }

    #[test]
    fn every_rule_is_pinned_or_shown_elsewhere_and_no_other_is() {
        let names: Vec<&str> = rules().iter().map(|(name, _)| *name).collect();
        assert_eq!(misplaced(&names, PINNED, ELSEWHERE), [""; 0]);
        let elsewhere: &[(&str, &str)] = &[("b", "there")];
        assert!(misplaced(&["a", "b"], "# seeds\na 7", elsewhere).is_empty());
        for (names, pinned, said) in [
            (&["a", "b", "c"][..], "a 7", "c has no pinned seed"),
            (
                &["b"],
                "a 7",
                "a is pinned or shown elsewhere, and is no rule",
            ),
            (
                &["a"],
                "a 7",
                "b is pinned or shown elsewhere, and is no rule",
            ),
            (&["a", "b"], "a 7\na 8", "a has 2 places"),
            (&["a", "b"], "a 7\nb 8", "b has 2 places"),
            (&["a", "b"], "a 7\nb", "\"b\" is no pin"),
            (&["a", "b"], "a 7\na x", "\"a x\" is no pin"),
        ] {
            let wrong = misplaced(names, pinned, elsewhere);
            assert!(wrong.len() == 1 && wrong[0].contains(said), "{wrong:?}");
        }
    }

    #[test]
    fn the_page_says_where_each_rule_is_shown_that_is_not_pinned() {
        let page = include_str!("../../docs/simulation.md");
        for (name, place) in ELSEWHERE {
            assert!(page.contains(&format!("`{name}`")), "{name}");
            let file = place.split_once(": ").map(|(file, _)| file);
            let file = file.filter(|file| file.ends_with(".rs"));
            assert!(file.is_none_or(|file| page.contains(file)), "{place}");
        }
    }

    #[test]
    fn no_two_rules_have_one_name() {
        let mut names: Vec<&str> = rules().iter().map(|(name, _)| *name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
