//! The golden stories in `testscripts/`: steps after `>`, what the machines then say below each, prose after `#`.
//!
//! A story has its own little site: members that lead or follow, nodes, one message queue. Nothing is delivered, lost or
//! confirmed unless a step says so, except under `run`, where everything is, at once.

use super::super::*;
use crate::base::{NodeId, Time};
use crate::protocol::stories;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Clocks begin here, so that no time is 0.
const BEGIN: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

enum Message {
    Ask(NodeId, Ask),
    Answer(NodeId, NodeId, HolderInput),
}

struct Node {
    holder: Holder,
    ppm: i64,
    stopped_until: u64,
}

struct Site {
    /// Nanoseconds of true time since the story began.
    now: u64,
    members: BTreeMap<NodeId, Grantor>,
    nodes: BTreeMap<NodeId, Node>,
    messages: Vec<Message>,
    /// What is not confirmed yet: by whom, in which term, up to which round.
    confirms: Vec<(NodeId, Term, u64)>,
    delivers: bool,
    told: String,
}

impl Site {
    fn new() -> Site {
        Site {
            now: 0,
            members: BTreeMap::new(),
            nodes: BTreeMap::new(),
            messages: Vec::new(),
            confirms: Vec::new(),
            delivers: false,
            told: String::new(),
        }
    }

    fn tell(&mut self, who: &str, node: NodeId, what: String) {
        let (whole, part) = (self.now / MS, self.now % MS / 100_000);
        writeln!(self.told, "{whole:>5}.{part} ms  {who} {node} {what}").unwrap();
    }

