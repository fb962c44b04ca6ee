//! What guests' volumes lie in: the disk of one daemon, or the disks of three nodes, with two copies, of which one dies in the middle.

use crate::cases::replicated::whole;
use crate::cases::several_nodes::three;
use crate::harness::daemon::{Daemon, Start, text};
use crate::harness::{Room, Step};

/// The daemons. Guests are at the first one.
pub struct Pool {
    nodes: Vec<Daemon>,
    /// The last of several was killed, and not started again yet.
    is_one_dead: bool,
}

impl Pool {
    /// One daemon with one disk.
    pub fn of_one(room: &Room, size: &str) -> Step<Pool> {
        Ok(Pool::of(vec![Start::dev(room, "store", size).run()?]))
    }

    /// Three nodes, and two copies of everything.
    pub fn replicated(room: &Room, size: &str) -> Step<Pool> {
        let nodes = three(room)?;
        for (number, node) in nodes.iter().enumerate() {
            let path = room.path(&format!("disk{number}"));
            node.tell(&["disk", "add", &text(&path), "--size", size])?;
        }
        nodes[0].tell(&["pool", "set", "default", "--copies", "2"])?;
        whole(&nodes[0])?;
        Ok(Pool::of(nodes.into()))
    }

    /// These, as they are.
    pub fn of(nodes: Vec<Daemon>) -> Pool {
        Pool {
            nodes,
            is_one_dead: false,
        }
    }

    /// Where the guest is.
    pub fn here(&self) -> &Daemon {
        &self.nodes[0]
    }

    /// Where it can go: another node, where there is one.
    pub fn there(&self) -> &Daemon {
        self.nodes.get(1).unwrap_or(self.here())
    }

    pub fn is_one(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Has the guest's own daemon give way to another one.
    pub fn replace(&mut self, step: impl FnOnce(Daemon) -> Step<Daemon>) -> Step<()> {
        let next = step(self.nodes.remove(0))?;
        self.nodes.insert(0, next);
        Ok(())
    }

    /// Amid what a guest does: a node that serves it only copies is killed with -9, when all others have theirs; the next time, it comes back. Of one
    /// daemon none can be missed.
    pub fn amid(&mut self) -> Step<()> {
        if self.is_one() {
            return Ok(());
        }
        if !self.is_one_dead {
            whole(self.here())?;
        }
        if let Some(last) = self.nodes.last_mut() {
            match self.is_one_dead {
                false => last.kill()?,
                true => *last = last.start.run()?,
            }
            self.is_one_dead = !self.is_one_dead;
        }
        Ok(())
    }

    /// After it: all copies are made, also those that a node missed.
    pub fn mended(&mut self) -> Step<()> {
        if self.is_one_dead {
            self.amid()?;
        }
        match self.is_one() {
            true => Ok(()),
            false => whole(self.here()),
        }
    }
}
