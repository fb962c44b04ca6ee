//! How Sarsen scales: `cargo sim scale` drives the shipped machines at sites of 10 to 1,000 nodes and prints tables.
//!
//! ```text
//!   site (catalog, placement) ──► map, beside: sizes                          ─┐
//!   leases (grantor, holders) ──► steady: messages while nothing happens       ├──► tables
//!   leader (steward, catalog) ──► rack, rebuild: what is decided after a loss  ─┘
//!   fluid: copies as flows
//! ```
//!
//! What is counted follows from the machines and their parameters alone, so it is the same in each run; times of work and the heap's size are
//! handed in, printed, and decide nothing. Links, disks and the log are ideal here: what goes wrong is the other
//! worlds' business. `src/docs/scale.md` has what was printed and what it means.

mod beside;
mod fluid;
mod leader;
mod leases;
mod map;
mod rack;
mod rebuild;
mod site;
mod steady;
#[cfg(test)]
mod tests;

use super::World;
use super::arguments::Misunderstood;
use std::time::Duration;

/// Which sites are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Full,
    /// What takes seconds.
    Small,
}

/// Prints the tables; whether what has to hold does.
pub fn run(mut words: impl Iterator<Item = String>, world: World) -> Result<bool, Misunderstood> {
    let (mut extent, mut only) = (Extent::Full, None);
    for word in words.by_ref() {
        match word.as_str() {
            "--small" => extent = Extent::Small,
            "map" | "steady" | "rack" | "rebuild" => only = Some(word),
            _ => {
                let why =
                    format!("{word:?} is neither --small nor a table: map, steady, rack, rebuild");
                return Err(Misunderstood(why));
            }
        }
    }
    let wants = |table: &str| only.as_deref().is_none_or(|only| only == table);
    Ok(print(world, extent, wants))
}

/// Whether everything holds.
fn print(world: World, extent: Extent, wants: impl Fn(&str) -> bool) -> bool {
    let of = |full: &'static [u32], small: &'static [u32]| match extent {
        Extent::Full => full,
        Extent::Small => small,
    };
    let mut wrong: Vec<String> = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    if wants("map") {
        for map in map::print(world, of(&[10, 100, 1_000], &[10, 20])) {
            let volumes = map.volumes;
            demand(
                map.a_pg <= 120,
                format!("{volumes} volumes: a PG takes {} bytes", map.a_pg),
            );
            demand(
                map.a_volume <= 650,
                format!("{volumes} volumes: each takes {}", map.a_volume),
            );
            demand(
                map.command + map.event <= 400,
                format!("a delta takes {}", map.event),
            );
        }
    }
    if wants("steady") {
        for steady in steady::print(world, of(&[10, 100, 1_000], &[10, 40])) {
            let (nodes, asks) = (u64::from(steady.nodes), steady.counts.asks);
            // One a renewal, which begins with the answer to the last or the ask itself.
            demand(
                (9 * nodes..=10 * nodes).contains(&asks),
                format!("{nodes} nodes ask {asks}/s"),
            );
            let rounds = steady.counts.rounds;
            demand(rounds <= 5_000, format!("{rounds} rounds/s: one at a time"));
        }
    }
    if wants("rack") {
        for loss in rack::print(world, of(&[100, 300, 1_000], &[40])) {
            let (nodes, lost) = (loss.nodes, loss.lost);
            demand(
                loss.is_whole,
                format!("{nodes} nodes: some PGs never become whole"),
            );
            demand(
                loss.evictions == lost,
                format!("{nodes} nodes: {} evictions", loss.evictions),
            );
            demand(
                loss.joins == lost,
                format!("{nodes} nodes: {} joins for {lost}", loss.joins),
            );
            demand(
                loss.commands <= 7 * lost,
                format!(
                    "{nodes} nodes: {} commands for {lost} replicas",
                    loss.commands
                ),
            );
            demand(
                loss.refused == 0,
                format!("{nodes} nodes: {} refused", loss.refused),
            );
            let expected = u64::from(nodes / 20);
            demand(
                loss.expired == expected,
                format!("{nodes} nodes: {} expired", loss.expired),
            );
            demand(
                loss.suspects_alive == 0,
                format!(
                    "{nodes} nodes: {} who live are suspects",
                    loss.suspects_alive
                ),
            );
        }
    }
    if wants("rebuild") {
        for one in rebuild::print(world, of(&[10, 30, 100, 300, 1_000], &[10, 30])) {
            let nodes = one.nodes;
            demand(
                one.is_whole,
                format!("{nodes} nodes: some PGs never become whole"),
            );
            let (lost, at_once) = (one.lost, one.at_once);
            demand(
                2 * at_once as u64 >= lost,
                format!("{nodes} nodes: {at_once} copies at once, of {lost}"),
            );
            // Where there are more disks than replicas, three of them at one disk are chance.
            demand(
                one.busiest <= 2.0 || one.busiest_replicas <= 3.01,
                format!("{nodes} nodes: a disk does {:.2}", one.busiest),
            );
            demand(
                one.refused == 0,
                format!("{nodes} nodes: {} refused", one.refused),
            );
        }
    }
    wrong.iter().for_each(|what| println!("FAILED: {what}"));
    wrong.is_empty()
}

/// Bytes, as people read them; decimal.
fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        0.0..1e3 => format!("{count:.0} B"),
        1e3..1e6 => format!("{:.1} kB", count / 1e3),
        1e6..1e9 => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.1} GB", count / 1e9),
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A time of the simulated site.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0..600.0 => format!("{seconds:.0} s"),
        600.0..36_000.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}
