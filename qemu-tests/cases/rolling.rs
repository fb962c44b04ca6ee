//! A cluster becomes another version node by node, and one of them goes back, under load: the previous commit's daemons and this one's serve one
//! volume together.
//!
//! `scripts/test --full` builds the previous commit's daemon.

use super::replicated::{Site, WRITES, whole};
use super::several_nodes::{COMES, three_with};
use crate::harness::daemon::binary;
use crate::harness::load::Shape;
use crate::harness::{Case, Outcome, Room, Step};
use std::path::PathBuf;

/// Names the previous commit's `sarsen`.
const PREVIOUS: &str = "SARSEN_PREVIOUS";

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "daemons_of_the_previous_commit_and_of_this_one_serve_one_volume",
            rolls,
        )
        .only_in_full(),
    ]
}

fn previous() -> Step<PathBuf> {
    let named = std::env::var_os(PREVIOUS).map(PathBuf::from);
    let hint =
        format!("{PREVIOUS} has to name another commit's sarsen, as `scripts/test --full` does");
    Ok(named.filter(|path| path.is_file()).ok_or(hint)?)
}

fn rolls(room: &Room) -> Outcome {
    let (old, new) = (previous()?, binary());
    let mut site = Site::new(room, three_with(room, &old)?)?;
    let shape = Shape {
        connections: 3,
        depth: 8,
    };
    let steps = [(1, &new), (2, &new), (0, &new), (1, &old), (1, &new)];
    for (number, (node, binary)) in steps.into_iter().enumerate() {
        // So both versions serve over both.
        site.server = (node + 1 + number % 2) % 3;
        let load = site.load(shape, number as u64)?;
        site.becomes(node, binary)?;
        load.reach(load.acknowledged() + WRITES, COMES)?;
        whole(site.at())?;
        load.reach(load.acknowledged() + WRITES, COMES)?;
        load.finish()?;
        // What an older one said, a newer one knows, and the other way round.
        let volume = format!("made-at-step-{number}");
        site.at().create(&volume, "16M")?;
        site.server = node;
        site.at().tell(&["volume", "delete", &volume])?;
        site.verify()?;
    }
    Ok(String::new())
}