    /// Does one step; what was said.
    fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().unwrap_or_else(|_| panic!("{step:?}"));
        let node = |word: &str| NodeId(number(word) as u32);
        match words[..] {
            ["member", member, "leads", "term", term] => {
                let term = Term(number(term));
                self.grantor(node(member), GrantorInput::Lead { term });
            }
            ["member", member, "follows", leader] => {
                let leader = Some(node(leader)).filter(|leader| *leader != NodeId(0));
                self.grantor(node(member), GrantorInput::Follow { leader });
            }
            ["catalog", "has", who, "incarnation", incarnation] => {
                let (node, incarnation) = (node(who), Incarnation(number(incarnation)));
                for member in self.members.keys().copied().collect::<Vec<_>>() {
                    self.grantor(member, GrantorInput::Node { node, incarnation });
                }
            }
            ["catalog", "forgets", who] => {
                let node = node(who);
                for member in self.members.keys().copied().collect::<Vec<_>>() {
                    self.grantor(member, GrantorInput::Forget { node });
                }
            }
            ["node", who, "starts", "incarnation", incarnation] => {
                self.start(node(who), number(incarnation), 0)
            }
            [
                "node",
                who,
                "starts",
                "incarnation",
                incarnation,
                ppm,
                "ppm",
            ] => self.start(node(who), number(incarnation), ppm.parse().unwrap()),
            ["node", who, "stops"] => self.holder(node(who), HolderInput::Stop),
            ["node", who, "crashes"] => drop(self.nodes.remove(&node(who))),
            ["node", who, "is", "stopped", "for", ms, "ms"] => {
                let until = self.now + number(ms) * MS;
                self.nodes.get_mut(&node(who)).unwrap().stopped_until = until;
            }
            ["node", who, "valid?"] => {
                let at = &self.nodes[&node(who)];
                let answer = match at.holder.is_valid(clock(at.ppm, self.now)) {
                    true => "is valid",
                    false => "is not valid",
                };
                self.tell("node", node(who), answer.into());
            }
            ["accuse", accused, "by", by] => {
                let (by, accused) = (node(by), node(accused));
                let leads = |member: &(&NodeId, &Grantor)| member.1.is_leading();
                let leader = *self.members.iter().find(leads).unwrap().0;
                self.grantor(leader, GrantorInput::Accuse { by, accused });
            }
            ["deliver"] => self.deliver(),
            ["lose"] => self.messages.clear(),
            ["confirm"] => self.confirm(),
            ["confirm", "member", member] => {
                let of = node(member);
                let (confirmed, others) = std::mem::take(&mut self.confirms)
                    .into_iter()
                    .partition(|confirm| confirm.0 == of);
                self.confirms = confirmed;
                self.confirm();
                self.confirms.extend::<Vec<_>>(others);
            }
            ["wait", ms, "ms"] => self.pass(number(ms) * MS),
            ["run", ms, "ms"] => {
                self.delivers = true;
                self.settle();
                self.pass(number(ms) * MS);
                self.delivers = false;
            }
            [pass @ ("run" | "wait"), ms, "ms", "quietly"] => {
                let said = self.step(&format!("{pass} {ms} ms"));
                let is_news = |line: &&str| !RENEWAL.iter().any(|part| line.contains(part));
                return said
                    .lines()
                    .filter(is_news)
                    .map(|line| format!("{line}\n"))
                    .collect();
            }
            _ => panic!("no such step: {step:?}"),
        }
        std::mem::take(&mut self.told)
    }

    fn start(&mut self, node: NodeId, incarnation: u64, ppm: i64) {
        let members = self.members.keys().copied().collect();
        let now = clock(ppm, self.now);
        let incarnation = Incarnation(incarnation);
        let parameters = Parameters::DEFAULT;
        let holder = Holder::new(now, node, incarnation, members, parameters, RulesOff::NONE);
        let node_of = Node {
            holder: holder.unwrap(),
            ppm,
            stopped_until: 0,
        };
        self.nodes.insert(node, node_of);
        self.pass(0);
    }

    fn grantor(&mut self, member: NodeId, input: GrantorInput) {
        self.with_grantor(member, |grantor, now, out| grantor.step(now, input, out));
    }

    fn with_grantor(
        &mut self,
        member: NodeId,
        act: impl FnOnce(&mut Grantor, Time, &mut Vec<GrantorOutput>),
    ) {
        let now = clock(0, self.now);
        let grantor = self.members.entry(member).or_insert_with(|| {
            Grantor::new(clock(0, 0), member, Parameters::DEFAULT, RulesOff::NONE).unwrap()
        });
        let mut out = Vec::new();
        act(grantor, now, &mut out);
        assert_eq!(grantor.check(), Ok(()));
        for output in out {
            self.tell("member", member, of_grantor(&output));
            match output {
                GrantorOutput::Answer {
                    to,
                    incarnation,
                    request,
                    term,
                    answer,
                } => {
                    let from = member;
                    let input = HolderInput::Answer {
                        from,
                        incarnation,
                        request,
                        term,
                        answer,
                    };
                    self.messages.push(Message::Answer(member, to, input));
                }
                GrantorOutput::Confirm { term, up_to } => self.confirms.push((member, term, up_to)),
                _ => {}
            }
        }
    }

    fn holder(&mut self, node: NodeId, input: HolderInput) {
        self.with_holder(node, |holder, now, out| holder.step(now, input, out));
    }

    fn with_holder(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Holder, Time, &mut Vec<HolderOutput>),
    ) {
        let Some(at) = self.nodes.get_mut(&node) else {
            return;
        };
        let mut out = Vec::new();
        act(&mut at.holder, clock(at.ppm, self.now), &mut out);
        assert_eq!(at.holder.check(), Ok(()));
        for output in out {
            self.tell("node", node, of_holder(&output));
            if let HolderOutput::Send { to, ask } = output {
                self.messages.push(Message::Ask(to, ask));
            }
        }
    }

    fn deliver(&mut self) {
        for message in std::mem::take(&mut self.messages) {
            match message {
                Message::Ask(to, ask) => self.grantor(to, GrantorInput::Ask(ask)),
                Message::Answer(from, to, input) => {
                    let until = self.nodes.get(&to).map_or(0, |node| node.stopped_until);
                    match until > self.now {
                        true => self.messages.push(Message::Answer(from, to, input)),
                        false => self.holder(to, input),
                    }
                }
            }
        }
    }

    fn confirm(&mut self) {
        for (member, term, up_to) in std::mem::take(&mut self.confirms) {
            self.grantor(member, GrantorInput::Confirmed { term, up_to });
        }
    }

    /// Delivers and confirms until nothing is left.
    fn settle(&mut self) {
        while self.delivers {
            let before = self.told.len();
            self.deliver();
            self.confirm();
            if self.told.len() == before {
                return;
            }
        }
    }

    /// Lets time pass, waking each machine when it wants to be.
    fn pass(&mut self, nanoseconds: u64) {
        let end = self.now + nanoseconds;
        loop {
            let of_members = self.members.iter().filter_map(|(id, member)| {
                Some((member.deadline()?.0.saturating_sub(BEGIN), true, *id))
            });
            let of_nodes = self.nodes.iter().filter_map(|(id, node)| {
                let at = when(node.ppm, node.holder.deadline()?);
                Some((at.max(node.stopped_until), false, *id))
            });
            let next = of_members.chain(of_nodes).min();
            let Some((at, is_member, id)) = next.filter(|next| next.0 <= end) else {
                break;
            };
            self.now = self.now.max(at);
            match is_member {
                true => self.with_grantor(id, |grantor, now, out| grantor.expire(now, out)),
                false => self.with_holder(id, |holder, now, out| holder.expire(now, out)),
            }
            self.settle();
        }
        self.now = end;
    }
}

