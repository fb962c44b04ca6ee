//! What pilots say to one another, as bytes.
//!
//! | service | byte 0 | byte 1 | from 2 on | answer |
//! |---|---|---|---|---|
//! | `Lease` | version (1) | 1 | an [`Ask`] as JSON | the same head, and [`Answered`] as JSON |
//! | `Report` | version (1) | 2 | a list of [`Report`]s as JSON | none: it is told |
//! | `Node` | version (1) | 3 | a [`Want`] as JSON | none: it is told |
//!
//! JSON, as all that the control plane says: an ask has some 200 bytes and is read in a microsecond, which is little beside what the connection costs that
//! carries it. What is malformed, of another version, too long, or said in another node's name is refused with what is wrong with it. Version 1 was the
//! first; a reader leaves fields alone that it does not know.

use crate::base::{Epoch, NodeId, VolumeId};
use crate::protocol::catalog::Owner;
use crate::protocol::membership::{Answer, Ask, Incarnation, Term};
use crate::protocol::report::Report;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const VERSION: u8 = 1;
const ASK: u8 = 1;
const REPORTS: u8 = 2;
const WANT: u8 = 3;

/// The longest message, in bytes.
const BYTES_MAX: usize = 64 << 10;
/// Reports in one message. The longest has under 200 bytes, so as many fit.
pub(super) const REPORTS_MAX: usize = 256;
/// No clock has run for so long.
const ELAPSED_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

/// What a member answers to an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answered {
    pub term: Term,
    pub answer: Answer,
}

/// A node waits for its turn at a shared volume, and tells its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Want {
    pub volume: VolumeId,
    /// Of the turn that it waits for.
    pub epoch: Epoch,
    pub by: Owner,
    pub missed: u32,
}

fn message<T: Serialize>(kind: u8, body: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION, kind];
    serde_json::to_writer(&mut bytes, body).expect("plain structs are JSON");
    bytes
}

pub(super) fn ask(ask: &Ask) -> Vec<u8> {
    message(ASK, ask)
}

pub(super) fn answered(answered: &Answered) -> Vec<u8> {
    message(ASK, answered)
}

/// At most [`REPORTS_MAX`].
pub(super) fn reports(reports: &[Report]) -> Vec<u8> {
    debug_assert!(reports.len() <= REPORTS_MAX);
    message(REPORTS, &reports)
}

pub(super) fn want(want: &Want) -> Vec<u8> {
    message(WANT, want)
}

fn read<T: DeserializeOwned>(bytes: &[u8], kind: u8, what: &str) -> Result<T, String> {
    if bytes.len() > BYTES_MAX {
        let len = bytes.len();
        return Err(format!("{what} of {len} bytes is longer than {BYTES_MAX}"));
    }
    let body = match bytes {
        [VERSION, of, body @ ..] if *of == kind => body,
        [VERSION, of, ..] => return Err(format!("{what} has the kind {kind}, and not {of}")),
        [version, _, ..] => {
            return Err(format!(
                "{what} has version {version}, and this build speaks {VERSION}"
            ));
        }
        _ => return Err(format!("{what} of {} bytes is cut off", bytes.len())),
    };
    serde_json::from_slice(body).map_err(|error| format!("{what} cannot be read: {error}"))
}

/// Nobody speaks for another node.
fn own(from: NodeId, named: NodeId, what: &str) -> Result<(), String> {
    match from == named {
        true => Ok(()),
        false => Err(format!("{what} of node {named} comes from node {from}")),
    }
}

/// What `from` asks for.
pub(super) fn read_ask(from: NodeId, bytes: &[u8]) -> Result<Ask, String> {
    const WHAT: &str = "an ask for a lease";
    let ask: Ask = read(bytes, ASK, WHAT)?;
    own(from, ask.node, WHAT)?;
    if ask.incarnation == Incarnation(0) || ask.request == 0 {
        return Err(format!(
            "{WHAT} counts starts and requests from 1, and not from 0"
        ));
    }
    let took = ask
        .answered
        .map_or(Duration::ZERO, |answered| answered.took);
    if ask.elapsed.max(took) > ELAPSED_MAX {
        return Err(format!("{WHAT} says that its clock ran for over a century"));
    }
    Ok(ask)
}

pub(super) fn read_answered(bytes: &[u8]) -> Result<Answered, String> {
    read(bytes, ASK, "an answer to an ask for a lease")
}

