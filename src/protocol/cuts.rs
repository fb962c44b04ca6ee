//! Cuts: when the volumes of a node are served, change their layers for a snapshot, and when the snapshot has been taken (R21).
//!
//! ```text
//!   a turn begins          every PG sealed, recovered              the catalog: a layer is Cutting     nothing in flight below
//!   held ─────────► settling ─────────────────► serving ─────────────────► switched ───────────────────► Freeze, until the catalog says so
//!        left settled: at once ────────────────────▲
//! ```
//!
//! *Nobody else is served any more.* An earlier owner whose lease ended does not know it perhaps, and its writes need no lease where nobody has fenced
//! its replicas (R18). So where the last turn did not end in good order, everything is held until every PG is sealed: then nothing that begins
//! there is acknowledged or read any more (promise 5), also in PGs that nothing is asked of here.
//!
//! A snapshot has to be a *cut*: what was acknowledged before it was asked for is in it, what began after it was answered is not, and no write
//! is in it without those that had been acknowledged when that one began. With one owner a range, the owner's switch is that moment, because nobody else
//! writes below it any more, and *all replicas have the same in it*: what was in flight below is awaited, and what an earlier owner left there was written
//! again by recovery, into its own layer. Then the owner says so under its epoch, and the catalog takes the word of no other (`catalog/layer.rs`).
//!
//! After that nothing reaches the layer on a replica that is in sync: a frame of an earlier epoch is refused there (R1), and one that comes late or twice
//! of the epoch that was drained is in the window or at or below the mark, so it is answered, and not applied (R10). A recovery that still finds it
//! in windows writes the same value again.
//!
//! What remains of R21's hold: acknowledgements of the new layer were to be held until all owners of a volume have switched. A plain volume is one
//! range with one owner at a time, so this is left of it: earlier owners that do not know it count as owners until their PGs are sealed. Where
//! a volume has several ranges (`mobile` and `mirrored`), the rule is needed as it stands.
//!
//! Invariants: *served-when-settled*; *frozen-when-drained*. It does not know what is in flight, what a layer holds, or who leads the manager.

#[cfg(test)]
mod tests;

use super::catalog::Left;
use super::replication::{Rule, RulesOff};
use crate::base::{Epoch, LayerId, Time, VolumeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an answer of the manager is waited for before it is told again.
const TELL_AGAIN: Duration = Duration::from_millis(100);

/// The end of a volume's chain of layers, as the catalog has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// The one that takes new writes.
    pub newest: LayerId,
    /// The one below it, while a snapshot of that is being taken.
    pub cutting: Option<LayerId>,
}

/// What a node's cuts are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The node has a turn at the volume. The coordinator has it open, held, at its newest layer.
    Opened {
        volume: VolumeId,
        epoch: Epoch,
        /// How earlier turns left it.
        left: Left,
        layers: Layers,
    },
    /// What the catalog says of its layers.
    Changed { volume: VolumeId, layers: Layers },
    /// Every PG of it is sealed and recovered under the present epoch.
    Settled { volume: VolumeId },
    /// Nothing is in flight in layers below the one that the coordinator was switched to, or opened at.
    Drained { volume: VolumeId },
    /// It is not served here any more, and what is in flight is given up or started over: told before that, because it is not drained.
    Closed { volume: VolumeId },
}

/// What they want done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The coordinator lets requests go on.
    Go { volume: VolumeId },
    /// Every PG is to be sealed and recovered; then [`Input::Settled`].
    Settle { volume: VolumeId },
    /// What starts from now on goes to this layer; [`Input::Drained`] when nothing is in flight below.
    Switch { volume: VolumeId, layer: LayerId },
    /// Tell the manager that the layer is as it will stay.
    Freeze {
        volume: VolumeId,
        layer: LayerId,
        epoch: Epoch,
    },
}

/// A volume that the node serves.
#[derive(Debug, Clone, Copy)]
struct Served {
    epoch: Epoch,
    layers: Layers,
    /// Where the coordinator writes to.
    at: LayerId,
    left: Left,
    /// It was asked to settle.
    settling: bool,
    held: bool,
    /// Whether nothing is in flight below `at`; else in which layer that is.
    drained: bool,
    below: Option<LayerId>,
    /// When the manager was told last.
    told: Option<Time>,
}

/// The cuts of one start of a node. See the [module](self).
#[derive(Debug)]
pub struct Cuts {
    served: BTreeMap<VolumeId, Served>,
    off: RulesOff,
}

