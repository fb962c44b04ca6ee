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
//! # Shared volumes
//! A volume that several nodes have attached is owned by one of them at a time, and its range goes to who asks:
//!
//! ```text
//!   a node without the turn                      the owner
//!   a request comes ── Want ────────────────────► holds its turn for TURN_MIN, then drains ── Hand ──► the manager: the next turn begins
//!                 └─── Take (for an owner that is gone) ──► the manager
//! ```
//!
//! The node asks the owner itself; the manager's log gets one entry a hand-over, so at most [`TURN_MIN`] sets how often it is written.
//! Nobody starves: who waits says how many turns of others it has waited for, and the one with the most gets the next. So with n nodes a wait is
//! at most n turns, each of TURN_MIN and a drain. An owner that nobody asks keeps its turn, so a volume that is used at one node costs nothing. This is
//! live migration too: attached at both nodes, the guest's first request at the new one brings the turn.
//!
//! A node without a lease closes nothing: what is open goes on as far as all replicas can be reached and have heard of no other owner (R18). It takes the
//! range again when it holds another lease, and ends when it hears that the range is another node's.
//!
//! A node that loses its turn without having drained it (its lease ended) is *suspended*: what has no answer is asked again under its next turn.
//!
//! Invariants: *an epoch is opened once*. It does not know what is in flight, or who leads the manager.

#[cfg(test)]
mod tests;

use super::catalog::{Left, Owner, Ownership};
use super::membership::LeaseNumber;
use crate::base::{Epoch, NodeId, Time, VolumeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an answer of the manager is waited for before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// For how long a shared volume's turn is kept at the least while another node waits: what a hand-over costs (two round trips and an entry of the
/// manager's log) is small beside it.
pub const TURN_MIN: Duration = Duration::from_millis(50);
/// Nodes that wait for one turn; more ask again.
const WAITERS_MAX: usize = 64;

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
    /// A request waits on a shared volume that is not open here.
    Asked { volume: VolumeId },
    /// A node that has a shared volume attached waits for the turn that has this epoch.
    WantedBy {
        volume: VolumeId,
        epoch: Epoch,
        by: Owner,
        /// Turns of others that it has waited for.
        missed: u32,
    },
}

/// Whether a volume is wanted at this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Here {
    Attached,
    /// Other nodes may have it as well: it is served when something is asked.
    Shared,
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
    /// Another node has it, or may have it: what has no answer gets none from here. Where a shared volume is attached anew already, the
    /// driver opens it at once, and what comes waits for the next [`Output::Open`].
    Close { volume: VolumeId },
    /// The same of a shared volume that is still attached here: what has no answer, and what comes, waits for the next [`Output::Open`].
    Suspend { volume: VolumeId },
    /// Tell the owner of a shared volume that this node waits for its turn: [`Input::WantedBy`] there.
    Want {
        volume: VolumeId,
        owner: NodeId,
        epoch: Epoch,
        by: Owner,
        missed: u32,
    },
    /// Tell the manager that the turn has ended, and that the next one is this node's.
    Hand {
        volume: VolumeId,
        epoch: Epoch,
        to: Owner,
        left: Left,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not served.
    Closed,
    Open,
    Draining,
    Giving(Left),
    /// As giving, but who waits gets it. If the manager does not take that, it is given.
    Handing(Left, Owner),
}

#[derive(Debug, Clone, Copy)]
struct Waiter {
    /// Of the turn that it waits for.
    epoch: Epoch,
    lease: LeaseNumber,
    /// Turns of others that it has waited for.
    missed: u32,
}

