//! What has a bound, at its bound: tables that are damaged, replicas that are named, pages that are too long.

use crate::base::{ChunkId, ChunkNo, DiskId, FamilyId, LayerId, PgId, Stamp, Time};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::{Configuration, Member, Role};
use crate::protocol::scrub::RulesOff;
use crate::protocol::scrub::compare::*;
use std::collections::BTreeSet;
use std::time::Duration;

const RESTS: Rests = Rests {
    between: Duration::from_secs(100),
    after_change: Duration::from_millis(10),
};
const OWN: DiskId = DiskId(1);

struct Site {
    comparer: Comparer,
    now: Time,
}

impl Site {
    fn new() -> Site {
        Site {
            comparer: Comparer::new(OWN, 1, RESTS, RulesOff::NONE),
            now: Time(0),
        }
    }

    fn step(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.comparer.step(self.now, input, &mut out);
        self.comparer.check();
        out
    }

    fn after(&mut self, time: Duration) -> Vec<Output> {
        let mut out = Vec::new();
        self.now = self.now + time;
        self.comparer.expire(self.now, &mut out);
        self.comparer.check();
        out
    }

    fn configure(&mut self, pg: u32, version: u32, disks: &[u32]) -> Vec<Output> {
        let member = |disk: &u32| Member {
            disk: DiskId(*disk),
            role: Role::InSync,
        };
        let members = disks.iter().map(member).collect();
        let of = Configuration::recorded(version, members).unwrap();
        let pg = PgId(pg);
        self.step(Input::Configured { pg, of })
    }

    /// Looks and answers for one chunk of the PG that is walked now, which was listed: the disk that is asked has other content at that stamp.
    fn differ(&mut self, out: Vec<Output>, stamp: u64) -> Vec<Output> {
        let (op, at) = look(&out);
        let out = self.look_is(op, 5);
        let asked = out.iter().find_map(|output| match output {
            Output::Ask { to, header, .. } => Some((*to, *header)),
            _ => None,
        });
        let (from, header) = asked.unwrap_or_else(|| panic!("{at:?} is asked for: {out:?}"));
        let answer = CompareAnswer::Held {
            summary: Summary::of(&content(stamp, 0xbb), Below::Nothing),
            motion: Motion::Quiet,
        };
        self.step(Input::Answered {
            from,
            header,
            answer,
        })
    }

    fn look_is(&mut self, op: u64, stamp: u64) -> Vec<Output> {
        let found = Some(Found {
            content: Some(content(stamp, 0xaa)),
            below: Below::Nothing,
            motion: Motion::Quiet,
            version: 0,
            forgotten: 0,
        });
        self.step(Input::Looked { op, found })
    }

    fn listed(&mut self, op: u64, chunks: impl Iterator<Item = u64>, more: bool) -> Vec<Output> {
        let found = Some((chunks.map(chunk).collect(), more));
        self.step(Input::Listed { op, found })
    }
}

fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

fn content(stamp: u64, crc: u32) -> Content {
    let mut crcs = [0; 16];
    crcs[0] = crc;
    Content {
        stamp: Stamp {
            version: 2,
            sequence: stamp,
            ..Stamp::default()
        },
        data: 1,
        zeroes: 0,
        crcs,
    }
}

fn look(out: &[Output]) -> (u64, ChunkId) {
    let look = out.iter().find_map(|output| match output {
        Output::Look { op, at, .. } => Some((*op, *at)),
        _ => None,
    });
    look.unwrap_or_else(|| panic!("it looks: {out:?}"))
}

fn lists(out: &[Output]) -> Vec<(u64, PgId, Option<ChunkId>)> {
    let list = |output: &Output| match output {
        Output::List { op, pg, after } => Some((*op, *pg, *after)),
        _ => None,
    };
    out.iter().filter_map(list).collect()
}

fn reports(out: &[Output]) -> Vec<(PgId, DiskId)> {
    let report = |output: &Output| match output {
        Output::Report { pg, disk, .. } => Some((*pg, *disk)),
        _ => None,
    };
    out.iter().filter_map(report).collect()
}

/// A site that has named as many others as there is room for: each walk found one.
fn full() -> Site {
    let mut site = Site::new();
    let most = WRONG_MAX as u32;
    for pg in 1..=most {
        site.configure(pg, 2, &[1, 2]);
    }
    site.now = site.now + Duration::from_millis(10);
    for _ in 0..most {
        let (op, ..) = lists(&site.after(Duration::ZERO))[0];
        let out = site.listed(op, 7..8, false);
        site.differ(out, 4);
    }
    assert_eq!(site.comparer.wrong().count(), WRONG_MAX);
    site
}

