//! Why a pool is not whole, and what is done about it, for people.

use super::look::Look;
use crate::api::host::cluster::name_of;
use crate::api::model::{Lack, PgStates};
use crate::api::size::human;
use crate::base::DiskId;
use crate::protocol::catalog::{Catalog, Maintenance, Pool};
use crate::protocol::placement::Level;
use crate::protocol::steward::Parameters;
use std::collections::BTreeSet;

/// How many disks are named.
const NAMES_MAX: usize = 5;

/// Empty where the pool is whole, or has no disk yet.
pub fn reason(catalog: &Catalog, pool: &Pool, seen: &Look, lacking_bytes_max: u64) -> String {
    let PgStates {
        all,
        waiting,
        unreachable,
        lost,
        ..
    } = seen.pgs;
    let lacking = seen.pgs.lacking();
    if all == 0 {
        return without_pgs(catalog, pool, seen);
    }
    if lacking == 0 {
        return String::new();
    }
    let mut words = format!(
        "{lacking} of {all} placement groups have not all copies, and hold {} at most",
        human(lacking_bytes_max)
    );
    if unreachable > lost {
        let count = unreachable - lost;
        words += &format!("; of {count} no copy is reached, and I/O there waits");
    }
    if lost > 0 {
        words += &format!(
            "; of {lost} the last copies were on disks that are out of service: nothing but such a disk or a backup brings them back"
        );
    }
    if waiting > 0 {
        words += &format!("; of {waiting} fewer than min_copies are, and writes there may wait");
    }
    if !seen.lacking.is_empty() {
        let each = seen.lacking.iter();
        let each = each.map(|(id, (why, _))| format!("{} ({})", at(catalog, *id), said(*why)));
        words += &format!("; missing at {}", some(each));
    }
    for what in outlook(catalog, pool, seen) {
        words += &format!("; {what}");
    }
    words
}

/// What is done, or is to be done.
fn outlook(catalog: &Catalog, pool: &Pool, seen: &Look) -> Vec<String> {
    let copies = pool.copies;
    let PgStates {
        lost,
        filling,
        moving,
        ..
    } = seen.pgs;
    let lacking = seen.pgs.lacking() - lost;
    let rebuilt = filling - moving;
    let mut words = Vec::new();
    if rebuilt > 0 {
        // Copies are moved to the same disks perhaps: named is where copies are made, whatever for.
        let each = seen.filled.iter();
        let each = each.map(|(id, pgs)| format!("{pgs} at {}", at(catalog, *id)));
        words.push(format!("{rebuilt} are being filled: {}", some(each)));
    }
    let level = plural(pool.level);
    let waits = |(why, _): &(Lack, u32)| matches!(why, Lack::NodeUnreachable | Lack::LeftOut);
    if seen.domains.all < copies {
        words.push(format!(
            "{copies} copies need disks {level}, and there are such in {} only: a missing one is to come back, another to be added elsewhere, or fewer copies to be asked for (`sarsen pool set`)",
            seen.domains.all
        ));
    } else if rebuilt < lacking && seen.lacking.values().any(waits) {
        words.push(absent(catalog, pool, seen));
    } else if rebuilt < lacking {
        words.push("the others follow, some at a time".into());
    }
    words
}

/// What becomes of copies on disks that may come back.
fn absent(catalog: &Catalog, pool: &Pool, seen: &Look) -> String {
    let held = seen.lacking.keys().filter_map(|id| {
        let node = catalog.node(catalog.disk(*id)?.node)?;
        (node.maintenance == Maintenance::On).then(|| node.name.clone())
    });
    let held: BTreeSet<String> = held.collect();
    let back = "what is missing there is filled when it serves again";
    if !held.is_empty() {
        let held = some(held.into_iter());
        return format!("{back}; nothing is made anew elsewhere during maintenance of {held}");
    }
    if seen.domains.reached < pool.copies {
        return format!(
            "{back}; to be made anew elsewhere, {} copies need disks {}, and such are reached in {} only",
            pool.copies,
            plural(pool.level),
            seen.domains.reached
        );
    }
    let minutes = Parameters::DEFAULT.out_after.as_secs() / 60;
    format!("{back}, or made anew elsewhere after {minutes} minutes")
}

/// Of a pool that has disks and no placement groups: no volume can be made in it.
fn without_pgs(catalog: &Catalog, pool: &Pool, seen: &Look) -> String {
    let copies = pool.copies;
    if catalog.disks_of_pool(pool.id).next().is_none() {
        return String::new();
    }
    match seen.domains.all < copies {
        true => format!(
            "it has no placement groups yet: {copies} copies need disks {}, and there are such in {} only",
            plural(pool.level),
            seen.domains.all
        ),
        false => "its placement groups are about to be laid out".into(),
    }
}

fn plural(level: Level) -> &'static str {
    match level {
        Level::Disk => "of their own",
        Level::Node => "on as many nodes",
        Level::Rack => "in as many racks",
    }
}

fn said(why: Lack) -> &'static str {
    match why {
        Lack::OutOfService => "out of service",
        Lack::Missing => "away for too long",
        Lack::NodeUnreachable => "the node does not answer",
        Lack::LeftOut => "left out, as it failed or fell behind",
        Lack::Filling => "being filled",
    }
}

fn at(catalog: &Catalog, id: DiskId) -> String {
    let disk = catalog.disk(id);
    disk.map_or_else(
        || format!("disk {id}"),
        |disk| format!("disk {id} of node {}", name_of(catalog, disk.node)),
    )
}

fn some(names: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = names.collect();
    let (some, rest) = all.split_at(all.len().min(NAMES_MAX));
    match rest.len() {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}
