//! A connection told again: the messages that bring a new session where this one is.
//!
//! They are messages as a front end sends them, so whoever takes the connection over reads, checks and carries them out
//! as always, and answers none. There is no other form of a session's state, and none that could fall behind it.

use super::message::{Header, Message, Region, RingAddress, Violation};
use super::session::{InflightArea, Ring, Session};
use vhost::vhost_user::message::FrontendReq;

/// Regions that one table of memory holds here: as many as files come with one message. More than that have only
/// front ends that add slots.
const TABLE: usize = 64;
/// The flags of a message of version 1 that asks for no acknowledgement.
const FLAGS: u32 = 1;
/// The byte of the configuration space that a driver may change, and what says that it did so.
const WRITEBACK: u32 = 32;
/// The bit of a ring's file message that says that there is no file.
const NO_FILE: u64 = 1 << 8;

/// A message with its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<F> {
    pub header: Header,
    pub body: Vec<u8>,
    pub files: Vec<F>,
}

impl<F> Told<F> {
    fn new(request: FrontendReq, body: Vec<u8>, files: Vec<F>) -> Told<F> {
        let header = Header {
            request: request.into(),
            flags: FLAGS,
            size: body.len() as u32, // a table of memory at most
        };
        Told {
            header,
            body,
            files,
        }
    }

    /// The message that it is.
    pub fn read(self) -> Result<Message<F>, Violation> {
        Message::read(&self.header, &self.body, self.files)
    }
}

/// What belongs to a connection and is not kept by its session.
#[derive(Debug)]
pub struct Beside<F> {
    /// The file of each region.
    pub memory: Vec<(Region, F)>,
    /// The log: its length, where it begins in its file, and the file.
    pub log: Option<(u64, u64, F)>,
    pub inflight: Option<(InflightArea, F)>,
    /// Where changes of the configuration are told.
    pub channel: Option<F>,
}

impl<F> Session<F> {
    /// The messages, whose order matters. To be asked for when no ring runs, so that each is where it was stopped.
    pub fn retell(self, beside: Beside<F>) -> Vec<Told<F>> {
        let mut told = Vec::new();
        let mut say = |request, body: Vec<u8>, files| told.push(Told::new(request, body, files));
        let protocol = self.protocol.bits();
        say(
            FrontendReq::SET_PROTOCOL_FEATURES,
            longs(&[protocol]),
            vec![],
        );
        if let Some(features) = self.features {
            say(FrontendReq::SET_FEATURES, longs(&[features]), vec![]);
        }
        if let Some(channel) = beside.channel {
            say(FrontendReq::SET_BACKEND_REQ_FD, vec![], vec![channel]);
        }
        if self.device.writeback {
            let body = [words(&[WRITEBACK, 1, 0]), vec![1]].concat();
            say(FrontendReq::SET_CONFIG, body, vec![]);
        }
        let mut memory = beside.memory.into_iter();
        let (table, files): (Vec<Region>, Vec<F>) = memory.by_ref().take(TABLE).unzip();
        if !table.is_empty() {
            let head = words(&[table.len() as u32, 0]);
            let regions = table.iter().map(region_of);
            let body = std::iter::once(head)
                .chain(regions)
                .collect::<Vec<_>>()
                .concat();
            say(FrontendReq::SET_MEM_TABLE, body, files);
        }
        for (region, file) in memory {
            let body = [longs(&[0]), region_of(&region)].concat();
            say(FrontendReq::ADD_MEM_REG, body, vec![file]);
        }
        if let Some((len, offset, file)) = beside.log {
            say(FrontendReq::SET_LOG_BASE, longs(&[len, offset]), vec![file]);
        }
        if let Some((area, file)) = beside.inflight {
            let shape = u32::from(area.queues) | u32::from(area.size) << 16;
            let body = [longs(&[area.len, area.offset]), words(&[shape, 0])].concat();
            say(FrontendReq::SET_INFLIGHT_FD, body, vec![file]);
        }
        for (index, ring) in (0..).zip(self.rings) {
            retell_ring(index, ring, &mut say);
        }
        told
    }
}

fn retell_ring<F>(index: u32, ring: Ring<F>, say: &mut impl FnMut(FrontendReq, Vec<u8>, Vec<F>)) {
    debug_assert!(!ring.runs, "a ring is handed on at rest");
    if ring.size > 0 {
        let body = words(&[index, ring.size.into()]);
        say(FrontendReq::SET_VRING_NUM, body, vec![]);
    }
    let body = words(&[index, ring.base.into()]);
    say(FrontendReq::SET_VRING_BASE, body, vec![]);
    if let Some(RingAddress {
        descriptors,
        used,
        available,
        log,
    }) = ring.address
    {
        let head = words(&[index, log.is_some().into()]);
        let places = longs(&[descriptors, used, available, log.unwrap_or(0)]);
        let body = [head, places].concat();
        say(FrontendReq::SET_VRING_ADDR, body, vec![]);
    }
    let files = [
        (FrontendReq::SET_VRING_CALL, ring.call),
        (FrontendReq::SET_VRING_ERR, ring.error),
    ];
    for (request, file) in files {
        let none = if file.is_none() { NO_FILE } else { 0 };
        let body = longs(&[u64::from(index) | none]);
        say(request, body, file.into_iter().collect());
    }
    let body = words(&[index, ring.enabled.into()]);
    say(FrontendReq::SET_VRING_ENABLE, body, vec![]);
    // Last, because it starts the ring.
    if let Some(kick) = ring.kick {
        say(
            FrontendReq::SET_VRING_KICK,
            longs(&[index.into()]),
            vec![kick],
        );
    }
}

fn region_of(region: &Region) -> Vec<u8> {
    longs(&[region.guest, region.len, region.user, region.offset])
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
