//! The golden stories in `testscripts/`, of disk 1, which has a replica of PG 1 beside others:
//!
//! ```text
//!   > members 2 1 2 3                 version 2: these disks are in sync; `joining 4` and `out 5` may follow
//!   > damaged 7 b5 aa                 block 5 of chunk 7 should have the checksum aa
//!   > answer 2 #1 7 b5 aa             disk 2 has it; `none`: it has nothing of it; `not-now`
//!   > mended #1 ok                    or `failed`;  > looked #1 ok, or `failed`
//!
//!   > asked 2 #9 7 b5 aa              disk 2 asks;  > salvaged #1 7 b5 aa, or `none`, or `failed`
//!   > after 1000                      milliseconds pass
//!   > connected 2 | unanswered 2 | state
//! ```

use crate::base::{
    BlockRun, BufId, BufRef, ChunkId, ChunkNo, DiskId, FamilyId, LayerId, Payload, PgId, Time,
};
use crate::protocol::replication::{Configuration, Member, Role};
use crate::protocol::scrub::*;
use crate::protocol::stories;
use std::fmt::Write;
use std::time::Duration;

const PG: PgId = PgId(1);

struct Site {
    mender: Mender,
    now: Time,
}

#[test]
fn the_stories_come_out_as_they_are_told() {
    let site = || Site {
        mender: Mender::new(DiskId(1), RulesOff::NONE),
        now: Time(0),
    };
    stories::play("scrub", site, step);
}

fn chunk(number: u64) -> ChunkId {
    ChunkId {
        family: FamilyId(1),
        layer: LayerId(1),
        chunk: ChunkNo(number),
    }
}

fn hex(word: &str) -> u32 {
    u32::from_str_radix(word, 16).unwrap()
}

/// `7 b5 aa b6 bb`: blocks of a chunk, each with its checksum.
fn blocks(words: &[&str]) -> MendAsk {
    let mut ask = MendAsk {
        at: chunk(words[0].parse().unwrap()),
        blocks: 0,
        crcs: [0; 16],
    };
    for pair in words[1..].chunks(2) {
        let place: usize = pair[0][1..].parse().unwrap();
        ask.blocks |= 1 << place;
        ask.crcs[place] = hex(pair[1]);
    }
    ask
}

fn show(of: &MendAsk) -> String {
    let mut said = format!("chunk {}", of.at.chunk.0);
    for block in BlockRun::runs_of(of.blocks).flat_map(BlockRun::blocks) {
        write!(said, " b{block} {:x}", of.crcs[block as usize]).unwrap();
    }
    said
}

fn members(words: &[&str]) -> Configuration {
    let mut role = Role::InSync;
    let version = words[0].parse().unwrap();
    let mut all = Vec::new();
    for word in &words[1..] {
        match *word {
            "joining" => {
                role = Role::Joining {
                    session: version,
                    since: 1,
                }
            }
            "out" => role = Role::Out { since: 1 },
            disk => all.push(Member {
                disk: DiskId(disk.parse().unwrap()),
                role,
            }),
        }
    }
    Configuration::recorded(version, all).unwrap()
}

