//! The first bytes of a connection, sent by both sides at once: who speaks, and which versions.
//!
//! Its form never changes, so that sides of any two versions understand at least why they do not understand one another.

use super::Version;
use super::field::{Malformed, malformed};
use crate::base::bytes::{Put, Take};
use crate::base::{NodeId, crc};
use std::ops::RangeInclusive;

const MAGIC: [u8; 8] = *b"SARSENHI";
/// Bytes of a hello.
pub const HELLO_LEN: usize = 64;
/// The versions that this build speaks: its own and the one before.
pub const VERSION_MIN: u16 = Version::ALL[0].number();
/// See [`VERSION_MIN`].
pub const VERSION_MAX: u16 = Version::PRESENT.number();

/// Who speaks, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub versions: RangeInclusive<u16>,
    pub node: NodeId,
    pub cluster: [u8; 16],
    pub incarnation: u64,
}

impl Hello {
    /// Appends the hello.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut put = Put(out);
        put.bytes(&MAGIC);
        put.u16(*self.versions.start());
        put.u16(*self.versions.end());
        put.u32(self.node.0);
        put.bytes(&self.cluster);
        put.u64(self.incarnation);
        put.pad_to(start, HELLO_LEN - 4);
        let crc = crc::of(&out[start..]);
        Put(out).u32(crc);
    }

    /// Reads a hello. Of another magic nothing else is looked at: that is another protocol's client.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Hello, Malformed> {
        if bytes[..8] != MAGIC {
            let found = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
            return malformed("magic", found);
        }
        let mut take = Take::new(&bytes[8..]);
        let fields = || {
            let (lowest, highest) = (take.u16()?, take.u16()?);
            let (node, cluster, incarnation) = (take.u32()?, take.key()?, take.u64()?);
            Some((
                lowest,
                highest,
                node,
                cluster,
                incarnation,
                take.bytes(20)?,
                take.u32()?,
            ))
        };
        let (lowest, highest, node, cluster, incarnation, zeroes, crc) =
            { fields }().unwrap_or_default();
        if crc != crc::of(&bytes[..HELLO_LEN - 4]) {
            return malformed("crc", crc);
        }
        if lowest == 0 || lowest > highest {
            return malformed("versions", lowest);
        }
        if zeroes.iter().any(|byte| *byte != 0) {
            return malformed("zero", 1u8);
        }
        Ok(Hello {
            versions: lowest..=highest,
            node: NodeId(node),
            cluster,
            incarnation,
        })
    }
}
