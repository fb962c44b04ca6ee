//! A front end and a driver of virtio-blk in one, small enough to do everything wrong on purpose.

use crate::io::{FdStream, GuestMemory, SharedMap, Span, Until, full_fence, wait as wait_for};
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const RING: u16 = 16;
pub const MEMORY: u64 = 4 << 20;
/// Where the front end has what the guest has at 0.
pub const USER: u64 = 0x7000_0000;
/// Bytes of a ring's parts, and where buffers are.
pub const EACH: u64 = 0x10000;
pub const DATA: u64 = 1 << 20;

pub const OK: u8 = 0;
pub const IOERR: u8 = 1;
pub const UNSUPP: u8 = 2;

/// VERSION_1, EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES.
pub const FEATURES: u64 = 1 << 32 | 1 << 29 | 1 << 28 | 1 << 30;
const NEED_REPLY: u32 = 8;

pub struct FrontEnd {
    pub stream: FdStream,
    pub memory: Arc<GuestMemory>,
    pub file: OwnedFd,
    pub rings: Vec<DriverRing>,
    /// Whether writes to used rings are to be logged.
    pub logs: bool,
}

pub struct DriverRing {
    pub index: u16,
    pub kick: EventFd,
    pub call: EventFd,
    pub error: EventFd,
    pub span: Span,
    pub available: u16,
    pub used: u16,
}

