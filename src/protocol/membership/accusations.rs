//! Who is believed when one node says that another does not answer (R11).
//!
//! An accused whose lease is over is believed to be gone on one word. One that lives is not: a bad network card makes a
//! node accuse everybody, and each word would evict a healthy replica until the liar is the last one. So, in this order:
//! 1. a node that accuses three or more living nodes that nobody else accuses is the faulty one;
//! 2. of the living, who has the most accusers, two at least, is the faulty one, and what it says itself counts no longer;
//!    again until nobody has two (equal counts: the higher number of a node, so that one side of a split stays whole);
//! 3. what is left is one word against a living node. After `patience` that is a dispute: a broken link, which is
//!    reported and evicts nobody.
//!
//! *Living* means, for 1 and 3, that the accused renewed its lease after the accusation began: a rack that has just died makes
//! its neighbours accuse many whose leases have not run out yet, and that is not their fault. No verdict on the living comes before
//! `hearing` has passed since the first word, so that the accused has its say.
//!
//! Invariants: *bounded*: [`ACCUSATIONS_MAX`] at once, [`OF_ONE_MAX`] of one accuser; *aging*: a word that is not repeated is
//! forgotten after `accusation_age`, and a verdict with the last word that supports it; *of this life*: a word is about the lease
//! under which it was said, and a node that holds a new one is neither accused nor suspect by what was said before.
//!
//! It does not know what a replica is: the replication manager acts on a verdict, within its own rules (`min_copies`).

use super::entry::LeaseState;
use super::grantor::{Grantor, GrantorOutput};
use super::parameters::Parameters;
use crate::base::{NodeId, Time};
use std::collections::BTreeMap;

/// Accusations that are kept at once: where there are more, the site has another trouble.
pub const ACCUSATIONS_MAX: usize = 1_024;
/// Accusations that are kept of one accuser: more of them say nothing new.
pub const OF_ONE_MAX: usize = 16;
/// How many a node accuses, with nobody beside it, until it is the faulty one.
const MANY: usize = 3;

/// What accusations come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This node is the faulty one.
    Suspect { node: NodeId, why: Why },
    /// Nobody says any longer what made this node suspect.
    Cleared { node: NodeId },
    /// Two living nodes, of which one says that the other does not answer: a broken link between them.
    Disputed { by: NodeId, accused: NodeId },
}

/// What made a node suspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is accused, and holds no lease: surely, or by its own word.
    LeaseEnded,
    /// This many nodes accuse it.
    Accused { by: usize },
    /// It accuses this many living nodes that nobody else accuses.
    AccusesMany { accused: usize },
}

#[derive(Debug, Clone, Copy)]
struct Word {
    first: Time,
    last: Time,
    is_disputed: bool,
}

/// The accusations that are fresh, by accused and accuser.
#[derive(Debug, Default)]
pub(super) struct Accusations {
    words: BTreeMap<(NodeId, NodeId), Word>,
    suspects: BTreeMap<NodeId, Why>,
    judge_at: Option<Time>,
}

