//! What holds of every plan, over random clusters and what happens to them.

use super::super::*;
use super::clusters::{append_pgs, append_wanted_pgs, domain, random, random_event, settle};
use crate::base::Prng;

const SEEDS: u64 = 100;

/// Copies beyond the unavoidable that a plan may make besides a tenth: chains where domains leave no choice.
const CHAINS: u32 = 2;

#[test]
fn every_plan_is_balanced_keeps_the_domain_rule_and_moves_little() {
    let (mut refused, mut solved, mut moved, mut unavoidable) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut prng = Prng::new(seed);
        let mut cluster = random(&mut prng);
        match prng.one_in(4) {
            true => append_pgs(&mut cluster, prng.between(1, 40) as u32),
            false => append_wanted_pgs(&mut cluster),
        }
        let mut what = "first";
        for step in 0..8 {
            let before = cluster.clone();
            if step > 0 {
                what = random_event(&mut cluster, &mut prng);
            }
            let label = format!("seed {seed} step {step}: {what}");
            if let Err(refusal) = solve(&cluster) {
                assert_too_few_domains(&cluster, refusal);
                refused += 1;
                if step == 0 {
                    break;
                }
                cluster = before;
                continue;
            }
            let plan = settle(&mut cluster, &label);
            let most = plan.unavoidable + plan.unavoidable / 10 + CHAINS;
            // Among few domains the rule itself makes more unavoidable than is stated: `least` judges those.
            let is_free = takers(&cluster) >= 3 * usize::from(cluster.pool.copies);
            assert!(
                plan.moved <= most || !is_free,
                "{label}: {} > {most}",
                plan.moved
            );
            solved += 1;
            moved += plan.moved;
            unavoidable += plan.unavoidable;
        }
    }
    println!("{solved} solved, {refused} refused, {moved} moved, {unavoidable} unavoidable");
    assert!(solved > 4 * refused && refused > 10, "{solved} {refused}");
    assert!(moved * 100 <= unavoidable * 101, "{moved} {unavoidable}");
}

/// How many domains take replicas.
fn takers(cluster: &Cluster) -> usize {
    let serving = cluster.disks.iter().filter(|disk| disk.takes());
    let domains = serving.map(|disk| domain(cluster, disk));
    domains.collect::<std::collections::BTreeSet<u32>>().len()
}

fn assert_too_few_domains(cluster: &Cluster, refusal: Refusal) {
    let Refusal::TooFewDomains {
        domains, would_do, ..
    } = refusal
    else {
        panic!("{refusal}");
    };
    let copies = cluster.pool.copies;
    let would = |level: Level| {
        let mut other = cluster.clone();
        other.pool.level = level;
        solve(&other).is_ok()
    };
    assert!(domains < usize::from(copies));
    let levels = [Level::Rack, Level::Node, Level::Disk];
    assert_eq!(levels.into_iter().find(|&level| would(level)), would_do);
}

#[test]
fn the_answer_does_not_depend_on_the_order_of_the_question() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut cluster = random(&mut prng);
        append_wanted_pgs(&mut cluster);
        for _ in 0..3 {
            let mut other = cluster.clone();
            shuffle(&mut other.disks, &mut prng);
            shuffle(&mut other.pgs, &mut prng);
            for pg in &mut other.pgs {
                shuffle(&mut pg.disks, &mut prng);
            }
            let plan = solve(&cluster);
            assert_eq!(plan, solve(&other), "seed {seed}");
            match plan {
                Ok(plan) => apply(&mut cluster, &plan.changes),
                Err(_) => break,
            }
            random_event(&mut cluster, &mut prng);
        }
    }
}

fn shuffle<T>(of: &mut [T], prng: &mut Prng) {
    for at in (1..of.len()).rev() {
        of.swap(at, prng.below(at as u64 + 1) as usize);
    }
}

#[test]
fn a_map_that_was_scrambled_is_mended() {
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut cluster = random(&mut prng);
        append_wanted_pgs(&mut cluster);
        if solve(&cluster).is_err() {
            continue;
        }
        for pg in &mut cluster.pgs {
            for _ in 0..prng.below(5) {
                let at = prng.below(cluster.disks.len() as u64) as usize;
                let disk = cluster.disks[at].id;
                if !pg.disks.contains(&disk) {
                    pg.disks.push(disk);
                }
            }
        }
        settle(&mut cluster, &format!("seed {seed}"));
    }
}
