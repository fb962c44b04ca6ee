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
    assert_eq!(agree(&(1..=1), &(1..=1)), Some(1));
    assert_eq!(agree(&(2..=3), &(1..=2)), Some(2));
    assert_eq!(agree(&(1..=2), &(2..=3)), Some(2));
    assert_eq!(agree(&(3..=4), &(1..=2)), None);
    assert_eq!(agree(&(1..=2), &(3..=4)), None);
}
