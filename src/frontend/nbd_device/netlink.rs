//! Generic netlink messages: one request with its attributes, and what the kernel answers.
//!
//! Numbers are in the machine's byte order. Every message and every attribute begins on a multiple of four bytes; the
//! length in its header does not count what fills it up.
//!
//! Own code and not a crate: three commands and one reply are used, which is less than the set-up of `neli` or
//! `netlink-packet-generic`, and those bring a socket type and macros of their own besides `io`'s.

use std::fmt;

const ALIGN: usize = 4;
/// `struct nlmsghdr`: length, type, flags, sequence, port.
const HEADER: usize = 16;
/// `struct genlmsghdr`: command, version, two bytes reserved.
const GENERIC_HEADER: usize = 4;
/// `struct nlattr`: length, type.
const ATTRIBUTE_HEADER: usize = 4;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// On an error: what was asked is not repeated behind it.
const NLM_F_CAPPED: u16 = 0x100;
/// On an error: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_F_NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that are its type.
const NLA_TYPE: u16 = 0x3fff;

/// A request that is being put together.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request that is answered at least by an acknowledgement.
    pub fn new(family: u16, command: u8, version: u8, sequence: u32) -> Message {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(0_u32.to_ne_bytes()); // the length, set at the end
        bytes.extend(family.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes()); // to the kernel
        bytes.extend([command, version, 0, 0]);
        Message { bytes }
    }

    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, |bytes| bytes.extend(value.to_ne_bytes()));
    }

    pub fn u64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, |bytes| bytes.extend(value.to_ne_bytes()));
    }

    /// Text, with the zero byte that ends it.
    pub fn text(&mut self, kind: u16, text: &str) {
        self.attribute(kind, |bytes| {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        });
    }

    /// Attributes in an attribute.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Message)) {
        let at = self.bytes.len();
        self.bytes.extend([0; ATTRIBUTE_HEADER]);
        inside(self);
        self.close(at, kind | NLA_F_NESTED);
    }

    pub fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32; // a few hundred bytes
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }

    fn attribute(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend([0; ATTRIBUTE_HEADER]);
        value(&mut self.bytes);
        self.close(at, kind);
    }

    /// Writes the header of the attribute that began at `at`, and fills it up.
    fn close(&mut self, at: usize, kind: u16) {
        let len = (self.bytes.len() - at) as u16; // far below 64 KiB: names and lists of sockets are bounded
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

/// What the kernel says to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is not answered yet: more has to be received.
    Open,
    /// It is carried out; these are the attributes of its reply, where it has one.
    Done(Vec<(u16, Vec<u8>)>),
    Refused(Refusal),
}

/// Why the kernel did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub errno: i32,
    /// What it says to that, where it says something.
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = format_args!("error {}", self.errno);
        match &self.text {
            Some(text) => write!(f, "{text} ({error})"),
            None => error.fmt(f),
        }
    }
}

/// The kernel's bytes are no netlink messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what came over netlink is no netlink message")
    }
}

impl std::error::Error for Malformed {}

/// What all that was received so far says to the request with this sequence. Other sequences are answers to a request
/// that nobody waits for any more.
pub fn answer(mut received: &[u8], sequence: u32) -> Result<Answer, Malformed> {
    let mut attributes = Vec::new();
    while !received.is_empty() {
        let len = u32_at(received, 0).ok_or(Malformed)? as usize;
        let body = received.get(HEADER..len).ok_or(Malformed)?;
        let (kind, flags) = (u16_at(received, 4), u16_at(received, 6));
        let (kind, flags) = (kind.ok_or(Malformed)?, flags.ok_or(Malformed)?);
        let ours = u32_at(received, 8) == Some(sequence);
        received = received.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        match kind {
            _ if !ours => {}
            NLMSG_ERROR => {
                let errno = u32_at(body, 0).ok_or(Malformed)?.cast_signed();
                return Ok(match errno {
                    0 => Answer::Done(attributes),
                    _ => Answer::Refused(Refusal {
                        errno: -errno,
                        text: explanation(body, flags),
                    }),
                });
            }
            _ => {
                let list = body.get(GENERIC_HEADER..).ok_or(Malformed)?;
                attributes = attributes_of(list).ok_or(Malformed)?;
            }
        }
    }
    Ok(Answer::Open)
}

/// The text that stands behind an error.
fn explanation(body: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let asked = match flags & NLM_F_CAPPED {
        0 => (u32_at(body, 4)? as usize).next_multiple_of(ALIGN),
        _ => HEADER,
    };
    let list = attributes_of(body.get(4 + asked..)?)?;
    let (_, text) = list
        .into_iter()
        .find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    let text = String::from_utf8_lossy(&text);
    Some(text.trim_end_matches('\0').to_owned())
}

/// The attributes of a list, each with its type and what is in it.
pub(super) fn attributes_of(mut list: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut found = Vec::new();
    while !list.is_empty() {
        let len = usize::from(u16_at(list, 0)?);
        let kind = u16_at(list, 2)? & NLA_TYPE;
        found.push((kind, list.get(ATTRIBUTE_HEADER..len)?.to_vec()));
        list = list.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
    }
    Some(found)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply to sequence 7 with one u16 attribute, as the kernel lays it out.
    const REPLY: [u8; 28] = [
        28, 0, 0, 0, 16, 0, 0, 0, 7, 0, 0, 0, 9, 9, 0, 0, // header
        1, 2, 0, 0, // generic header
        6, 0, 1, 0, 0x21, 0, 0, 0, // attribute 1 and what fills it up
    ];

    fn error(errno: i32, flags: u16, behind: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let len = 20 + behind.len() as u32;
        bytes.extend(len.to_ne_bytes());
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend((-errno).to_ne_bytes());
        bytes.extend(behind);
        bytes
    }

    #[test]
    fn a_reply_is_done_when_it_is_acknowledged() {
        assert_eq!(answer(&REPLY, 7), Ok(Answer::Open));
        let mut both = REPLY.to_vec();
        both.extend(error(0, NLM_F_CAPPED, &[0; 16]));
        assert_eq!(answer(&both, 7), Ok(Answer::Done(vec![(1, vec![0x21, 0])])));
        assert_eq!(answer(&both, 8), Ok(Answer::Open), "another one's");
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let mut behind = [0; 16].to_vec();
        behind.extend([8, 0, 1, 0, b'n', b'o', b'!', 0]);
        let told = error(22, NLM_F_CAPPED | NLM_F_ACK_TLVS, &behind);
        let Ok(Answer::Refused(refusal)) = answer(&told, 7) else {
            panic!("a refusal");
        };
        assert_eq!(refusal.to_string(), "no! (error 22)");
        let silent = error(16, NLM_F_CAPPED, &[0; 16]);
        let Ok(Answer::Refused(refusal)) = answer(&silent, 7) else {
            panic!("a refusal");
        };
        assert_eq!((refusal.errno, refusal.text), (16, None));
    }

    #[test]
    fn bytes_that_are_cut_off_or_wrong_are_malformed_and_nothing_panics() {
        for len in 1..REPLY.len() - 4 {
            assert_eq!(answer(&REPLY[..len], 7), Err(Malformed), "{len}");
        }
        let mut wrong = REPLY;
        for at in 0..wrong.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let right = std::mem::replace(&mut wrong[at], value);
                let _ = answer(&wrong, 7);
                wrong[at] = right;
            }
        }
    }
}