#[derive(Debug, Clone)]
struct Turn {
    here: Here,
    /// A request waits, or has come since the last turn.
    is_asked: bool,
    /// Turns of others since it waits.
    missed: u32,
    /// The nodes that wait for a turn of this node, perhaps for one that it has not heard of yet.
    waiters: BTreeMap<NodeId, Waiter>,
    /// When it was opened last.
    since: Time,
    range: Option<Ownership>,
    /// The epoch that was opened last.
    opened: Epoch,
    /// A turn since then was not heard of: it may have been another node's.
    is_broken: bool,
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
                let turn = self.turn(volume);
                let before = std::mem::replace(&mut turn.here, here);
                let is_detached = matches!(here, Here::NotAttached | Here::ToFreeze);
                if before == Here::Shared && is_detached && turn.phase == Phase::Closed {
                    // What waited for a turn here gets none, also where the node takes one for a snapshot.
                    turn.is_asked = false;
                    out.push(Output::Close { volume });
                }
                self.look(now, volume, out);
            }
            Input::Owned { volume, range } => {
                let turn = self.turn(volume);
                let known = turn.range.map(|known| known.epoch);
                if known.is_none_or(|known| known <= range.epoch) {
                    if turn.is_asked && known.is_some_and(|known| known < range.epoch) {
                        turn.missed += 1;
                    }
                    let follows = known.is_some_and(|known| {
                        let next = Epoch {
                            host: known.host + 1,
                            ..known
                        };
                        range.epoch == known || range.epoch == next
                    });
                    turn.is_broken |= !follows;
                    turn.range = Some(range);
                    turn.asked = None;
                    turn.waiters.retain(|_, waiter| waiter.epoch >= range.epoch);
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
                    turn.phase = match turn.longest_waiter() {
                        Some(to) => Phase::Handing(left, to),
                        None => Phase::Giving(left),
                    };
                    turn.asked = None;
                    self.look(now, volume, out);
                }
            }
            Input::Asked { volume } => {
                self.turn(volume).is_asked = true;
                self.look(now, volume, out);
            }
            Input::WantedBy {
                volume,
                epoch,
                by,
                missed,
            } => {
                let turn = self.turn(volume);
                let is_over = turn.range.is_some_and(|range| range.epoch > epoch);
                let has_room =
                    turn.waiters.len() < WAITERS_MAX || turn.waiters.contains_key(&by.node);
                if !is_over && has_room {
                    let waiter = Waiter {
                        epoch,
                        lease: by.lease,
                        missed,
                    };
                    turn.waiters.insert(by.node, waiter);
                    self.look(now, volume, out);
                }
            }
        }
    }

    fn turn(&mut self, volume: VolumeId) -> &mut Turn {
        self.turns.entry(volume).or_insert(Turn {
            here: Here::NotAttached,
            is_asked: false,
            missed: 0,
            waiters: BTreeMap::new(),
            since: Time(0),
            range: None,
            opened: Epoch::default(),
            is_broken: false,
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
            out.push(turn.end(volume));
        }
        let wanted = match turn.here {
            Here::Attached | Here::ToFreeze => true,
            // Who has a turn keeps it until another node asks.
            Here::Shared => turn.is_asked || is_present || turn.phase == Phase::Open,
            Here::NotAttached => false,
        };
        let give = |left| Output::Give {
            volume,
            epoch,
            left,
        };
        match turn.phase {
            Phase::Closed | Phase::Open if wanted && is_present => {
                if epoch > turn.opened {
                    if std::mem::take(&mut turn.is_broken) && turn.phase == Phase::Open {
                        // What is in flight here may have been recovered there, and written over: it must not happen once more.
                        out.push(turn.end(volume));
                    }
                    (turn.opened, turn.since) = (epoch, now);
                    (turn.is_asked, turn.missed) = (false, 0);
                    turn.phase = Phase::Open;
                    out.push(Output::Open { volume, epoch });
                }
                if turn.phase == Phase::Open && turn.is_waited_for() && turn.since + TURN_MIN <= now
                {
                    turn.phase = Phase::Draining;
                    out.push(Output::Drain { volume });
                }
            }
            Phase::Closed | Phase::Open if wanted => {
                let Some(lease) = lease else { return };
                let after = turn.range.map(|range| range.epoch);
                if let Some(other) = owner.filter(|owner| owner.node != node)
                    && turn.here == Here::Shared
                    && turn.asked.is_none()
                {
                    out.push(Output::Want {
                        volume,
                        owner: other.node,
                        epoch,
                        by: Owner { node, lease },
                        missed: turn.missed,
                    });
                }
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
            Phase::Handing(left, to) => {
                let hand = Output::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                };
                ask(turn, now, hand, out);
            }
            Phase::Draining if wanted && is_present && !turn.is_waited_for() => {
                turn.phase = Phase::Open;
                out.push(Output::Resume { volume });
            }
            // Its lease broke amid the drain: what was read is handed out no more but where all members confirm it, so what is in flight may never end.
            Phase::Draining if lease.is_some() && !is_present => {
                turn.phase = Phase::Giving(Left::Unsettled);
                turn.asked = None;
                out.push(turn.end(volume));
                ask(turn, now, give(Left::Unsettled), out);
            }
            Phase::Closed | Phase::Draining => {}
        }
    }

    /// When [`Turns::expire`] is to be called.
    pub fn deadline(&self) -> Option<Time> {
        let asked = self.turns.values().filter_map(|turn| turn.asked).min();
        let ends = self.turns.values().filter_map(|turn| turn.ends(self.lease));
        let asked = asked.map(|asked| asked + ASK_AGAIN);
        asked.into_iter().chain(ends).min()
    }

    /// Asks again what the manager has not answered.
    pub fn expire(&mut self, now: Time, out: &mut Vec<Output>) {
        let is_due = |turn: &Turn| turn.asked.is_some_and(|at| at + ASK_AGAIN <= now);
        let due = self.turns.iter().filter(|(_, turn)| is_due(turn));
        let due: Vec<VolumeId> = due.map(|(&volume, _)| volume).collect();
        for volume in due {
            let turn = self.turn(volume);
            turn.asked = None;
            if let Phase::Handing(left, _) = turn.phase {
                // Perhaps the manager has refused it: who waits may take it as well.
                turn.phase = Phase::Giving(left);
            }
            self.look(now, volume, out);
        }
        let lease = self.lease;
        let ends = |turn: &Turn| turn.ends(lease).is_some_and(|at| at <= now);
        let ended = self.turns.iter().filter(|(_, turn)| ends(turn));
        let ended: Vec<VolumeId> = ended.map(|(&volume, _)| volume).collect();
        for volume in ended {
            self.look(now, volume, out);
        }
    }
}

