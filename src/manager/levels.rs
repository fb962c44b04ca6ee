//! What builds of other nodes know: a command that one of them does not is not put into the log, where it would stop that node.
//!
//! Each node says its level when it is asked whether it is there, so levels are known as far as nodes were heard of since this one started. One that has not answered yet may be
//! of any level: it is waited for until it was looked at. One that was looked at and is silent does not hold up the others; should it be older and come back, it stops at
//! the first command that it does not know, says so, and goes on when it is upgraded.

use super::Manager;
use super::door::Shared;
use crate::base::NodeId;
use crate::protocol::catalog::{Code, Command, Refusal};
use std::collections::BTreeMap;

/// The level of each other node that was looked at: nothing where it has not answered.
pub type Levels = BTreeMap<NodeId, Option<u32>>;

impl Manager {
    /// Tells what the other nodes know.
    pub fn know_levels(&self, levels: Levels) {
        *self.shared.levels() = levels;
    }
}

impl Shared {
    /// Whether every node knows such a command.
    pub(super) fn is_known_to_all(&self, command: &Command) -> Result<(), Refusal> {
        let since = command.since();
        if since == 0 {
            return Ok(());
        }
        let (catalog, levels) = (self.board.catalog(), self.levels());
        let me = self.group.me();
        for node in catalog.nodes().filter(|node| node.id != me) {
            let (why, hint) = match levels.get(&node.id) {
                Some(Some(level)) if *level < since => (
                    "runs a build that does not know this yet",
                    "upgrade it first",
                ),
                None => (
                    "has not been looked at yet, and might run a build that does not know this",
                    "say it again in a few seconds",
                ),
                Some(_) => continue,
            };
            let reason = format!("node {} {why}", node.name);
            return Err(Refusal::new(Code::Conflict, "cluster", reason, hint));
        }
        Ok(())
    }
}
