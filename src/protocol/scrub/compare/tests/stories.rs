//! The golden stories in `testscripts/`, of disk 1, which has a replica of PG 1 beside others:
//!
//! ```text
//!   > members 2 1 2 3                 version 2: these disks are in sync; `joining 4` and `out 5` may follow, `since 0` after them
//!   > listed #1 7 8 | listed #1 7 more | listed #1 failed
//!   > looked #2 7@5 aa bb             chunk's stamp 5, its first blocks: data by their checksums, `z` zeroes, `-` absent;
//!                                     `none`: no entry; `failed`; last words `moving`, `bottom`, `version 3`, `forgotten 2`
//!   > answer 2 #3 7@5 aa bb           disk 2 has that; `none`, `not-now`; last words as above, and `life 7`, `pg 9`: it comes back with these
//!   > asked 2 #9 7                    disk 2 asks of chunk 7
//!   > torn | torn version 4 | dropped | unanswered 2 | after 1000 | state
//! ```

use crate::base::{ChunkId, ChunkNo, DiskId, FamilyId, LayerId, PgId, Stamp, Time};
use crate::protocol::replication::fill::Content;
use crate::protocol::replication::{Configuration, Member, Role};
use crate::protocol::scrub::RulesOff;
use crate::protocol::scrub::compare::*;
use crate::protocol::stories;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

const PG: PgId = PgId(1);

/// The number of this start of the node.
const LIFE: u64 = 6;

struct Site {
    comparer: Comparer,
    now: Time,
    /// What was asked, by the number of the question: with that an answer comes back.
    asked: BTreeMap<u64, CompareHeader>,
}

#[test]
fn the_stories_come_out_as_they_are_told() {
    let rests = Rests {
        between: Duration::from_secs(100),
        after_change: Duration::from_millis(10),
    };
    let site = || Site {
        comparer: Comparer::new(DiskId(1), LIFE, rests, RulesOff::NONE),
        now: Time(0),
        asked: BTreeMap::new(),
    };
    stories::play("scrub/compare", site, step);
}

fn chunk(number: &str) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number.parse().unwrap()),
    }
}

fn members(words: &[&str]) -> Configuration {
    let version = words[0].parse().unwrap();
    let since = match words.iter().position(|word| *word == "since") {
        Some(at) => words[at + 1].parse().unwrap(),
        None => 1,
    };
    let mut role = Role::InSync;
    let mut all = Vec::new();
    for word in words[1..].iter().take_while(|word| **word != "since") {
        match *word {
            "joining" => {
                role = Role::Joining {
                    session: version,
                    since,
                }
            }
            "out" => role = Role::Out { since },
            disk => all.push(Member {
                disk: DiskId(disk.parse().unwrap()),
                role,
            }),
        }
    }
    Configuration::recorded(version, all).unwrap()
}

/// What stands behind a word, as a number.
fn behind(words: &[&str], word: &str) -> u32 {
    let at = words.iter().position(|of| *of == word);
    at.map_or(0, |at| words[at + 1].parse().unwrap())
}

/// `7@5 aa z -`: a stamp and blocks.
fn content(words: &[&str]) -> Option<Content> {
    let (_, stamp) = words[0].split_once('@')?;
    let mut of = Content {
        stamp: Stamp {
            version: 2,
            sequence: stamp.parse().unwrap(),
            ..Stamp::default()
        },
        data: 0,
        zeroes: 0,
        crcs: [0; 16],
    };
    let behind = ["moving", "bottom", "version", "forgotten", "life", "pg"];
    let is_block = |word: &&&str| !behind.contains(*word);
    for (at, word) in words[1..].iter().take_while(is_block).enumerate() {
        match *word {
            "-" => {}
            "z" => of.zeroes |= 1 << at,
            crc => {
                of.data |= 1 << at;
                of.crcs[at] = u32::from_str_radix(crc, 16).unwrap();
            }
        }
    }
    Some(of)
}

fn motion(words: &[&str]) -> Motion {
    match words.contains(&"moving") {
        true => Motion::Moving,
        false => Motion::Quiet,
    }
}

/// `bottom`: nothing lies below the layer.
fn below(words: &[&str]) -> Below {
    match words.contains(&"bottom") {
        true => Below::Nothing,
        false => Below::Layers,
    }
}

/// What comes back with an answer: what was sent, or what the story says instead.
fn came_back(site: &Site, id: u64, words: &[&str]) -> CompareHeader {
    let mut header = site.asked[&id];
    let instead = |word, was: u32| match behind(words, word) {
        0 => was,
        other => other,
    };
    header.version = instead("version", header.version);
    header.pg = PgId(instead("pg", header.pg.0));
    header.life = match behind(words, "life") {
        0 => header.life,
        other => u64::from(other),
    };
    header
}

