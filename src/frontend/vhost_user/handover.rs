//! The connections that one process hands to the next: as bytes, beside which the files travel with numbers.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `SARSENHO` |
//! | 4 | the form, [`FORM`] |
//! | 4 | crc32c of all that follows |
//! | 8 | when guests were stopped: nanoseconds of CLOCK_BOOTTIME |
//! | 4 | connections, and each: |
//! | 8, 8 | the guest's key, its volume |
//! | 8 | the volume's size that its driver knows |
//! | 1 | whether its rings ran |
//! | 4 | the number of the connection's socket |
//! | 4 | messages, and each: |
//! | 12, n | header and body as on the wire |
//! | 4, 4 x n | files, and the number of each |
//!
//! Numbers are little-endian, but those inside of messages, which are the host's. What cannot be read is not guessed at: its
//! connections are closed then, and front ends connect again as they do after a crash.

use super::message::{HEADER, Header};
use super::retell::Told;
use crate::base::{Time, VolumeId, crc};
use std::fmt;

/// The newest form, which is written. It changes when this page does; the one before is to be read as well.
pub const FORM: u32 = 1;
const MAGIC: &[u8; 8] = b"SARSENHO";
/// Files of one message at most. More are nonsense.
const FILES_MAX: u32 = 64;
/// Connections and messages of one that are made room for before they are read.
const ROOM: usize = 64;

/// A connection on its way, whose files are `F`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed<F> {
    pub guest: u64,
    pub volume: VolumeId,
    /// In bytes, as its driver knows it.
    pub size: u64,
    /// Whether it is the one guest of its volume whose rings ran.
    pub ran: bool,
    pub socket: F,
    pub told: Vec<Told<F>>,
}

impl<F> Handed<F> {
    /// The same with other files in the place of these. Fails as a whole where one cannot be had.
    pub fn with_files<G, E>(self, mut of: impl FnMut(F) -> Result<G, E>) -> Result<Handed<G>, E> {
        let socket = of(self.socket)?;
        let told = self.told.into_iter().map(|told| {
            let files: Result<Vec<G>, E> = told.files.into_iter().map(&mut of).collect();
            let Told { header, body, .. } = told;
            files.map(|files| Told {
                header,
                body,
                files,
            })
        });
        Ok(Handed {
            told: told.collect::<Result<_, E>>()?,
            socket,
            guest: self.guest,
            volume: self.volume,
            size: self.size,
            ran: self.ran,
        })
    }
}

/// Why nothing can be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is something else.
    Magic,
    /// A form that this version does not know.
    Form(u32),
    /// It was cut short, or its bytes are not those that were written.
    Damaged,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Magic => f.write_str("it is no hand-over"),
            Unreadable::Form(form) => {
                write!(f, "it has form {form}, and this version reads form {FORM}")
            }
            Unreadable::Damaged => f.write_str("it is damaged"),
        }
    }
}

impl std::error::Error for Unreadable {}

/// The bytes of a hand-over; files are their numbers.
pub fn write_handed(stopped: Time, guests: &[Handed<u32>]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.extend(stopped.0.to_le_bytes());
    rest.extend((guests.len() as u32).to_le_bytes());
    for guest in guests {
        for number in [guest.guest, guest.volume.0, guest.size] {
            rest.extend(number.to_le_bytes());
        }
        rest.push(guest.ran.into());
        rest.extend(guest.socket.to_le_bytes());
        rest.extend((guest.told.len() as u32).to_le_bytes());
        for told in &guest.told {
            told.header.write(&mut rest);
            rest.extend_from_slice(&told.body);
            rest.extend((told.files.len() as u32).to_le_bytes());
            told.files
                .iter()
                .for_each(|file| rest.extend(file.to_le_bytes()));
        }
    }
    let mut out = MAGIC.to_vec();
    out.extend(FORM.to_le_bytes());
    out.extend(crc::of(&rest).to_le_bytes());
    out.append(&mut rest);
    out
}

/// What [`write_handed`] wrote: when guests were stopped, and their connections.
pub fn read_handed(bytes: &[u8]) -> Result<(Time, Vec<Handed<u32>>), Unreadable> {
    let mut from = Reader(bytes);
    if from.bytes(MAGIC.len()) != Some(MAGIC.as_slice()) {
        return Err(Unreadable::Magic);
    }
    match from.word() {
        Some(FORM) => {}
        Some(form) => return Err(Unreadable::Form(form)),
        None => return Err(Unreadable::Damaged),
    }
    if from.word() != Some(crc::of(from.0)) {
        return Err(Unreadable::Damaged);
    }
    from.all().ok_or(Unreadable::Damaged)
}

/// The bytes that were not read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (these, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(these)
    }

    fn word(&mut self) -> Option<u32> {
        let bytes = self.bytes(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }

    fn long(&mut self) -> Option<u64> {
        let bytes = self.bytes(8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn all(mut self) -> Option<(Time, Vec<Handed<u32>>)> {
        let stopped = Time(self.long()?);
        let count = self.word()?;
        let mut guests = Vec::with_capacity(ROOM.min(count as usize));
        for _ in 0..count {
            guests.push(self.guest()?);
        }
        self.0.is_empty().then_some((stopped, guests))
    }

    fn guest(&mut self) -> Option<Handed<u32>> {
        let (guest, volume, size) = (self.long()?, VolumeId(self.long()?), self.long()?);
        let ran = match self.bytes(1)? {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let (socket, count) = (self.word()?, self.word()?);
        let mut told = Vec::with_capacity(ROOM.min(count as usize));
        for _ in 0..count {
            told.push(self.told()?);
        }
        Some(Handed {
            guest,
            volume,
            size,
            ran,
            socket,
            told,
        })
    }

    fn told(&mut self) -> Option<Told<u32>> {
        let header = self.bytes(HEADER)?.try_into().ok()?;
        let header = Header::parse(header).ok()?;
        let body = self.bytes(header.size as usize)?.to_vec();
        let count = self.word().filter(|count| *count <= FILES_MAX)?;
        let files = (0..count).map(|_| self.word()).collect::<Option<_>>()?;
        Some(Told {
            header,
            body,
            files,
        })
    }
}