/// What a renewal says, which a quiet run leaves out.
const RENEWAL: [&str; 4] = [
    " asks member ",
    " asks a majority ",
    " grants ",
    " holds on ",
];

fn clock(ppm: i64, t: u64) -> Time {
    Time(BEGIN + (t as i64 + t as i64 / 1_000_000 * ppm) as u64)
}

fn when(ppm: i64, shown: Time) -> u64 {
    let mut t =
        (shown.0.saturating_sub(BEGIN) as i128 * 1_000_000 / (1_000_000 + ppm) as i128) as u64;
    t = t.saturating_sub(2_000_000);
    while clock(ppm, t) < shown {
        t += 1_000;
    }
    t
}

fn lease(lease: LeaseNumber) -> String {
    format!("lease {}.{}", lease.term.0, lease.count)
}

fn of_holder(output: &HolderOutput) -> String {
    let ms = |until: Time| {
        let at = Duration::from_nanos(until.0.saturating_sub(BEGIN));
        format!("{:.1} ms of its clock", at.as_secs_f64() * 1e3)
    };
    match output {
        HolderOutput::Send { to, ask } => {
            let what = match ask.want {
                Want::Lease => "asks",
                Want::Release => "gives back to",
            };
            let standing = match ask.standing {
                Standing::Holds(held) => format!("holding {}", lease(held)),
                Standing::Lost(LeaseNumber::NONE) => "holding nothing yet".into(),
                Standing::Lost(lost) => format!("having lost {}", lease(lost)),
            };
            format!("{what} member {to}, request {}, {standing}", ask.request)
        }
        HolderOutput::Held { lease: held, until } => {
            format!("holds {} until {}", lease(*held), ms(*until))
        }
        HolderOutput::Extended { until } => format!("holds on until {}", ms(*until)),
        HolderOutput::Fenced { lease: lost, why } => format!("FENCED, {}: {why:?}", lease(*lost)),
        HolderOutput::Refused { reason } => format!("hears that it is refused: {reason:?}"),
        HolderOutput::Stopped { released } => match released {
            true => "has stopped, and given its lease back".into(),
            false => "has stopped, and nobody took its lease back".into(),
        },
    }
}

fn of_grantor(output: &GrantorOutput) -> String {
    match output {
        GrantorOutput::Answer {
            to,
            request,
            answer,
            ..
        } => match answer {
            Answer::Granted { lease: held, .. } => {
                format!("grants {} to node {to}, request {request}", lease(*held))
            }
            Answer::NotLeader { hint: Some(hint) } => {
                format!("tells node {to} that member {hint} leads")
            }
            Answer::NotLeader { hint: None } => format!("tells node {to} that it does not lead"),
            Answer::Refused { reason } => format!("refuses node {to}: {reason:?}"),
            Answer::Released => format!("takes back what node {to} had"),
        },
        GrantorOutput::Confirm { term, up_to } => {
            format!(
                "asks a majority to confirm round {up_to} of term {}",
                term.0
            )
        }
        GrantorOutput::Record { node, incarnation } => {
            format!(
                "asks the catalog to record incarnation {} of node {node}",
                incarnation.0
            )
        }
        GrantorOutput::Live {
            node, lease: held, ..
        } => format!("knows that node {node} holds {}", lease(*held)),
        GrantorOutput::Expired {
            node,
            lease: over,
            why,
            ..
        } => format!(
            "says EXPIRED of node {node}, up to {}: {why:?}",
            lease(*over)
        ),
        GrantorOutput::Verdict(Verdict::Suspect { node, why }) => {
            format!("judges node {node} SUSPECT: {why:?}")
        }
        GrantorOutput::Verdict(Verdict::Cleared { node }) => format!("clears node {node}"),
        GrantorOutput::Verdict(Verdict::Disputed { by, accused }) => {
            format!("finds a broken link: node {by} says that node {accused} does not answer")
        }
        GrantorOutput::ClockOutOfBounds { node } => {
            format!("finds the clock of node {node} OUT OF BOUNDS")
        }
        GrantorOutput::ClockInBounds { node } => {
            format!("finds the clock of node {node} in bounds again")
        }
        GrantorOutput::OwnClockOutOfBounds => "finds its own clock OUT OF BOUNDS".into(),
        GrantorOutput::Full { node } => format!("has no room for node {node}"),
    }
}

#[test]
fn every_story_is_told_as_it_is_written() {
    stories::play("membership", Site::new, Site::step);
}