fn step(site: &mut Site, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let disk = |at: usize| DiskId(words[at].parse().unwrap());
    let id = |at: usize| words[at][1..].parse::<u64>().unwrap();
    let mut out = Vec::new();
    let input = match words[0] {
        "members" => Input::Configured {
            pg: PG,
            of: members(&words[1..]),
        },
        "listed" => Input::Listed {
            op: id(1),
            found: (words.get(2) != Some(&"failed")).then(|| {
                let chunks = words[2..].iter().filter(|word| **word != "more");
                (
                    chunks.map(|word| chunk(word)).collect(),
                    words.contains(&"more"),
                )
            }),
        },
        "looked" => Input::Looked {
            op: id(1),
            found: (words[2] != "failed").then(|| Found {
                content: content(&words[2..]),
                below: below(&words),
                motion: motion(&words),
                version: behind(&words, "version"),
                forgotten: behind(&words, "forgotten"),
            }),
        },
        "answer" => Input::Answered {
            from: disk(1),
            header: came_back(site, id(2), &words),
            answer: match (words[3], content(&words[3..])) {
                ("not-now", _) => CompareAnswer::NotNow,
                (_, Some(content)) => CompareAnswer::Held {
                    summary: Summary::of(&content, below(&words)),
                    motion: motion(&words),
                },
                (_, None) => CompareAnswer::Nothing {
                    below: below(&words),
                    forgotten: behind(&words, "forgotten"),
                },
            },
        },
        "asked" => Input::Asked {
            header: CompareHeader {
                pg: PG,
                version: match behind(&words, "version") {
                    0 => 2,
                    version => version,
                },
                asker: disk(1),
                life: 1,
                id: id(2),
            },
            at: chunk(words[3]),
        },
        "torn" => Input::Torn {
            pg: PG,
            version: behind(&words, "version"),
        },
        "dropped" => Input::Dropped { pg: PG },
        "unanswered" => Input::Unanswered { from: disk(1) },
        "after" => {
            site.now = site.now + Duration::from_millis(words[1].parse().unwrap());
            site.comparer.expire(site.now, &mut out);
            site.comparer.check();
            return site.tell(&out);
        }
        "state" => return state(&site.comparer),
        other => panic!("no such step: {other}"),
    };
    site.comparer.step(site.now, input, &mut out);
    site.comparer.check();
    site.tell(&out)
}

impl Site {
    fn tell(&mut self, out: &[Output]) -> String {
        for output in out {
            if let Output::Ask { header, .. } = output {
                assert_eq!(header.life, LIFE);
                self.asked.insert(header.id, *header);
            }
        }
        tell(out)
    }
}

fn tell(out: &[Output]) -> String {
    let mut said = String::new();
    for output in out {
        match output {
            Output::List { op, after, .. } => match after {
                Some(after) => writeln!(said, "store: list #{op} behind {}", after.chunk.0),
                None => writeln!(said, "store: list #{op}"),
            },
            Output::Look { op, at, .. } => {
                writeln!(said, "store: look #{op} chunk {}", at.chunk.0)
            }
            Output::Ask { to, header, at } => {
                let CompareHeader { id, version, .. } = header;
                writeln!(said, "asks {to} #{id} v{version} for chunk {}", at.chunk.0)
            }
            Output::Answer { header, answer } => {
                let (to, id) = (header.asker, header.id);
                let told = match answer {
                    CompareAnswer::Held { summary, motion } => format!(
                        "@{} data {:b} zeroes {:b} {motion:?}",
                        summary.stamp.sequence, summary.data, summary.zeroes
                    ),
                    CompareAnswer::Nothing { forgotten, .. } => {
                        format!("none, forgotten {forgotten}")
                    }
                    CompareAnswer::NotNow => "not now".to_owned(),
                };
                writeln!(said, "tells {to} #{id}: {told}")
            }
            Output::Report {
                disk, version, why, ..
            } => writeln!(said, "to the manager: disk {disk} v{version} {why:?}"),
            Output::Forget { .. } => writeln!(said, "store: forget the replica"),
        }
        .unwrap();
    }
    said
}

fn state(comparer: &Comparer) -> String {
    let or_nothing = |all: Vec<String>| match all.is_empty() {
        true => "nothing".to_owned(),
        false => all.join(", "),
    };
    let wrong = comparer.wrong();
    let wrong = wrong.map(|(_, disk, why)| format!("disk {disk} {why:?}"));
    let unknown = comparer.unknown();
    let unknown = unknown.map(|(_, at)| format!("chunk {}", at.chunk.0));
    let Counts {
        walks,
        same,
        wrong: found,
        unknown: nobody,
        skipped,
    } = comparer.counts();
    format!(
        "wrong: {}\nunknown: {}\nwalks {walks}, same {same}, wrong {found}, unknown {nobody}, skipped {skipped}\n",
        or_nothing(wrong.collect()),
        or_nothing(unknown.collect())
    )
}