impl Turn {
    /// When it may go to a node that waits for it.
    fn ends(&self, lease: Option<LeaseNumber>) -> Option<Time> {
        let is_waited_for = self.phase == Phase::Open && self.is_waited_for();
        let range = self.range.filter(|range| range.epoch == self.opened)?;
        let is_present = lease.is_some() && range.owner.map(|owner| owner.lease) == lease;
        (is_waited_for && is_present).then_some(self.since + TURN_MIN)
    }

    /// What becomes of requests as a turn ends.
    fn end(&self, volume: VolumeId) -> Output {
        match self.here {
            Here::Shared => Output::Suspend { volume },
            Here::Attached | Here::ToFreeze | Here::NotAttached => Output::Close { volume },
        }
    }

    fn is_waited_for(&self) -> bool {
        let waits = |waiter: &Waiter| waiter.epoch == self.opened;
        self.waiters.values().any(waits)
    }

    /// Who has waited for the most turns of others; of several the first.
    fn longest_waiter(&self) -> Option<Owner> {
        let present = self.waiters.iter();
        let present = present.filter(|(_, waiter)| waiter.epoch == self.opened);
        let longest = present.max_by_key(|(node, of)| (of.missed, std::cmp::Reverse(**node)));
        longest.map(|(&node, of)| Owner {
            node,
            lease: of.lease,
        })
    }
}

fn ask(turn: &mut Turn, now: Time, what: Output, out: &mut Vec<Output>) {
    if turn.asked.is_none() {
        turn.asked = Some(now);
        out.push(what);
    }
}