pub(super) fn read_reports(bytes: &[u8]) -> Result<Vec<Report>, String> {
    const WHAT: &str = "a list of reports";
    let reports: Vec<Report> = read(bytes, REPORTS, WHAT)?;
    match reports.len() {
        0..=REPORTS_MAX => Ok(reports),
        count => Err(format!("{WHAT} has {count}, and at most {REPORTS_MAX}")),
    }
}

/// For whom `from` wants a turn: itself.
pub(super) fn read_want(from: NodeId, bytes: &[u8]) -> Result<Want, String> {
    const WHAT: &str = "a wish for a turn";
    let want: Want = read(bytes, WANT, WHAT)?;
    own(from, want.by.node, WHAT)?;
    Ok(want)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DiskId, LayerId, PgId, Prng};
    use crate::protocol::catalog::Left;
    use crate::protocol::membership as lease;
    use crate::protocol::membership::LeaseNumber;
    use crate::protocol::scrub::compare::Wrong;

    const ME: NodeId = NodeId(3);
    const NUMBER: LeaseNumber = LeaseNumber {
        term: Term(7),
        count: 9,
    };
    const EPOCH: Epoch = Epoch {
        generation: 0,
        site: 1,
        host: 5,
    };

    fn an_ask() -> Ask {
        Ask {
            node: ME,
            incarnation: Incarnation(4),
            request: 12,
            want: lease::Want::Lease,
            standing: lease::Standing::Holds(NUMBER),
            elapsed: Duration::from_nanos(1_500_000_001),
            answered: Some(lease::Answered {
                request: 11,
                term: Term(7),
                took: Duration::from_micros(300),
            }),
        }
    }

    fn a_want() -> Want {
        Want {
            volume: VolumeId(2),
            epoch: EPOCH,
            by: Owner {
                node: ME,
                lease: NUMBER,
            },
            missed: 6,
        }
    }

    /// One of each kind.
    fn all_reports() -> Vec<Report> {
        let (volume, epoch, left) = (VolumeId(1), EPOCH, Left::Settled);
        let (pg, disk, version, session) = (PgId(1), DiskId(2), 3, 4);
        vec![
            Report::Accused { pg, disk, version },
            Report::DiskOpened {
                disk,
                before: Incarnation(1),
                now: Incarnation(2),
                start: Incarnation(3),
            },
            Report::DiskFailed { disk },
            Report::Wrong {
                pg,
                disk,
                version,
                why: Wrong::LostWrite,
            },
            Report::Filled { pg, disk, session },
            Report::SessionLost { pg, disk, session },
            Report::Take {
                volume,
                lease: NUMBER,
                after: Some(EPOCH),
            },
            Report::Give {
                volume,
                epoch,
                left,
            },
            Report::Frozen {
                volume,
                layer: LayerId(8),
                epoch,
            },
            Report::Hand {
                volume,
                epoch,
                to: a_want().by,
                left,
            },
        ]
    }

    fn text(bytes: &[u8]) -> String {
        format!("{} {} {}", bytes[0], bytes[1], {
            String::from_utf8(bytes[2..].to_vec()).unwrap()
        })
    }

    #[test]
    fn the_bytes_are_those_that_other_builds_read() {
        assert_eq!(
            text(&ask(&an_ask())),
            r#"1 1 {"node":3,"incarnation":4,"request":12,"want":"lease","standing":{"holds":{"term":7,"count":9}},"elapsed":{"secs":1,"nanos":500000001},"answered":{"request":11,"term":7,"took":{"secs":0,"nanos":300000}}}"#
        );
        let granted = Answer::Granted {
            lease: NUMBER,
            length: Duration::from_millis(400),
        };
        let of = |answer| {
            let term = Term(7);
            text(&answered(&Answered { term, answer }))
        };
        assert_eq!(
            of(granted),
            r#"1 1 {"term":7,"answer":{"granted":{"lease":{"term":7,"count":9},"length":{"secs":0,"nanos":400000000}}}}"#
        );
        assert_eq!(
            of(Answer::NotLeader { hint: Some(ME) }),
            r#"1 1 {"term":7,"answer":{"not_leader":{"hint":3}}}"#
        );
        assert_eq!(
            of(Answer::Refused {
                reason: lease::Refusal::ClockOutOfBounds
            }),
            r#"1 1 {"term":7,"answer":{"refused":{"reason":"clock_out_of_bounds"}}}"#
        );
        assert_eq!(
            of(Answer::Released),
            r#"1 1 {"term":7,"answer":"released"}"#
        );
        assert_eq!(
            text(&want(&a_want())),
            r#"1 3 {"volume":2,"epoch":{"generation":0,"site":1,"host":5},"by":{"node":3,"lease":{"term":7,"count":9}},"missed":6}"#
        );
        let lines: Vec<String> = all_reports()
            .iter()
            .map(|report| text(&reports(std::slice::from_ref(report))))
            .collect();
        assert_eq!(
            lines,
            [
                r#"1 2 [{"accused":{"pg":1,"disk":2,"version":3}}]"#,
                r#"1 2 [{"disk_opened":{"disk":2,"before":1,"now":2,"start":3}}]"#,
                r#"1 2 [{"disk_failed":{"disk":2}}]"#,
                r#"1 2 [{"wrong":{"pg":1,"disk":2,"version":3,"why":"lost_write"}}]"#,
                r#"1 2 [{"filled":{"pg":1,"disk":2,"session":4}}]"#,
                r#"1 2 [{"session_lost":{"pg":1,"disk":2,"session":4}}]"#,
                r#"1 2 [{"take":{"volume":1,"lease":{"term":7,"count":9},"after":{"generation":0,"site":1,"host":5}}}]"#,
                r#"1 2 [{"give":{"volume":1,"epoch":{"generation":0,"site":1,"host":5},"left":"settled"}}]"#,
                r#"1 2 [{"frozen":{"volume":1,"layer":8,"epoch":{"generation":0,"site":1,"host":5}}}]"#,
                r#"1 2 [{"hand":{"volume":1,"epoch":{"generation":0,"site":1,"host":5},"to":{"node":3,"lease":{"term":7,"count":9}},"left":"settled"}}]"#,
            ]
        );
    }

    #[test]
    fn what_is_said_is_heard() {
        assert_eq!(read_ask(ME, &ask(&an_ask())), Ok(an_ask()));
        assert_eq!(read_want(ME, &want(&a_want())), Ok(a_want()));
        assert_eq!(read_reports(&reports(&all_reports())), Ok(all_reports()));
        let full = vec![all_reports()[9].clone(); REPORTS_MAX];
        let bytes = reports(&full);
        assert!(bytes.len() <= BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(read_reports(&bytes), Ok(full));
    }

    #[test]
    fn what_is_wrong_is_refused_and_named() {
        let other = NodeId(2);
        let bytes = ask(&an_ask());
        let says = |result: Result<Ask, String>, words: &str| {
            let error = result.unwrap_err();
            assert!(error.contains(words), "{words:?} is not in: {error}");
        };
        says(read_ask(other, &bytes), "of node 3 comes from node 2");
        says(read_ask(ME, &[]), "0 bytes is cut off");
        says(read_ask(ME, &bytes[..1]), "1 bytes is cut off");
        says(read_ask(ME, &bytes[..20]), "cannot be read");
        says(read_ask(ME, &[&[2], &bytes[1..]].concat()), "version 2");
        says(read_ask(ME, &reports(&[])), "kind 1, and not 2");
        says(read_ask(ME, &vec![1; BYTES_MAX + 1]), "is longer than");
        let request = 0;
        says(
            read_ask(
                ME,
                &ask(&Ask {
                    request,
                    ..an_ask()
                }),
            ),
            "from 1",
        );
        let elapsed = Duration::MAX;
        says(
            read_ask(
                ME,
                &ask(&Ask {
                    elapsed,
                    ..an_ask()
                }),
            ),
            "century",
        );
        let error = read_want(other, &want(&a_want())).unwrap_err();
        assert!(error.contains("of node 3 comes from node 2"), "{error}");
        let many = vec![Report::DiskFailed { disk: DiskId(1) }; REPORTS_MAX + 1];
        let error = read_reports(&message(REPORTS, &many)).unwrap_err();
        assert!(error.contains("has 257, and at most 256"), "{error}");
    }

    #[test]
    fn bytes_that_were_changed_are_read_or_refused_and_never_panic() {
        let mut prng = Prng::new(14);
        let good = [
            ask(&an_ask()),
            want(&a_want()),
            reports(&all_reports()),
            answered(&Answered {
                term: Term(1),
                answer: Answer::Released,
            }),
        ];
        for round in 0..20_000 {
            let mut bytes = good[round % good.len()].clone();
            for _ in 0..=prng.below(3) {
                let at = prng.below(bytes.len() as u64) as usize;
                match prng.below(3) {
                    0 => bytes[at] = prng.below(256) as u8,
                    1 => bytes[at] ^= 1 << prng.below(8),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let _ = read_ask(ME, &bytes);
            let _ = read_want(ME, &bytes);
            let _ = read_reports(&bytes);
            let _ = read_answered(&bytes);
        }
    }
}