impl Accusations {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.judge_at
    }

    /// Takes a word; whether it was taken.
    fn hear(&mut self, now: Time, by: NodeId, accused: NodeId, parameters: &Parameters) -> bool {
        if let Some(word) = self.words.get_mut(&(accused, by)) {
            word.last = now;
            return true;
        }
        let of_this = self.words.keys().filter(|key| key.1 == by).count();
        if self.words.len() >= ACCUSATIONS_MAX || of_this >= OF_ONE_MAX {
            return false;
        }
        let (first, last, is_disputed) = (now, now, false);
        let word = Word {
            first,
            last,
            is_disputed,
        };
        self.words.insert((accused, by), word);
        self.judge_at.get_or_insert(now + parameters.hearing);
        true
    }

    fn is_accused(&self, node: NodeId) -> bool {
        let of = (node, NodeId(0))..=(node, NodeId(u32::MAX));
        self.words.range(of).next().is_some()
    }

    fn suspect(&mut self, node: NodeId, why: Why, out: &mut Vec<GrantorOutput>) {
        if self.suspects.insert(node, why).is_none() {
            out.push(GrantorOutput::Verdict(Verdict::Suspect { node, why }));
        }
    }

    /// Forgets words that are old.
    fn age(&mut self, now: Time, parameters: &Parameters, out: &mut Vec<GrantorOutput>) {
        let age = parameters.accusation_age;
        self.words.retain(|_, word| now.since(word.last) < age);
        self.clear(out);
    }

    /// Forgets what was said of a node before it had its lease.
    fn begin_anew(&mut self, node: NodeId, out: &mut Vec<GrantorOutput>) {
        self.words.retain(|(accused, _), _| *accused != node);
        self.clear(out);
    }

    /// Who is suspect by nobody's word is so no longer.
    fn clear(&mut self, out: &mut Vec<GrantorOutput>) {
        let words = &self.words;
        self.suspects.retain(|node, why| {
            let stays = words.keys().any(|(accused, by)| match why {
                Why::LeaseEnded | Why::Accused { .. } => accused == node,
                Why::AccusesMany { .. } => by == node,
            });
            if !stays {
                let node = *node;
                out.push(GrantorOutput::Verdict(Verdict::Cleared { node }));
            }
            stays
        });
    }

    /// The words that count against each node: from nodes that live and are not suspect.
    fn voices(&self, renewed: &impl Fn(NodeId) -> Option<Time>) -> BTreeMap<NodeId, Vec<NodeId>> {
        let mut voices: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for (accused, by) in self.words.keys() {
            let is_open = !self.suspects.contains_key(accused) && renewed(*accused).is_some();
            if is_open && !self.suspects.contains_key(by) && renewed(*by).is_some() {
                voices.entry(*accused).or_default().push(*by);
            }
        }
        voices
    }

    /// Gives verdicts on the living. `renewed` says when a node that lives renewed its lease last.
    fn judge(
        &mut self,
        now: Time,
        parameters: &Parameters,
        renewed: impl Fn(NodeId) -> Option<Time>,
        out: &mut Vec<GrantorOutput>,
    ) {
        self.age(now, parameters, out);
        self.judge_at = (!self.words.is_empty()).then(|| now + parameters.hearing);
        let was_heard = |word: &Word| now.since(word.first) >= parameters.hearing;
        if !self.words.values().any(was_heard) {
            return;
        }
        self.judge_accusers(&renewed, out);
        loop {
            let voices = self.voices(&renewed);
            let most = voices.iter().max_by_key(|(node, by)| (by.len(), **node));
            let Some((node, by)) = most.filter(|(_, by)| by.len() >= 2) else {
                break;
            };
            self.suspect(*node, Why::Accused { by: by.len() }, out);
        }
        for (accused, by) in self.voices(&renewed) {
            let key = (accused, by[0]);
            let Some(word) = self.words.get_mut(&key) else {
                continue;
            };
            let lives = renewed(accused).is_some_and(|at| at > word.first);
            if lives && !word.is_disputed && now.since(word.first) >= parameters.patience {
                word.is_disputed = true;
                let (accused, by) = key;
                out.push(GrantorOutput::Verdict(Verdict::Disputed { by, accused }));
            }
        }
    }

    /// Who accuses many that live, alone.
    fn judge_accusers(
        &mut self,
        renewed: &impl Fn(NodeId) -> Option<Time>,
        out: &mut Vec<GrantorOutput>,
    ) {
        let mut alone: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (accused, by) in self.voices(renewed) {
            let began = |by: NodeId| self.words.get(&(accused, by)).map(|word| word.first);
            if let [by] = by[..]
                && renewed(accused) > began(by)
            {
                *alone.entry(by).or_default() += 1;
            }
        }
        for (node, accused) in alone.into_iter().filter(|(_, accused)| *accused >= MANY) {
            self.suspect(node, Why::AccusesMany { accused }, out);
        }
    }
}

impl Grantor {
    /// R11: kept, and judged after a hearing; at once where the accused holds no lease.
    pub(super) fn on_accuse(
        &mut self,
        now: Time,
        by: NodeId,
        accused: NodeId,
        out: &mut Vec<GrantorOutput>,
    ) {
        // A stranger is not heard, and who holds no lease has no voice.
        let is_known = self.nodes.contains_key(&accused) && by != accused;
        if !self.is_leading() || !is_known || self.renewed(by).is_none() {
            return;
        }
        let was_taken = self.accusations.hear(now, by, accused, &self.parameters);
        if was_taken && self.is_gone(accused) {
            self.accusations.suspect(accused, Why::LeaseEnded, out);
        }
    }

    /// A lease has ended: who was accused meanwhile is gone.
    pub(super) fn judge_ended(&mut self, node: NodeId, out: &mut Vec<GrantorOutput>) {
        if self.accusations.is_accused(node) {
            self.accusations.suspect(node, Why::LeaseEnded, out);
        }
    }

    /// A node holds a new lease: what was said of it before is over. Else a site that returns from a power cut evicts replicas
    /// that are well, when the old words end.
    pub(super) fn on_new_lease(&mut self, node: NodeId, out: &mut Vec<GrantorOutput>) {
        self.accusations.begin_anew(node, out);
    }

    pub(super) fn judge(&mut self, now: Time, out: &mut Vec<GrantorOutput>) {
        let mut accusations = std::mem::take(&mut self.accusations);
        accusations.judge(now, &self.parameters, |node| self.renewed(node), out);
        self.accusations = accusations;
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> usize {
        self.accusations.words.len()
    }

    /// Whether nobody holds the node's lease, surely or by its own word. One whose time has passed here, or whose clock is
    /// bad, is neither gone nor living until its lease is over.
    fn is_gone(&self, node: NodeId) -> bool {
        self.nodes
            .get(&node)
            .is_some_and(|entry| match entry.state {
                LeaseState::Ended => true,
                LeaseState::Live { .. } => !entry.says_it_holds,
                LeaseState::Ending { .. } => false,
            })
    }

    /// When a node that lives renewed last. One that lives holds a lease, says so, and has a sound clock.
    fn renewed(&self, node: NodeId) -> Option<Time> {
        let entry = self.nodes.get(&node)?;
        let is_live = matches!(entry.state, LeaseState::Live { .. });
        let lives = is_live && entry.says_it_holds && !entry.clock.is_out_of_bounds();
        lives.then_some(entry.renewed)
    }
}