#[test]
fn a_damaged_journal_tears_all_pgs_of_a_disk_and_each_is_told_until_it_is_acted_on() {
    let pgs = 1024;
    let mut site = full();
    for pg in 1..=pgs {
        site.configure(pg, 3, &[1, 2]);
    }
    let mut told = BTreeSet::new();
    for pg in (1..=pgs).map(PgId) {
        told.extend(reports(&site.step(Input::Torn { pg, version: 0 })));
    }
    let all: BTreeSet<(PgId, DiskId)> = (1..=pgs).map(|pg| (PgId(pg), OWN)).collect();
    assert_eq!(told, all);
    let again: BTreeSet<_> = reports(&site.after(Duration::from_secs(1)))
        .into_iter()
        .collect();
    assert_eq!(again, all);
    assert_eq!(site.comparer.wrong().count(), pgs as usize);
    // One of them is emptied, and told no more.
    let out = {
        let roles = [(2, Role::InSync), (1, Role::Out { since: 0 })];
        let members = roles.map(|(disk, role)| Member {
            disk: DiskId(disk),
            role,
        });
        let of = Configuration::recorded(4, members.to_vec()).unwrap();
        let pg = PgId(1000);
        site.step(Input::Configured { pg, of })
    };
    assert!(out.contains(&Output::Forget { pg: PgId(1000) }), "{out:?}");
    let again = reports(&site.after(Duration::from_secs(1)));
    assert_eq!(again.len(), pgs as usize - 1);
}

#[test]
fn who_finds_itself_wrong_and_cannot_be_named_walks_that_pg_later_and_not_at_once() {
    let mut site = full();
    let pg = WRONG_MAX as u32 + 1;
    site.configure(pg, 2, &[1, 2, 3]);
    let out = site.after(Duration::from_millis(10));
    let (op, of, _) = lists(&out)[0];
    assert_eq!(of, PgId(pg));
    let out = site.listed(op, 7..8, false);
    // Both others have other content at the same stamp: this one is outvoted.
    let (op, _) = look(&out);
    let mut out = site.look_is(op, 5);
    for _ in 0..2 {
        let asked = out.iter().find_map(|output| match output {
            Output::Ask { to, header, .. } => Some((*to, *header)),
            _ => None,
        });
        let (from, header) = asked.unwrap();
        let answer = CompareAnswer::Held {
            summary: Summary::of(&content(5, 0xbb), Below::Nothing),
            motion: Motion::Quiet,
        };
        out = site.step(Input::Answered {
            from,
            header,
            answer,
        });
    }
    let (op, _) = look(&out);
    let out = site.look_is(op, 5);
    assert_eq!(site.comparer.wrong().count(), WRONG_MAX);
    assert_eq!(lists(&out), [], "it begins again at once");
    let out = site.after(Duration::ZERO);
    assert_eq!(lists(&out), [], "it begins again at once");
    let out = site.after(RESTS.between);
    assert_eq!(lists(&out).len(), 1, "it walks again in the end");
}

#[test]
fn what_is_too_much_for_a_page_is_listed_again_and_not_left_out() {
    let mut site = Site::new();
    site.configure(1, 2, &[1, 2]);
    let out = site.after(Duration::from_millis(10));
    let (op, ..) = lists(&out)[0];
    let most = PAGE_MAX as u64;
    let mut out = site.listed(op, 0..most + 50, false);
    // Each of the page is gone by the time it is looked at.
    let mut lists_seen = lists(&out);
    let mut seen = BTreeSet::new();
    while lists_seen.is_empty() {
        let looks: Vec<(u64, ChunkId)> = out
            .iter()
            .filter_map(|output| match output {
                Output::Look { op, at, .. } => Some((*op, *at)),
                _ => None,
            })
            .collect();
        out.clear();
        for (op, at) in looks {
            seen.insert(at);
            let found = Found {
                content: None,
                below: Below::Nothing,
                motion: Motion::Quiet,
                version: 0,
                forgotten: 0,
            };
            let found = Some(found);
            out.extend(site.step(Input::Looked { op, found }));
        }
        lists_seen = lists(&out);
        assert!(site.comparer.counts().walks == 0, "the walk is over");
    }
    assert_eq!(lists_seen[0].2, Some(chunk(most - 1)));
    assert!(seen.len() as u64 <= most);
}