impl Served {
    /// The coordinator is switched to the newest layer.
    fn switch(&mut self) {
        self.below = Some(self.at);
        self.at = self.layers.newest;
        self.drained = false;
        // What the manager was told was of the layer before: it may have recorded that, and begun the next cut, while nothing was heard here.
        self.told = None;
    }
}

impl Cuts {
    pub fn new(off: RulesOff) -> Cuts {
        Cuts {
            served: BTreeMap::new(),
            off,
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        let volume = match input {
            Input::Opened {
                volume,
                epoch,
                left,
                layers,
            } => {
                // Under a new lease the coordinator has kept what has no answer. It is in the layer where it was.
                let before = self.served.get(&volume);
                let (drained, below) = match before {
                    None => (true, None),
                    Some(of) if of.at == layers.newest => (of.drained, of.below),
                    Some(of) => (false, Some(of.at)),
                };
                let served = Served {
                    epoch,
                    layers,
                    at: layers.newest,
                    left,
                    settling: false,
                    held: true,
                    drained,
                    below,
                    told: None,
                };
                self.served.insert(volume, served);
                volume
            }
            Input::Changed { volume, layers } => {
                if let Some(served) = self.served.get_mut(&volume) {
                    served.layers = layers;
                }
                volume
            }
            Input::Settled { volume } => {
                if let Some(served) = self.served.get_mut(&volume) {
                    served.left = Left::Settled;
                }
                volume
            }
            Input::Drained { volume } => {
                if let Some(served) = self.served.get_mut(&volume) {
                    served.drained = true;
                }
                volume
            }
            Input::Closed { volume } => {
                self.served.remove(&volume);
                return;
            }
        };
        self.look(now, volume, out);
    }

    /// Whether what is in flight here may still happen under another turn, with these layers: not where somebody else had the volume meanwhile and has
    /// frozen a layer that it is in. Asked before the turn is opened; where not, [`Input::Closed`], and all of it starts over, in the newest layer.
    pub fn may_go_on(&self, volume: VolumeId, layers: Layers) -> bool {
        let takes = |layer| layer == layers.newest || Some(layer) == layers.cutting;
        self.served.get(&volume).is_none_or(|of| {
            let below = of.below.filter(|_| !of.drained);
            takes(of.at) && below.is_none_or(takes)
        })
    }

    /// How a volume would be left now, if nothing is in flight.
    pub fn left(&self, volume: VolumeId) -> Left {
        let served = self.served.get(&volume);
        served.map_or(Left::Unsettled, |served| served.left)
    }

    /// Does the next step towards what the catalog says.
    fn look(&mut self, now: Time, volume: VolumeId, out: &mut Vec<Output>) {
        let off = self.off;
        let is_drained = |served: &Served| served.drained || off.on(Rule::R21);
        let is_settled = |served: &Served| served.left == Left::Settled || off.on(Rule::R5Settled);
        let Some(served) = self.served.get_mut(&volume) else {
            return;
        };
        if !is_settled(served) {
            if !std::mem::replace(&mut served.settling, true) {
                out.push(Output::Settle { volume });
            }
            return;
        }
        if served.at != served.layers.newest {
            // Nothing below the newest takes writes, whoever has said so.
            served.switch();
            let layer = served.at;
            out.push(Output::Switch { volume, layer });
        }
        if std::mem::take(&mut served.held) {
            out.push(Output::Go { volume });
        }
        let Some(layer) = served.layers.cutting else {
            served.told = None;
            return;
        };
        if is_drained(served) && served.told.is_none() {
            served.told = Some(now);
            let epoch = served.epoch;
            out.push(Output::Freeze {
                volume,
                layer,
                epoch,
            });
        }
    }

    /// When [`Cuts::expire`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let told = self.served.values().filter_map(|served| served.told);
        Some(told.min()? + TELL_AGAIN)
    }

    /// Tells the manager again what it has not recorded.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_due = |served: &Served| served.told.is_some_and(|at| at + TELL_AGAIN <= now);
        let due = self.served.iter().filter(|(_, served)| is_due(served));
        let due: Vec<VolumeId> = due.map(|(&volume, _)| volume).collect();
        for volume in due {
            if let Some(served) = self.served.get_mut(&volume) {
                served.told = None;
            }
            self.look(now, volume, out);
        }
    }

    /// Asserts the named invariants.
    pub fn check(&self) {
        for served in self.served.values() {
            assert!(
                served.held || served.left == Left::Settled || self.off.on(Rule::R5Settled),
                "served-when-settled"
            );
            assert!(
                served.told.is_none() || served.drained || self.off.on(Rule::R21),
                "frozen-when-drained"
            );
        }
    }
}