fn step(site: &mut Site, command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let disk = |at: usize| DiskId(words[at].parse().unwrap());
    let id = |at: usize| words[at][1..].parse::<u64>().unwrap();
    let payload = Some(Payload::kept(BufRef {
        id: BufId(1),
        block: 0,
    }));
    let mut out = Vec::new();
    let input = match words[0] {
        "members" => Input::Configured {
            pg: PG,
            of: members(&words[1..]),
        },
        "damaged" => {
            let of = blocks(&words[1..]);
            let block = of.blocks.trailing_zeros();
            Input::Damaged {
                pg: PG,
                at: of.at,
                block,
                crc: of.crcs[block as usize],
            }
        }
        "answer" => {
            let header = MendHeader {
                pg: PG,
                asker: DiskId(1),
                id: id(2),
            };
            let answer = match words[3] {
                "not-now" => MendAnswer::NotNow,
                _ if words[4] == "none" => MendAnswer::Blocks(blocks(&words[3..4])),
                _ => MendAnswer::Blocks(blocks(&words[3..])),
            };
            let payload = payload.filter(|_| words.len() > 5);
            Input::Answered {
                from: disk(1),
                header,
                answer,
                payload,
            }
        }
        "mended" => Input::Mended {
            op: id(1),
            ok: words[2] == "ok",
        },
        "looked" => Input::Looked {
            op: id(1),
            ok: words[2] == "ok",
        },
        "asked" => Input::Asked {
            header: MendHeader {
                pg: PG,
                asker: disk(1),
                id: id(2),
            },
            ask: blocks(&words[3..]),
        },
        "salvaged" => {
            let found = match words[2] {
                "failed" => None,
                _ if words[3] == "none" => Some(blocks(&words[2..3])),
                _ => Some(blocks(&words[2..])),
            };
            let payload = payload.filter(|_| words.len() > 4);
            Input::Salvaged {
                op: id(1),
                found,
                payload,
            }
        }
        "connected" => Input::Connected { to: disk(1) },
        "unanswered" => Input::Unanswered { from: disk(1) },
        "dropped" => Input::Dropped { pg: PG },
        "after" => {
            site.now = site.now + Duration::from_millis(words[1].parse().unwrap());
            site.mender.expire(site.now, &mut out);
            return tell(&out);
        }
        "state" => return state(&site.mender),
        other => panic!("no such step: {other}"),
    };
    site.mender.step(site.now, input, &mut out);
    site.mender.check();
    tell(&out)
}

fn tell(out: &[Output]) -> String {
    let mut said = String::new();
    for output in out {
        match output {
            Output::Ask { to, header, ask } => {
                writeln!(said, "asks {to} #{} for {}", header.id, show(ask))
            }
            Output::Answer { header, answer, .. } => match answer {
                MendAnswer::Blocks(found) if found.blocks == 0 => {
                    writeln!(said, "tells {} #{}: none", header.asker, header.id)
                }
                MendAnswer::Blocks(found) => {
                    let (to, id) = (header.asker, header.id);
                    writeln!(said, "gives {to} #{id} {}", show(found))
                }
                MendAnswer::NotNow => {
                    writeln!(said, "tells {} #{}: not now", header.asker, header.id)
                }
            },
            Output::Mend { op, what, .. } => writeln!(said, "store: mend #{op} {}", show(what)),
            Output::Look { op, at, .. } => {
                writeln!(said, "store: look #{op} chunk {}", at.chunk.0)
            }
            Output::Salvage { op, ask, .. } => {
                writeln!(said, "store: salvage #{op} {}", show(ask))
            }
        }
        .unwrap();
    }
    said
}

fn state(mender: &Mender) -> String {
    let mut said = String::new();
    let masks = |of: Vec<(PgId, ChunkId, u16)>| {
        let all = of.iter().map(|(_, at, blocks)| {
            let blocks: Vec<String> = BlockRun::runs_of(*blocks)
                .flat_map(BlockRun::blocks)
                .map(|block| format!("b{block}"))
                .collect();
            format!("chunk {} {}", at.chunk.0, blocks.join(" "))
        });
        let all: Vec<String> = all.collect();
        match all.is_empty() {
            true => "nothing".to_owned(),
            false => all.join(", "),
        }
    };
    let Counts {
        damaged,
        mended,
        wrong,
        dropped,
    } = mender.counts();
    writeln!(said, "wanted: {}", masks(mender.wanted().collect())).unwrap();
    writeln!(said, "lost: {}", masks(mender.lost().collect())).unwrap();
    writeln!(
        said,
        "damaged {damaged}, mended {mended}, wrong {wrong}, dropped {dropped}"
    )
    .unwrap();
    said
}