/// Where a ring has its used ring: in two pages, of which the second has half of the elements, or the event alone.
pub fn used_at(index: u16) -> u64 {
    [0x2fc0, 0x2f7c][usize::from(index % 2)]
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

impl FrontEnd {
    pub fn connect(path: &Path) -> FrontEnd {
        let (map, file) = SharedMap::create("guest", MEMORY).unwrap();
        let memory = Arc::new(GuestMemory::new(vec![(0, Arc::new(map))]).unwrap());
        let stream = FdStream::new(UnixStream::connect(path).unwrap().into());
        let rings = Vec::new();
        FrontEnd {
            stream,
            memory,
            file,
            rings,
            logs: false,
        }
    }

    /// The same guest by a new connection.
    pub fn connect_again(&mut self, path: &Path) {
        self.stream = FdStream::new(UnixStream::connect(path).unwrap().into());
    }

    /// Negotiates, shares memory and starts so many rings.
    pub fn start(path: &Path, rings: u16) -> FrontEnd {
        let mut front = FrontEnd::connect(path);
        front.rings = (0..rings).map(|index| front.new_ring(index)).collect();
        front.negotiate(FEATURES);
        front.start_rings();
        front
    }

    pub fn new_ring(&self, index: u16) -> DriverRing {
        let at = u64::from(index) * EACH;
        let event = || EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap();
        DriverRing {
            index,
            kick: event(),
            call: event(),
            error: event(),
            span: self.memory.span(at, EACH as usize).unwrap(),
            available: 0,
            used: 0,
        }
    }

    pub fn negotiate(&mut self, features: u64) {
        let offered = self.ask(1, &[]);
        assert_eq!(u64_at(&offered, 0) & features, features);
        let protocol = u64_at(&self.ask(15, &[]), 0);
        assert_eq!(protocol, 0xb22b);
        self.tell(16, &longs(&[protocol]), &[]);
        self.ack(3, &[], &[]);
        self.ack(2, &longs(&[features]), &[]);
        let table = [words(&[1, 0]), longs(&[0, MEMORY, USER, 0])].concat();
        let file = self.file.try_clone().unwrap();
        self.ack(5, &table, &[file.as_fd()]);
    }

    pub fn start_rings(&mut self) {
        for place in 0..self.rings.len() {
            self.start_ring(place);
        }
    }

    pub fn start_ring(&mut self, place: usize) {
        let ring = &self.rings[place];
        let (index, base) = (u32::from(ring.index), u32::from(ring.used));
        let kick = ring.kick.as_fd().try_clone_to_owned().unwrap();
        let call = ring.call.as_fd().try_clone_to_owned().unwrap();
        let error = ring.error.as_fd().try_clone_to_owned().unwrap();
        self.ack(8, &words(&[index, RING.into()]), &[]);
        self.ack(10, &words(&[index, base]), &[]);
        self.tell_address(place);
        self.ack(13, &longs(&[index.into()]), &[call.as_fd()]);
        self.ack(14, &longs(&[index.into()]), &[error.as_fd()]);
        self.ack(12, &longs(&[index.into()]), &[kick.as_fd()]);
        self.ack(18, &words(&[index, 1]), &[]);
    }

    /// Says where a ring lies, and whether writes to it are logged.
    pub fn tell_address(&self, place: usize) {
        let index = self.rings[place].index;
        let (guest, used) = (u64::from(index) * EACH, used_at(index));
        let at = USER + guest;
        let address = [
            words(&[index.into(), self.logs.into()]),
            longs(&[at, at + used, at + 0x1000, guest + used]),
        ]
        .concat();
        self.ack(9, &address, &[]);
    }

    /// Sends a message that is not answered.
    pub fn tell(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        self.send(request, 1, body, files);
    }

    fn send(&self, request: u32, flags: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
        use std::os::fd::AsRawFd;
        let mut bytes = words(&[request, flags, body.len() as u32]);
        bytes.extend_from_slice(body);
        let raw: Vec<i32> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = &rights[..usize::from(!raw.is_empty())];
        let pieces = [std::io::IoSlice::new(&bytes)];
        let socket = self.stream.as_fd().as_raw_fd();
        // A back end that has hung up is seen by who waits for its answer.
        let _ = sendmsg::<UnixAddr>(socket, &pieces, rights, MsgFlags::MSG_NOSIGNAL, None);
    }

    /// Sends a message and waits for its answer's body; `None` where the connection ends.
    pub fn try_ask(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
        self.send(request, 1 | flags, body, files);
        let mut files = Vec::new();
        let head = self.receive(12, &mut files)?;
        assert_eq!(&head[..8], words(&[request, 5]));
        let len = u32::from_ne_bytes(head[8..].try_into().unwrap());
        let body = self.receive(len as usize, &mut files)?;
        Some((body, files))
    }

    fn receive(&self, len: usize, files: &mut Vec<OwnedFd>) -> Option<Vec<u8>> {
        let (mut bytes, mut done) = (vec![0; len], 0);
        while done < len {
            match self.stream.receive(&mut bytes[done..], files) {
                Ok(Some(0)) | Err(_) => return None,
                Ok(Some(more)) => done += more,
                Ok(None) => {
                    let on = [(self.stream.as_fd(), Until::Readable)];
                    let ready = wait_for(&on, Some(Duration::from_secs(20))).unwrap();
                    assert_ne!(ready, 0, "the back end answers");
                }
            }
        }
        Some(bytes)
    }

    pub fn ask(&self, request: u32, body: &[u8]) -> Vec<u8> {
        self.try_ask(request, 0, body, &[]).unwrap().0
    }

    /// Sends a message and has it acknowledged.
    pub fn ack(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        let answer = self.try_ask(request, NEED_REPLY, body, files);
        let answer = answer.unwrap_or_else(|| panic!("the connection ended at {request}"));
        assert_eq!(answer.0, longs(&[0]), "request {request} was refused");
    }

    /// Whether the back end has hung up.
    pub fn is_cut_off(&self) -> bool {
        let mut files = Vec::new();
        self.receive(1, &mut files).is_none()
    }

    /// Puts a chain of descriptors at `head` and makes it available.
    pub fn offer(&mut self, ring: usize, head: u16, chain: &[(u64, u32, bool)]) {
        let ring = &mut self.rings[ring];
        for (n, (address, len, writable)) in (0u16..).zip(chain) {
            let at = 16 * usize::from(head + n);
            let next = u16::from(usize::from(n) + 1 < chain.len());
            ring.span.write(at, *address);
            ring.span.write(at + 8, *len);
            ring.span.write(at + 12, next | u16::from(*writable) << 1);
            ring.span.write(at + 14, (head + n + 1) % RING);
        }
        ring.make_available(head);
    }

    /// Asks for something whose buffers follow `head`'s place: header, data, status.
    pub fn request(&mut self, ring: usize, head: u16, kind: u32, sector: u64, data: (u32, bool)) {
        let at = self.place(ring, head);
        let mut header = words(&[kind, 0]);
        header.extend(longs(&[sector]));
        assert!(self.memory.write(at, &header));
        assert!(self.memory.write(at + 64, &[0xee]));
        let mut chain = vec![(at, 16, false)];
        if data.0 > 0 {
            chain.push((at + 4096, data.0, data.1));
        }
        chain.push((at + 64, 1, true));
        self.offer(ring, head, &chain);
    }

    /// Where a head's buffers are: 64 KiB each.
    pub fn place(&self, ring: usize, head: u16) -> u64 {
        DATA + (ring as u64 * u64::from(RING / 4) + u64::from(head / 4)) * 0x10000
    }

    pub fn put_data(&self, ring: usize, head: u16, data: &[u8]) {
        assert!(self.memory.write(self.place(ring, head) + 4096, data));
    }

    pub fn data(&self, ring: usize, head: u16, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        assert!(self.memory.read(self.place(ring, head) + 4096, &mut data));
        data
    }

    pub fn status(&self, ring: usize, head: u16) -> u8 {
        let mut status = [0];
        assert!(self.memory.read(self.place(ring, head) + 64, &mut status));
        status[0]
    }

    /// Asks for something at head 0 and waits for its end: the status.
    pub fn carry_out(&mut self, ring: usize, kind: u32, sector: u64, data: (u32, bool)) -> u8 {
        self.request(ring, 0, kind, sector, data);
        self.rings[ring].kick();
        assert_eq!(self.rings[ring].wait_used().0, 0);
        self.status(ring, 0)
    }

    pub fn write(&mut self, ring: usize, sector: u64, data: &[u8]) -> u8 {
        self.put_data(ring, 0, data);
        self.carry_out(ring, 1, sector, (data.len() as u32, false))
    }

    pub fn read(&mut self, ring: usize, sector: u64, len: u32) -> Vec<u8> {
        assert_eq!(self.carry_out(ring, 0, sector, (len, true)), OK);
        self.data(ring, 0, len as usize)
    }
}

impl DriverRing {
    pub fn make_available(&mut self, head: u16) {
        let at = 0x1000 + 4 + 2 * usize::from(self.available % RING);
        self.span.store_u16(at, head);
        self.available = self.available.wrapping_add(1);
        self.span.store_u16(0x1002, self.available);
    }

    pub fn kick(&self) {
        self.kick.write(1).unwrap();
    }

    /// The next used element, where it is there: head and length.
    pub fn take_used(&mut self) -> Option<(u16, u32)> {
        // Wants to be called for the next one.
        self.span
            .store_u16(0x1004 + 2 * usize::from(RING), self.used);
        full_fence();
        let at = used_at(self.index) as usize;
        if self.span.load_u16(at + 2) == self.used {
            return None;
        }
        let at = at + 4 + 8 * usize::from(self.used % RING);
        self.used = self.used.wrapping_add(1);
        Some((self.span.read::<u32>(at) as u16, self.span.read(at + 4)))
    }

    /// Waits for the next used element by its call, and by that alone.
    pub fn wait_used(&mut self) -> (u16, u32) {
        loop {
            if let Some(used) = self.take_used() {
                return used;
            }
            assert!(self.is_called(Duration::from_secs(20)), "nobody calls");
        }
    }

    pub fn is_called(&self, most: Duration) -> bool {
        let called = wait_for(&[(self.call.as_fd(), Until::Readable)], Some(most)).unwrap();
        let _ = self.call.read();
        called != 0
    }

    pub fn is_failed(&self) -> bool {
        let most = Some(Duration::from_secs(20));
        wait_for(&[(self.error.as_fd(), Until::Readable)], most).unwrap() != 0
    }
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}
