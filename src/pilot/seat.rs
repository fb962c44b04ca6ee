//! This node's seat among the members of the manager: [`Member`], and what its driver keeps for it. It is there while the node is a member.
//!
//! ```text
//!   Ask ──► Member ──Answer──► who waits for that request           Confirm ──► Manager::confirm ──► Confirmed
//!   Report ──►     ──Propose──► Manager::ask ──► index ──► here, until this node's catalog has the entry ──► Answered
//! ```
//!
//! What came of a proposal is told when the catalog here has its entry, after its events (see `node::member`). An ask that is not answered is forgotten when its
//! asker has given up. Invariant, *bounded*: [`ASKS_MAX`] asks a node, and proposals without a number [`UNNUMBERED_MAX`]; those with one are bounded by the
//! steward.

use super::message::Answered;
use crate::base::{NodeId, Time};
use crate::manager;
use crate::node::{Member, MemberInput, MemberOutput};
use crate::protocol::catalog::Catalog;
use crate::protocol::membership::{Ask, Incarnation};
use crate::protocol::steward;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Asks of one node that wait for an answer: as many as a holder remembers.
const ASKS_MAX: usize = 8;
/// Proposals under way whose outcome is told to nobody: who wants it says so again.
const UNNUMBERED_MAX: usize = 256;

/// Who waits for an answer to an ask.
pub(super) type Asker = oneshot::Sender<Answered>;

/// See the [module](self).
pub(super) struct Seat {
    pub machine: Member,
    asks: BTreeMap<(NodeId, Incarnation, u64), Asker>,
    /// Proposals that are in the log, of which the catalog here has not the entry yet.
    awaited: BTreeMap<u64, (u64, steward::Outcome)>,
    unnumbered: usize,
}

impl Seat {
    pub fn new(machine: Member) -> Seat {
        Seat {
            machine,
            asks: BTreeMap::new(),
            awaited: BTreeMap::new(),
            unnumbered: 0,
        }
    }

    /// Somebody waits for the answer to this. The oldest of too many is forgotten.
    pub fn wait(&mut self, ask: &Ask, asker: Asker) {
        self.asks.retain(|_, asker| !asker.is_closed());
        self.asks
            .insert((ask.node, ask.incarnation, ask.request), asker);
        let all = (ask.node, Incarnation(0), 0)..=(ask.node, Incarnation(u64::MAX), u64::MAX);
        let mut of_node = self.asks.range(all).map(|(key, _)| *key);
        if let Some(oldest) = of_node.next()
            && of_node.count() >= ASKS_MAX
        {
            self.asks.remove(&oldest);
        }
    }

    /// The machine answers an ask.
    pub fn answer(&mut self, to: (NodeId, Incarnation, u64), answer: Answered) {
        if let Some(asker) = self.asks.remove(&to) {
            // Where nobody waits any more, he has asked again.
            asker.send(answer).ok();
        }
    }

    /// Whether a proposal may be made; it is counted until [`Seat::proposed`].
    pub fn may_propose(&mut self, number: Option<u64>) -> bool {
        if number.is_some() {
            return true;
        }
        let has_room = self.unnumbered < UNNUMBERED_MAX;
        self.unnumbered += usize::from(has_room);
        has_room
    }

    /// What came of a proposal, while the catalog here has everything up to `index`.
    pub fn proposed(
        &mut self,
        now: Time,
        (number, outcome): (Option<u64>, manager::Outcome),
        (catalog, index): (&Catalog, u64),
        out: &mut Vec<MemberOutput>,
    ) {
        let Some(number) = number else {
            self.unnumbered = self.unnumbered.saturating_sub(1);
            return;
        };
        match outcome {
            manager::Outcome::Committed { index: at, result } => {
                let outcome = match result {
                    Ok(_) => steward::Outcome::Accepted,
                    Err(refusal) => steward::Outcome::Refused(refusal),
                };
                self.awaited.insert(at.0, (number, outcome));
                self.applied(now, (catalog, index), out);
            }
            manager::Outcome::Lost { .. } | manager::Outcome::Unknown { .. } => {
                self.tell(now, (number, steward::Outcome::Lost), catalog, out);
            }
        }
    }

