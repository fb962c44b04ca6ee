//! The golden stories in `testscripts/`: nodes with their turns at one volume, and a catalog that takes at once what it is told.
//!
//! Draining takes until a step says that it is done. A node that is dead says and hears nothing, and its lease has ended.

use super::*;
use crate::base::StoreId;
use crate::protocol::catalog::{
    Catalog, Command, FrontEnd, GiveWhy, Locality, Purpose, Sharing, StoreName, TakeWhy,
};
use crate::protocol::membership::{Incarnation, Term};
use crate::protocol::stories;
use std::collections::BTreeSet;
use std::fmt::Write;

const V: VolumeId = VolumeId(1);

struct Site {
    now: Time,
    catalog: Catalog,
    nodes: BTreeMap<NodeId, Turns>,
    dead: BTreeSet<NodeId>,
    told: String,
}

fn lease(node: NodeId) -> LeaseNumber {
    LeaseNumber {
        term: Term(1),
        count: u64::from(node.0),
    }
}

/// Three nodes that hold leases, and a volume.
fn site() -> Site {
    let mut catalog = Catalog::default();
    let mut nodes = BTreeMap::new();
    for n in 1..=3 {
        let name = format!("n{n}");
        catalog.apply(&Command::AddNode { name }).unwrap();
        let node = NodeId(n);
        let mut turns = Turns::new(node);
        turns.step(Time(1), Input::Leased(lease(node)), &mut Vec::new());
        nodes.insert(node, turns);
    }
    let commands = [
        Command::AddDisk {
            node: NodeId(1),
            path: "/d".into(),
            store: StoreName(StoreId([1; 16])),
            size: 1 << 40,
            pool: None,
            incarnation: Incarnation(0),
        },
        Command::CreateVolume {
            name: "v".into(),
            size: 1 << 20,
            block_size: 4096,
            purpose: Purpose::Use,
            pool: None,
            locality: Locality::Spread,
        },
    ];
    for command in &commands {
        catalog.apply(command).unwrap();
    }
    Site {
        now: Time(1),
        catalog,
        nodes,
        dead: BTreeSet::new(),
        told: String::new(),
    }
}

impl Site {
    fn step(&mut self, step: &str) -> String {
        let words: Vec<&str> = step.split_whitespace().collect();
        let node = words.last().and_then(|word| word.parse().ok()).map(NodeId);
        match (&words[..], node) {
            (["share"], _) => self.apply(&Command::SetSharing {
                name: "v".into(),
                sharing: Sharing::Shared,
            }),
            (["attach", _], Some(node)) => self.apply(&Command::Attach {
                volume: V,
                node,
                front_end: FrontEnd::Ublk {
                    device: None,
                    queues: 1,
                },
            }),
            (["detach", _], Some(node)) => {
                let key = self.catalog.attached_at(V, node).map(|one| one.key);
                self.apply(&Command::Detach { volume: V, key });
            }
            (["request", _], Some(node)) => self.tell(node, Input::Asked { volume: V }),
            (["drained", _], Some(node)) => {
                let left = Left::Settled;
                self.tell(node, Input::Drained { volume: V, left });
            }
            (["dies", _], Some(node)) => drop(self.dead.insert(node)),
            (["wait", ms, "ms"], _) => {
                let end = self.now + Duration::from_millis(ms.parse().unwrap());
                self.wait(end);
            }
            _ => panic!("no such step: {step}"),
        }
        std::mem::take(&mut self.told)
    }

    fn wait(&mut self, end: Time) {
        while let Some(next) = self.nodes.values().filter_map(Turns::deadline).min()
            && next <= end
        {
            self.now = next.max(self.now);
            for node in self.nodes.keys().copied().collect::<Vec<_>>() {
                let mut out = Vec::new();
                self.nodes
                    .get_mut(&node)
                    .unwrap()
                    .expire(self.now, &mut out);
                self.take(node, out);
            }
        }
        self.now = end;
    }

