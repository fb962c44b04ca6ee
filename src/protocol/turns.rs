//! Turns at ranges: which volumes this node serves, under which epoch, and when it stops.
//!
//! ```text
//!                attached here, a lease is held        committed
//!   nothing ───────────────────────────────► taking ─────────────► open (epoch)
//!      ▲                                       ▲                      │    │
//!      │                                       └── another lease ─────┘    │ not attached here any more
//!      └───── given ◄── giving ◄── drained ◄── draining ◄──────────────────┘
//! ```
//!
//! The catalog says who owns a range (a plain volume is one). What a node holds under one lease is void under the next: it takes the
//! range again and has a higher epoch, so that an epoch is used by one start of one node, under one unbroken lease (R4, R17). Who owns a range
//! and is gone is waited out by the manager's leader, which knows which leases have surely ended; this machine only asks, and asks again.
//!
//! Invariants: *an epoch is opened once*. It does not know what is in flight, or who leads the manager.

use super::catalog::{Left, Ownership};
use super::membership::LeaseNumber;
use crate::base::{Epoch, NodeId, Time, VolumeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an answer of the manager is waited for before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What a node's turns are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The catalog wants the volume served at this node, or does not.
    Wanted { volume: VolumeId, here: Here },
    /// What the catalog says of a range.
    Owned { volume: VolumeId, range: Ownership },
    /// The node holds a lease that it did not hold before.
    Leased(LeaseNumber),
    /// It holds none.
    Unleased,
    /// Nothing is in flight on a volume, and the marks are told. `left`: whether what earlier turns left is settled as well.
    Drained { volume: VolumeId, left: Left },
}

/// Whether a volume is wanted at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    Attached,
    /// Nobody has it attached, and a layer of it is to be frozen: what the last turn left is recovered for that (R21).
    ToFreeze,
    NotAttached,
}

/// What they want done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Ask the manager's leader for the range, whose epoch is `after`.
    Take {
        volume: VolumeId,
        lease: LeaseNumber,
        after: Option<Epoch>,
    },
    /// Tell it that the turn has ended, and how the range is left.
    Give {
        volume: VolumeId,
        epoch: Epoch,
        left: Left,
    },
    /// Serve the volume under this epoch. What had no answer under an earlier one is asked again.
    Open { volume: VolumeId, epoch: Epoch },
    /// Take no more requests, let those in flight end, tell the marks; then [`Input::Drained`].
    Drain { volume: VolumeId },
    /// What [`Output::Drain`] holds back goes on: the volume is wanted here again.
    Resume { volume: VolumeId },
    /// Another node has it, or may have it: what has no answer gets none from here.
    Close { volume: VolumeId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not served.
    Closed,
    Open,
    Draining,
    Giving(Left),
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    wanted: bool,
    range: Option<Ownership>,
    /// The epoch that was opened last.
    opened: Epoch,
    phase: Phase,
    /// When the manager was asked last.
    asked: Option<Time>,
}

/// The turns of one start of a node. See the [module](self).
#[derive(Debug)]
pub struct Turns {
    node: NodeId,
    lease: Option<LeaseNumber>,
    turns: BTreeMap<VolumeId, Turn>,
}

impl Turns {
    pub fn new(node: NodeId) -> Turns {
        Turns {
            node,
            lease: None,
            turns: BTreeMap::new(),
        }
    }

    /// Takes one input, and puts into `out` what follows from it.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Wanted { volume, here } => {
                self.turn(volume).wanted = here != Here::NotAttached;
                self.look(now, volume, out);
            }
            Input::Owned { volume, range } => {
                let turn = self.turn(volume);
                if turn.range.is_none_or(|known| known.epoch <= range.epoch) {
                    turn.range = Some(range);
                    turn.asked = None;
                }
                self.look(now, volume, out);
            }
            Input::Leased(lease) => {
                self.lease = Some(lease);
                let all: Vec<VolumeId> = self.turns.keys().copied().collect();
                for volume in all {
                    self.turn(volume).asked = None;
                    self.look(now, volume, out);
                }
            }
            Input::Unleased => self.lease = None,
            Input::Drained { volume, left } => {
                let turn = self.turn(volume);
                if turn.phase == Phase::Draining {
                    turn.phase = Phase::Giving(left);
                    turn.asked = None;
                    self.look(now, volume, out);
                }
            }
        }
    }

    fn turn(&mut self, volume: VolumeId) -> &mut Turn {
        self.turns.entry(volume).or_insert(Turn {
            wanted: false,
            range: None,
            opened: Epoch::default(),
            phase: Phase::Closed,
            asked: None,
        })
    }

    /// Looks at what is, and does the next step towards what is wanted.
    fn look(&mut self, now: Time, volume: VolumeId, out: &mut Vec<Output>) {
        let (node, lease) = (self.node, self.lease);
        let turn = self.turn(volume);
        let owner = turn.range.and_then(|range| range.owner);
        let epoch = turn.range.map(|range| range.epoch).unwrap_or_default();
        let is_mine = owner.is_some_and(|owner| owner.node == node);
        let is_present = is_mine && owner.map(|owner| owner.lease) == lease;
        if turn.phase != Phase::Closed && !is_mine {
            // It was given, or taken over.
            turn.phase = Phase::Closed;
            out.push(Output::Close { volume });
        }
        let give = |left| Output::Give {
            volume,
            epoch,
            left,
        };
        match turn.phase {
            Phase::Closed | Phase::Open if turn.wanted && is_present => {
                if epoch > turn.opened {
                    turn.opened = epoch;
                    turn.phase = Phase::Open;
                    out.push(Output::Open { volume, epoch });
                }
            }
            Phase::Closed | Phase::Open if turn.wanted => {
                let Some(lease) = lease else { return };
                let after = turn.range.map(|range| range.epoch);
                ask(
                    turn,
                    now,
                    Output::Take {
                        volume,
                        lease,
                        after,
                    },
                    out,
                );
            }
            Phase::Open => {
                turn.phase = Phase::Draining;
                out.push(Output::Drain { volume });
            }
            // Of an earlier start of this node, which had opened it perhaps: nobody else asks for it unless it is wanted there.
            Phase::Closed if is_mine => ask(turn, now, give(Left::Unsettled), out),
            Phase::Giving(left) => ask(turn, now, give(left), out),
            Phase::Draining if turn.wanted && is_present => {
                turn.phase = Phase::Open;
                out.push(Output::Resume { volume });
            }
            // Its lease broke amid the drain: what was read is not handed out any more, so what is in flight does not end.
            Phase::Draining if lease.is_some() && !is_present => {
                turn.phase = Phase::Giving(Left::Unsettled);
                turn.asked = None;
                out.push(Output::Close { volume });
                ask(turn, now, give(Left::Unsettled), out);
            }
            Phase::Closed | Phase::Draining => {}
        }
    }

    /// When [`Turns::expire`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let asked = self.turns.values().filter_map(|turn| turn.asked).min()?;
        Some(asked + ASK_AGAIN)
    }

    /// Asks again what the manager has not answered.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_due = |turn: &Turn| turn.asked.is_some_and(|at| at + ASK_AGAIN <= now);
        let due = self.turns.iter().filter(|(_, turn)| is_due(turn));
        let due: Vec<VolumeId> = due.map(|(&volume, _)| volume).collect();
        for volume in due {
            self.turn(volume).asked = None;
            self.look(now, volume, out);
        }
    }
}

fn ask(turn: &mut Turn, now: Time, what: Output, out: &mut Vec<Output>) {
    if turn.asked.is_none() {
        turn.asked = Some(now);
        out.push(what);
    }
}
