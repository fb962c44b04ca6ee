//! Requests that take longer than their volume's `io_timeout` are answered with an error.
//!
//! Who asked is answered; what he asked for goes on, and a write may still be carried out later, as after any error. So the request stays in the table,
//! and its payload in memory, until the machine answers it: then that is for nobody.
//!
//! Only whole requests are looked at: a part is one of a whole at its own shard.

use super::core_loop::Core;
use super::desk::{Desk, Owner};
use super::machine::Machine;
use crate::base::{IoError, Time};
use std::time::Duration;

/// Between two looks at all requests in flight, where there is a volume with such a time at all.
const EVERY: Duration = Duration::from_millis(250);

impl Desk {
    /// When the next look is due.
    pub fn late_at(&self) -> Option<Time> {
        let looks = self.router.has_timeouts() && !self.requests.is_empty();
        looks.then_some(self.looked_for_late + EVERY)
    }

    /// The requests that have taken too long by now.
    fn late(&self) -> Vec<u32> {
        let late = self.requests.iter().filter(|(_, pending)| {
            let is_asked = !matches!(
                pending.owner,
                Owner::Part(_) | Owner::Nobody | Owner::Load(_)
            );
            let after = self.router.timeout(pending.volume);
            is_asked && after.is_some_and(|after| self.now.since(pending.since) >= after)
        });
        late.map(|(key, _)| key).collect()
    }
}

impl<M: Machine> Core<M> {
    /// Answers what has taken too long.
    pub fn answer_late(&mut self) {
        if self.desk.late_at().is_none_or(|at| at > self.desk.now) {
            return;
        }
        self.desk.looked_for_late = self.desk.now;
        for key in self.desk.late() {
            let pending = &mut self.desk.requests[key];
            let of_owner = *pending;
            pending.owner = Owner::Nobody;
            if let Some(buf) = of_owner.buf {
                // Who is answered gives his hold back.
                self.desk.buffers.arena().hold(buf, 1);
            }
            let (volume, kind) = (of_owner.volume, of_owner.kind);
            tracing::warn!(%volume, ?kind, offset = of_owner.offset, "a request was answered with an error, as it took longer than the volume's io_timeout");
            self.answer(&of_owner, Err(IoError::Failed), &[]);
        }
    }
}
