//! A group of one replica: what that one cannot do nobody can, so whoever asked is told, and does not wait for a manager who has nobody else to name.
//!
//! Whether a change that failed so has happened is not known, as after any error. Nobody else holds anything that could be different, so nothing is to be made
//! equal either: it is ended, the mark passes it, and a replica that joins later is filled from what this one has.

use super::write::place_of;
use super::{Failure, Group, Output, Phase};
use crate::base::DiskId;
use crate::protocol::replication::message::{Asked, Refusal};

impl Group {
    /// Whether changes go to this replica alone.
    pub(super) fn is_alone(&self, disk: DiskId) -> bool {
        self.writers().eq([disk])
    }

    /// The only replica could not do what it was asked.
    pub(super) fn failed_alone(
        &mut self,
        from: DiskId,
        (what, why): (Asked, Refusal),
        out: &mut Vec<Output>,
    ) {
        let why = match why {
            Refusal::NoSpace => Failure::NoSpace,
            _ => Failure::Unstored,
        };
        match what {
            Asked::Change { sequence } => {
                let Some(place) = place_of(&self.flying, sequence) else {
                    return;
                };
                let flying = &mut self.flying[place];
                if !std::mem::replace(&mut flying.ended, true) {
                    flying.payload = None;
                    out.extend(flying.tag.map(|tag| Output::Failed { tag, why }));
                    self.changes_ended(out);
                }
            }
            Asked::Fits { id } => {
                let fitting = self.fitting.remove(id);
                out.extend(fitting.map(|of| Output::Failed { tag: of.tag, why }));
            }
            Asked::Seal => {
                let waiting = std::mem::take(&mut self.waiting).into_iter();
                out.extend(waiting.map(|(tag, _)| Output::Failed { tag, why }));
            }
            // A block that recovery would have written again: it is as it is.
            Asked::Read { id } => {
                if let Phase::Recovering(recovery) = &mut self.phase
                    && recovery.value(from, id).is_some()
                {
                    self.step_recovery(out);
                }
            }
            Asked::Mark | Asked::Confirm { .. } => {}
        }
    }
}
