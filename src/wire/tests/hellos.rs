//! The first bytes of a connection.

use crate::base::NodeId;
use crate::wire::*;

pub fn hello() -> Hello {
    Hello {
        versions: VERSION_MIN..=VERSION_MAX,
        node: NodeId(7),
        cluster: *b"a cluster's name",
        incarnation: 12,
    }
}

#[test]
fn a_hello_is_read_as_it_was_written_and_nothing_else_is() {
    let mut bytes = Vec::new();
    hello().encode(&mut bytes);
    let bytes: [u8; HELLO_LEN] = bytes.try_into().unwrap();
    assert_eq!(Hello::decode(&bytes), Ok(hello()));
    for bit in 0..HELLO_LEN * 8 {
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Hello::decode(&flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn two_sides_speak_the_highest_version_that_both_know() {
    assert_eq!(agree(&(1..=1), &(1..=1)), Ok(1));
    assert_eq!(agree(&(2..=3), &(1..=2)), Ok(2));
    assert_eq!(agree(&(1..=2), &(2..=3)), Ok(2));
    for theirs in [1..=1, 1..=2, 2..=3] {
        let number = agree_with(&theirs).unwrap().number();
        assert_eq!(number, *theirs.end().min(&VERSION_MAX));
    }
}

#[test]
fn two_versions_apart_is_refused_with_a_reason_on_both_sides() {
    let (old, new) = (1..=2, 3..=4);
    for (mine, theirs, who) in [
        (&old, &new, "this node is more than one version behind"),
        (&new, &old, "the peer is more than one version behind"),
    ] {
        let apart = agree(mine, theirs).unwrap_err();
        assert_eq!((&apart.mine, &apart.theirs), (mine, theirs));
        assert!(apart.to_string().contains(who), "{apart}");
    }
    assert!(agree_with(&new).is_err());
}

/// Two builds, one version apart each, as they stand in a site that is upgraded twice.
#[test]
fn of_three_builds_in_a_row_neighbours_understand_one_another() {
    let builds = [1..=1, 1..=2, 2..=3, 3..=4];
    for (n, one) in builds.iter().enumerate() {
        for (m, other) in builds.iter().enumerate() {
            let (here, there) = (agree(one, other), agree(other, one));
            assert_eq!(here.is_ok(), n.abs_diff(m) <= 1, "{one:?} and {other:?}");
            assert_eq!(here.ok(), there.ok(), "both sides agree on the same");
        }
    }
}