    fn apply(&mut self, command: &Command) {
        if let Err(refusal) = self.catalog.apply(command) {
            return writeln!(self.told, "  the manager refuses: {}", refusal.reason).unwrap();
        }
        let range = self.catalog.range(V).copied();
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            let sharing = self.catalog.volume(V).unwrap().sharing;
            let here = match (self.catalog.attached_at(V, node), sharing) {
                (None, _) => Here::NotAttached,
                (Some(_), Sharing::Shared) => Here::Shared,
                (Some(_), Sharing::Exclusive) => Here::Attached,
            };
            if let Some(range) = range {
                self.tell(node, Input::Owned { volume: V, range });
            }
            self.tell(node, Input::Wanted { volume: V, here });
        }
    }

    fn tell(&mut self, node: NodeId, input: Input) {
        let mut out = Vec::new();
        self.nodes
            .get_mut(&node)
            .unwrap()
            .step(self.now, input, &mut out);
        self.take(node, out);
    }

    fn say(&mut self, node: NodeId, what: impl std::fmt::Display) {
        let ms = self.now.0 / 1_000_000;
        writeln!(self.told, "  {ms:>4} ms  node {node}: {what}").unwrap();
    }

    fn take(&mut self, node: NodeId, outputs: Vec<Output>) {
        if self.dead.contains(&node) {
            return;
        }
        for output in outputs {
            match output {
                Output::Take {
                    volume,
                    lease,
                    after,
                } => {
                    let owner = self.catalog.range(V).and_then(|range| range.owner);
                    let why = match owner.filter(|owner| owner.node != node) {
                        None => TakeWhy::Free,
                        Some(owner) if self.dead.contains(&owner.node) => {
                            TakeWhy::LeaseEnded { lease: owner.lease }
                        }
                        Some(_) => continue, // its lease may be live
                    };
                    self.say(node, "takes the range");
                    self.apply(&Command::TakeRange {
                        volume,
                        node,
                        lease,
                        after,
                        why,
                    });
                }
                Output::Give {
                    volume,
                    epoch,
                    left,
                } => {
                    self.say(node, format!("gives the range up, {left:?}"));
                    let why = match left {
                        Left::Settled => GiveWhy::Drained,
                        Left::Unsettled => GiveWhy::Undrained,
                    };
                    self.apply(&Command::GiveRange {
                        volume,
                        node,
                        epoch,
                        why,
                    });
                }
                Output::Hand {
                    volume,
                    epoch,
                    to,
                    left,
                } => {
                    self.say(
                        node,
                        format!("hands the range to node {}, {left:?}", to.node),
                    );
                    self.apply(&Command::HandRange {
                        volume,
                        node,
                        epoch,
                        to,
                        left,
                    });
                }
                Output::Want {
                    volume,
                    owner,
                    epoch,
                    by,
                    missed,
                } => {
                    let text = format!("asks node {owner} for its turn, having missed {missed}");
                    self.say(node, text);
                    let input = Input::WantedBy {
                        volume,
                        epoch,
                        by,
                        missed,
                    };
                    if !self.dead.contains(&owner) {
                        self.tell(owner, input);
                    }
                }
                Output::Open { epoch, .. } => {
                    self.say(node, format!("serves, under epoch {}", epoch.host));
                }
                Output::Drain { .. } => self.say(node, "drains"),
                Output::Resume { .. } => self.say(node, "goes on"),
                Output::Close { .. } => self.say(node, "serves no more"),
                Output::Suspend { .. } => self.say(node, "serves no more; requests wait"),
            }
        }
    }
}

#[test]
fn the_stories_are_told_as_they_were() {
    stories::play("turns", site, Site::step);
}

/// Whoever asks again at once, all the time.
#[test]
fn nobody_waits_for_more_turns_than_there_are_others() {
    let mut site = site();
    site.step("share");
    for node in 1..=3 {
        site.step(&format!("attach {node}"));
    }
    let mut served: Vec<u32> = Vec::new();
    for _ in 0..30 {
        for node in 1..=3 {
            let is_owner = |owner: Owner| owner.node == NodeId(node);
            let range = site.catalog.range(V);
            if !range.and_then(|range| range.owner).is_some_and(is_owner) {
                site.step(&format!("request {node}"));
            }
        }
        site.step("wait 60 ms");
        let owner = site.catalog.range(V).unwrap().owner.unwrap().node.0;
        served.push(owner);
        site.step(&format!("drained {owner}"));
    }
    for window in served.windows(3) {
        let different: BTreeSet<u32> = window.iter().copied().collect();
        assert_eq!(different.len(), 3, "{served:?}");
    }
}

#[test]
fn a_turn_that_was_not_heard_of_ends_what_is_in_flight_before_the_next_one_opens() {
    for (next, is_unbroken) in [(2, true), (3, false)] {
        let mut turns = Turns::new(NodeId(1));
        let mut out = Vec::new();
        let lease = |count| LeaseNumber {
            term: Term(1),
            count,
        };
        let owned = |host, count| Input::Owned {
            volume: VolumeId(1),
            range: Ownership {
                epoch: Epoch {
                    host,
                    ..Epoch::default()
                },
                owner: Some(Owner {
                    node: NodeId(1),
                    lease: lease(count),
                }),
                left: Left::Unsettled,
            },
        };
        let wanted = Input::Wanted {
            volume: VolumeId(1),
            here: Here::Attached,
        };
        for input in [Input::Leased(lease(1)), wanted, owned(1, 1)] {
            turns.step(Time(0), input, &mut out);
        }
        assert!(matches!(out.last(), Some(Output::Open { .. })), "{out:?}");
        turns.step(Time(1), Input::Unleased, &mut out);
        turns.step(Time(2), Input::Leased(lease(2)), &mut out);
        out.clear();
        turns.step(Time(3), owned(next, 2), &mut out);
        let closes = out.contains(&Output::Close {
            volume: VolumeId(1),
        });
        assert_eq!(closes, !is_unbroken, "{out:?}");
        assert!(matches!(out.last(), Some(Output::Open { .. })), "{out:?}");
    }
}

#[test]
fn what_waits_at_a_node_from_which_a_shared_volume_is_detached_is_told_also_where_it_is_to_freeze_a_layer()
 {
    for after in [Here::NotAttached, Here::ToFreeze] {
        let mut turns = Turns::new(NodeId(1));
        let mut out = Vec::new();
        let volume = VolumeId(1);
        let wanted = |here| Input::Wanted { volume, here };
        turns.step(Time(0), wanted(Here::Shared), &mut out);
        turns.step(Time(1), Input::Asked { volume }, &mut out);
        out.clear();
        turns.step(Time(2), wanted(after), &mut out);
        assert_eq!(out.first(), Some(&Output::Close { volume }), "{after:?}");
    }
}
