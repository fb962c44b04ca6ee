//! Who leads, who has heard of it, and what an election does to what is in flight.

use super::{Due, Event, Fate, Fault, LOOK, Log, Member, Outcome, ProposalId, Reach};
use crate::base::{NodeId, Time};
use std::time::Duration;

impl<C: Clone> Log<C> {
    /// A node lost its process, and what it had in memory.
    pub fn down(&mut self, now: Time, node: NodeId) {
        if let Some(it) = self.nodes.get_mut(&node) {
            it.life += 1;
            it.needs_snapshot = true;
        }
        self.bring(now, node);
        if let Some(member) = self.members.get_mut(&node) {
            // What it voted is durable.
            let voted = member.voted;
            *member = Member {
                voted,
                ..Member::default()
            };
        }
        if self.leader == Some(node) {
            self.lose_leader(now);
        }
    }

    /// The leader is to lose its place though it runs: it hears of it when the next one is there.
    pub fn depose(&mut self, now: Time) {
        if let Some(leader) = self.leader {
            self.tally.injected(Fault::LeaderChange);
            self.deposed = Some(leader);
            self.lose_leader(now);
        }
    }

    fn lose_leader(&mut self, now: Time) {
        self.leader = None;
        let (least, most) = self.pace.election_us;
        let pause = Duration::from_micros(self.prng.between(least, most.max(least)));
        self.leaderless.get_or_insert((now, pause));
    }

    pub(super) fn on_look(&mut self, now: Time, reach: &impl Reach) {
        match self.leader {
            Some(leader) if self.has_majority(now, leader, self.term, reach) => {
                self.leaderless = None;
                self.tell(now, leader, reach);
            }
            // It may come back before somebody else is elected.
            Some(_) if self.leaderless.is_none() => {
                let leader = self.leader;
                self.lose_leader(now);
                self.leader = leader;
            }
            _ => {}
        }
        if let Some((since, pause)) = self.leaderless
            && now.since(since) >= pause
        {
            self.elect(now, reach);
        }
        self.put(now + LOOK, Due::Look);
    }

    /// Elects whoever reaches a majority, if anybody does.
    fn elect(&mut self, now: Time, reach: &impl Reach) {
        let reached = |of: NodeId| -> Vec<NodeId> {
            let members = self.members.keys().copied();
            members
                .filter(|node| reach.reaches(now, of, *node))
                .collect()
        };
        let may = |node: &NodeId| reached(*node).len() >= self.majority();
        let mut able: Vec<NodeId> = self.members.keys().copied().filter(may).collect();
        if able.len() > 1 {
            able.retain(|node| self.deposed != Some(*node));
        }
        if able.is_empty() {
            return;
        }
        let winner = able[self.prng.below(able.len() as u64) as usize];
        // Any majority votes; who did not hears of it later.
        let mut voters = reached(winner);
        voters.retain(|node| *node != winner);
        let (majority, mut voted) = (self.majority(), vec![winner]);
        while voted.len() < majority {
            voted.push(voters.swap_remove(self.prng.below(voters.len() as u64) as usize));
        }
        self.settle(now);
        self.term += 1;
        if self.term > 1 {
            self.tally.consumed(Fault::LeaderChange);
        }
        (self.leader, self.leaderless, self.deposed) = (Some(winner), None, None);
        let term = self.term;
        for node in voted {
            self.member_mut(node).voted = term;
            if node != winner {
                self.follow(node, Some(winner));
            }
        }
        // Whoever leads has everything that was committed.
        while self.nodes[&winner].has < self.committed() || self.nodes[&winner].needs_snapshot {
            self.bring_one(winner);
        }
        let member = self.member_mut(winner);
        (member.told, member.leads) = (term, Some(term));
        let open = std::mem::take(&mut member.open);
        self.ready.push_back(Event::Lead { at: winner, term });
        self.answer_open(winner, open);
    }

    /// What was in flight under the last leader is committed, a beginning of it, and lost.
    fn settle(&mut self, now: Time) {
        let kept = self.prng.below(self.flying.len() as u64 + 1) as usize;
        let flying = std::mem::take(&mut self.flying);
        // Of all members, at most one believes that it leads this term.
        let term = self.term;
        let mut led = self
            .members
            .iter()
            .filter(|(_, member)| member.leads == Some(term));
        let by = led.next().map(|(node, _)| *node);
        for (n, proposal) in flying.into_iter().enumerate() {
            let fate = match n < kept {
                true => {
                    self.commit(now, proposal.command);
                    Fate::Committed
                }
                false => {
                    self.tally.both(Fault::ProposalLost);
                    Fate::Lost
                }
            };
            if let Some(by) = by {
                self.member_mut(by).open.push((proposal.id, fate));
            }
        }
    }

    /// Tells every member that the leader reaches, and that has not heard, who leads.
    fn tell(&mut self, now: Time, leader: NodeId, reach: &impl Reach) {
        let term = self.term;
        let has_not_heard = |(node, member): &(&NodeId, &Member)| {
            member.told < term && reach.reaches(now, leader, **node)
        };
        let nodes = self.members.iter().filter(has_not_heard);
        let nodes: Vec<NodeId> = nodes.map(|(node, _)| *node).collect();
        for node in nodes {
            let member = self.member_mut(node);
            member.voted = member.voted.max(term);
            self.follow(node, Some(leader));
        }
    }

    fn follow(&mut self, at: NodeId, leader: Option<NodeId>) {
        let term = self.term;
        let member = self.member_mut(at);
        (member.told, member.leads) = (term, None);
        let open = std::mem::take(&mut member.open);
        self.ready.push_back(Event::Follow { at, term, leader });
        self.answer_open(at, open);
    }

    /// A proposer learns that nobody will tell it what became of these.
    fn answer_open(&mut self, at: NodeId, open: Vec<(ProposalId, Fate)>) {
        for (proposal, fate) in open {
            if fate == Fate::Committed {
                self.tally.both(Fault::ProposalUnknown);
            }
            self.ready.push_back(Event::Answered {
                at,
                proposal,
                outcome: Outcome::Unknown,
            });
        }
    }

    pub(super) fn on_vote(
        &mut self,
        now: Time,
        round: (NodeId, u64, u64),
        by: NodeId,
        reach: &impl Reach,
    ) {
        let (at, term, up_to) = round;
        let member = &self.members[&by];
        if !reach.reaches(now, at, by) || member.voted > term {
            return;
        }
        let majority = self.majority();
        let Some(votes) = self.rounds.get_mut(&round) else {
            return;
        };
        votes.insert(by);
        if votes.len() >= majority {
            self.rounds.remove(&round);
            self.ready.push_back(Event::Confirmed { at, term, up_to });
        }
    }

    fn member_mut(&mut self, node: NodeId) -> &mut Member {
        self.members
            .get_mut(&node)
            .expect("a member of the manager")
    }
}
