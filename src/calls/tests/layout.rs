//! The bytes of version 1, as they were when it was made. A line here is never changed: a later build has to understand an earlier one.

use super::*;
use crate::calls::frame::{Head, Kind, Why};
use crate::calls::hello::{Cover, Hello, NOD, NotWelcome, Preamble, Purpose, Way, Welcome};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn version_1_is_spelled_as_it_was() {
    let preamble = |cover, way| hex(&Preamble { cover, way }.encode());
    let hello = |purpose, from, to| {
        let (versions, cluster) = (1..=1, CLUSTER);
        let hello = Hello {
            versions,
            cluster,
            from,
            to,
            purpose,
        };
        hex(&hello.encode())
    };
    let welcome = Welcome {
        versions: 1..=1,
        cluster: CLUSTER,
        version: 1,
        node: TWO,
        in_progress_max: 1024,
    };
    let refusal = NotWelcome {
        reason: Reason::Cluster,
        words: "no".into(),
    };
    let head = |kind, body: &[u8]| hex(&Head::of(kind, body).encode());
    let ask = Kind::Ask {
        service: 3,
        number: 0x0102,
        within_ms: 400,
    };
    let (number, why) = (0x0102, Why::Unsupported);
    let found = [
        preamble(Cover::Plain, Way::Calls),
        preamble(Cover::Tls, Way::Link),
        hex(&NOD),
        hello(Purpose::Calls(Class::Urgent), Some(ONE), Some(TWO)),
        hello(Purpose::Link(5), Some(ONE), Some(TWO)),
        hello(Purpose::Join, None, None),
        hex(&welcome.encode()),
        hex(&refusal.encode()),
        head(ask, b"body"),
        head(Kind::Answer { number }, b"body"),
        head(Kind::Refuse { number, why }, b""),
        head(Kind::Tell { service: 3 }, b""),
        head(Kind::Cancel { number }, b""),
        head(Kind::Beat, b""),
        head(Kind::Bye, b""),
    ];
    let frozen: Vec<&str> = include_str!("version_1.txt").lines().collect();
    assert_eq!(found, frozen[..], "{}", found.join("\n"));
}

#[test]
fn services_keep_their_numbers() {
    let numbers = Service::ALL.iter().map(|of| format!("{of} {}", *of as u16));
    let all = "Manager 1, Snapshot 2, Lease 3, Report 4, Catalog 5, Join 6, Trust 7, Node 8, Authority 9, Presence 10";
    assert_eq!(numbers.collect::<Vec<_>>().join(", "), all);
}