    /// The catalog here has everything up to `index`, and its events were told.
    pub fn applied(
        &mut self,
        now: Time,
        (catalog, index): (&Catalog, u64),
        out: &mut Vec<MemberOutput>,
    ) {
        while let Some(first) = self.awaited.first_entry()
            && *first.key() <= index
        {
            let told = first.remove();
            self.tell(now, told, catalog, out);
        }
    }

    /// It leads no more: what it has proposed is another's.
    pub fn follows(&mut self) {
        self.awaited.clear();
    }

    fn tell(
        &mut self,
        now: Time,
        (proposal, outcome): (u64, steward::Outcome),
        catalog: &Catalog,
        out: &mut Vec<MemberOutput>,
    ) {
        let input = MemberInput::Answered { proposal, outcome };
        self.machine.step(now, input, catalog, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::Index;
    use crate::protocol::membership::{self, Answer, Standing, Term, Want};
    use std::time::Duration;

    fn seat() -> Seat {
        let leases = (membership::Parameters::DEFAULT, membership::RulesOff::NONE);
        let steward = (steward::Parameters::DEFAULT, steward::RulesOff::NONE);
        Seat::new(Member::new(Time(1), NodeId(1), leases, steward).unwrap())
    }

    fn ask(node: u32, request: u64) -> Ask {
        Ask {
            node: NodeId(node),
            incarnation: Incarnation(1),
            request,
            want: Want::Lease,
            standing: Standing::Lost(membership::LeaseNumber::NONE),
            elapsed: Duration::ZERO,
            answered: None,
        }
    }

    #[test]
    fn the_oldest_of_too_many_asks_of_a_node_is_forgotten_and_no_other_nodes() {
        let mut seat = seat();
        let mut waiting = Vec::new();
        for request in 1..=20 {
            for node in [2, 3] {
                let (asker, answer) = oneshot::channel();
                seat.wait(&ask(node, request), asker);
                waiting.push((node, request, answer));
            }
        }
        assert_eq!(seat.asks.len(), 2 * ASKS_MAX);
        let (term, answer) = (Term(1), Answer::Released);
        seat.answer((NodeId(2), Incarnation(1), 20), Answered { term, answer });
        for (node, request, mut answer) in waiting {
            let got = answer.try_recv();
            let is_answered = (node, request) == (2, 20);
            assert_eq!(got.is_ok(), is_answered, "{node} {request}");
        }
    }

    #[test]
    fn who_has_given_up_is_forgotten() {
        let mut seat = seat();
        for request in 1..=5 {
            let (asker, _) = oneshot::channel();
            seat.wait(&ask(2, request), asker);
        }
        let (asker, _waits) = oneshot::channel();
        seat.wait(&ask(2, 6), asker);
        assert_eq!(seat.asks.len(), 1);
    }

    #[test]
    fn the_outcome_of_a_proposal_waits_for_its_entry() {
        let (mut seat, catalog, mut out) = (seat(), Catalog::default(), Vec::new());
        let outcome = manager::Outcome::Committed {
            index: Index(9),
            result: Ok(Vec::new()),
        };
        seat.proposed(Time(1), (Some(1), outcome), (&catalog, 8), &mut out);
        assert_eq!(seat.awaited.len(), 1);
        seat.applied(Time(1), (&catalog, 9), &mut out);
        assert!(seat.awaited.is_empty());
    }

    #[test]
    fn no_more_is_proposed_for_others_than_is_bounded() {
        let (mut seat, catalog) = (seat(), Catalog::default());
        let taken = (0..1_000).filter(|_| seat.may_propose(None)).count();
        assert_eq!(taken, UNNUMBERED_MAX);
        let lost = manager::Outcome::Lost { why: String::new() };
        seat.proposed(Time(1), (None, lost), (&catalog, 0), &mut Vec::new());
        assert!(seat.may_propose(None) && !seat.may_propose(None));
        assert!(seat.may_propose(Some(3)), "the steward bounds its own");
    }
}
