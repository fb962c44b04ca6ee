//! The messages of vhost-user, from and to bytes. The structures and numbers are those of crate `vhost`.

use std::fmt;
use vhost::vhost_user::message::{
    BackendReq, FrontendReq, VhostUserConfig, VhostUserHeaderFlag, VhostUserInflight, VhostUserLog,
    VhostUserMemory, VhostUserMemoryRegion, VhostUserMsgValidator, VhostUserSingleMemoryRegion,
    VhostUserVringAddr, VhostUserVringState,
};
use vm_memory::ByteValued;

/// Bytes of a header.
pub const HEADER: usize = 12;
/// Bytes of a body at most.
const BODY_MAX: u32 = 4096;
/// The version of the protocol, and where it lies in a header's flags.
const VERSION: u32 = 1;
const VERSION_BITS: u32 = 3;
/// The bit of a ring's file message that says that there is no file.
const NO_FILE: u64 = 1 << 8;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// A header of another version, with unknown flags, or of a body that is too long.
    Header(Header),
    /// A request that there is not, or that was not negotiated.
    Unknown(u32),
    /// A body of a wrong length or with a field that cannot be.
    Body(FrontendReq),
    /// Another number of files than belongs to it.
    Files(FrontendReq),
    /// Features that were not offered.
    Features(u64),
    /// A ring that there is not.
    NoSuchRing(u32),
    /// A change of a ring that runs, which only one that is stopped may have.
    RingRuns(u32),
    /// A ring without a file to be kicked by: it would have to be polled.
    NoKick(u32),
    /// The size of a ring is no power of two, or too large.
    RingSize(u32),
    /// Parts of a ring lie outside of the memory.
    RingAddress(u32),
    /// Memory that overlaps, that is too much, or that is not there.
    Memory,
    /// The in-flight region does not fit the rings.
    Inflight,
    /// It could not be carried out, and nobody asked how it went.
    Failed(FrontendReq),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Violation::Header(Header {
                request,
                flags,
                size,
            }) => write!(
                f,
                "a header that cannot be: request {request}, flags {flags:#x}, size {size}"
            ),
            Violation::Unknown(request) => {
                write!(f, "request {request} is unknown or was not negotiated")
            }
            Violation::Body(request) => {
                write!(f, "{request:?} has a wrong size or a field that cannot be")
            }
            Violation::Files(request) => write!(f, "{request:?} has a wrong number of files"),
            Violation::Features(bits) => write!(f, "features {bits:#x} were not offered"),
            Violation::NoSuchRing(index) => write!(f, "there is no ring {index}"),
            Violation::RingRuns(index) => write!(f, "ring {index} runs and cannot be changed"),
            Violation::NoKick(index) => write!(f, "ring {index} has no eventfd to be kicked by"),
            Violation::RingSize(size) => {
                write!(f, "a ring of {size} is no power of two or too large")
            }
            Violation::RingAddress(index) => {
                write!(f, "ring {index} lies outside of the memory that is shared")
            }
            Violation::Memory => f.write_str("memory overlaps, is too much, or is not there"),
            Violation::Inflight => f.write_str("the in-flight region does not fit the rings"),
            Violation::Failed(request) => write!(f, "{request:?} could not be carried out"),
        }
    }
}

impl std::error::Error for Violation {}

/// What every message begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub request: u32,
    pub flags: u32,
    /// Bytes of the body that follows.
    pub size: u32,
}

impl Header {
    /// Reads a header of the front end.
    pub fn parse(bytes: &[u8; HEADER]) -> Result<Header, Violation> {
        let word = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        let header = Header {
            request: word(0),
            flags: word(4),
            size: word(8),
        };
        let known = VERSION_BITS | VhostUserHeaderFlag::NEED_REPLY.bits();
        let right = header.flags & VERSION_BITS == VERSION && header.flags & !known == 0;
        match right && header.size <= BODY_MAX {
            true => Ok(header),
            false => Err(Violation::Header(header)),
        }
    }

    /// Whether the front end waits for an answer to a request that has none of its own.
    pub fn wants_ack(&self) -> bool {
        self.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for word in [self.request, self.flags, self.size] {
            out.extend_from_slice(&word.to_ne_bytes());
        }
    }
}

/// A part of the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Where the guest has it.
    pub guest: u64,
    /// Where the front end has it; rings are named so.
    pub user: u64,
    pub len: u64,
    /// Where it begins in its file.
    pub offset: u64,
}

impl Region {
    fn of(region: &VhostUserMemoryRegion) -> Option<Region> {
        region.is_valid().then_some(Region {
            guest: region.guest_phys_addr,
            user: region.user_addr,
            len: region.memory_size,
            offset: region.mmap_offset,
        })
    }
}

/// Where the parts of a ring lie, as addresses of the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingAddress {
    pub descriptors: u64,
    pub used: u64,
    pub available: u64,
    /// The guest's address of the used ring, where writes to it are to be logged.
    pub log: Option<u64>,
}

/// A message of the front end, its files with it.
#[derive(Debug)]
pub enum Message<F> {
    GetFeatures,
    SetFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemory(Vec<(Region, F)>),
    AddMemory(Region, F),
    RemoveMemory(Region),
    MemorySlots,
    SetLog {
        len: u64,
        offset: u64,
        file: F,
    },
    SetLogSignal(F),
    RingSize(u32, u32),
    RingAddress(u32, RingAddress),
    SetRingBase(u32, u32),
    GetRingBase(u32),
    RingKick(u32, Option<F>),
    RingCall(u32, Option<F>),
    RingError(u32, Option<F>),
    RingEnable(u32, bool),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    QueueCount,
    Channel(F),
    GetConfig {
        offset: u32,
        len: u32,
    },
    SetConfig {
        offset: u32,
        bytes: Vec<u8>,
    },
    GetInflight {
        queues: u16,
        size: u16,
    },
    SetInflight {
        queues: u16,
        size: u16,
        len: u64,
        offset: u64,
        file: F,
    },
    ResetDevice,
}

/// A structure from exactly its bytes.
fn plain<T: ByteValued + Default>(bytes: &[u8]) -> Option<T> {
    let mut value = T::default();
    let room = value.as_mut_slice();
    (room.len() == bytes.len()).then(|| room.copy_from_slice(bytes))?;
    Some(value)
}

fn u64_of(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

impl<F> Message<F> {
    /// Reads a message whose body is whole. Where that fails its files are closed.
    pub fn read(header: &Header, body: &[u8], files: Vec<F>) -> Result<Message<F>, Violation> {
        let request = FrontendReq::try_from(header.request);
        let request = request.map_err(|_| Violation::Unknown(header.request))?;
        let mut files = Files {
            left: files.into_iter(),
            request,
        };
        let message = decode(request, body, &mut files)?;
        match files.left.next() {
            None => Ok(message),
            Some(_) => Err(Violation::Files(request)),
        }
    }
}

/// The files of a message.
struct Files<F> {
    left: std::vec::IntoIter<F>,
    request: FrontendReq,
}

impl<F> Files<F> {
    fn take(&mut self) -> Result<F, Violation> {
        self.left.next().ok_or(Violation::Files(self.request))
    }
}

fn decode<F>(
    request: FrontendReq,
    body: &[u8],
    files: &mut Files<F>,
) -> Result<Message<F>, Violation> {
    let wrong = Violation::Body(request);
    let number = || u64_of(body).ok_or(wrong);
    let state = || plain::<VhostUserVringState>(body).ok_or(wrong);
    let empty = |message: Message<F>| match body {
        [] => Ok(message),
        _ => Err(wrong),
    };
    match request {
        FrontendReq::GET_FEATURES => empty(Message::GetFeatures),
        FrontendReq::SET_FEATURES => Ok(Message::SetFeatures(number()?)),
        FrontendReq::SET_OWNER => empty(Message::SetOwner),
        FrontendReq::RESET_OWNER => empty(Message::ResetOwner),
        FrontendReq::SET_MEM_TABLE => memory_table(body, files),
        FrontendReq::ADD_MEM_REG => {
            let region = plain::<VhostUserSingleMemoryRegion>(body).ok_or(wrong)?;
            let region = Region::of(&region).ok_or(wrong)?;
            Ok(Message::AddMemory(region, files.take()?))
        }
        FrontendReq::REM_MEM_REG => {
            let region = plain::<VhostUserSingleMemoryRegion>(body).ok_or(wrong)?;
            // Some front ends send the file once more; the protocol lets it be, and it is closed.
            drop(files.left.next());
            Ok(Message::RemoveMemory(Region::of(&region).ok_or(wrong)?))
        }
        FrontendReq::GET_MAX_MEM_SLOTS => empty(Message::MemorySlots),
        FrontendReq::SET_LOG_BASE => {
            let log = plain::<VhostUserLog>(body).filter(|log| log.is_valid());
            let log = log.ok_or(wrong)?;
            Ok(Message::SetLog {
                len: log.mmap_size,
                offset: log.mmap_offset,
                file: files.take()?,
            })
        }
        FrontendReq::SET_LOG_FD => empty(Message::SetLogSignal(files.take()?)),
        FrontendReq::SET_VRING_NUM => state().map(|s| Message::RingSize(s.index, s.num)),
        FrontendReq::SET_VRING_ADDR => {
            let ring = plain::<VhostUserVringAddr>(body).filter(|ring| ring.is_valid());
            let ring = ring.ok_or(wrong)?;
            let address = RingAddress {
                descriptors: ring.descriptor,
                used: ring.used,
                available: ring.available,
                log: (ring.flags & 1 != 0).then_some(ring.log),
            };
            Ok(Message::RingAddress(ring.index, address))
        }
        FrontendReq::SET_VRING_BASE => state().map(|s| Message::SetRingBase(s.index, s.num)),
        FrontendReq::GET_VRING_BASE => state().map(|s| Message::GetRingBase(s.index)),
        FrontendReq::SET_VRING_KICK => {
            ring_file(number()?, files).map(|(ring, file)| Message::RingKick(ring, file))
        }
        FrontendReq::SET_VRING_CALL => {
            ring_file(number()?, files).map(|(ring, file)| Message::RingCall(ring, file))
        }
        FrontendReq::SET_VRING_ERR => {
            ring_file(number()?, files).map(|(ring, file)| Message::RingError(ring, file))
        }
        FrontendReq::SET_VRING_ENABLE => match state()? {
            VhostUserVringState { index, num: 0 } => Ok(Message::RingEnable(index, false)),
            VhostUserVringState { index, num: 1 } => Ok(Message::RingEnable(index, true)),
            _ => Err(wrong),
        },
        FrontendReq::GET_PROTOCOL_FEATURES => empty(Message::GetProtocolFeatures),
        FrontendReq::SET_PROTOCOL_FEATURES => Ok(Message::SetProtocolFeatures(number()?)),
        FrontendReq::GET_QUEUE_NUM => empty(Message::QueueCount),
        FrontendReq::SET_BACKEND_REQ_FD => empty(Message::Channel(files.take()?)),
        FrontendReq::GET_CONFIG | FrontendReq::SET_CONFIG => config(request, body),
        FrontendReq::GET_INFLIGHT_FD => {
            let area = inflight(body).ok_or(wrong)?;
            let (queues, size) = (area.num_queues, area.queue_size);
            Ok(Message::GetInflight { queues, size })
        }
        FrontendReq::SET_INFLIGHT_FD => {
            let area = inflight(body).ok_or(wrong)?;
            Ok(Message::SetInflight {
                queues: area.num_queues,
                size: area.queue_size,
                len: area.mmap_size,
                offset: area.mmap_offset,
                file: files.take()?,
            })
        }
        FrontendReq::RESET_DEVICE => empty(Message::ResetDevice),
        _ => Err(Violation::Unknown(request.into())),
    }
}

fn memory_table<F>(body: &[u8], files: &mut Files<F>) -> Result<Message<F>, Violation> {
    let wrong = Violation::Body(FrontendReq::SET_MEM_TABLE);
    let (head, body) = body.split_at_checked(8).ok_or(wrong)?;
    let head: VhostUserMemory = plain(head).ok_or(wrong)?;
    let each = size_of::<VhostUserMemoryRegion>();
    let count = head.num_regions as usize;
    if count.checked_mul(each) != Some(body.len()) {
        return Err(wrong);
    }
    let mut regions = Vec::with_capacity(count);
    for bytes in body.chunks_exact(each) {
        let region = plain::<VhostUserMemoryRegion>(bytes);
        let region = region.as_ref().and_then(Region::of).ok_or(wrong)?;
        regions.push((region, files.take()?));
    }
    Ok(Message::SetMemory(regions))
}

/// The ring and the file of a message that gives a ring a file.
fn ring_file<F>(number: u64, files: &mut Files<F>) -> Result<(u32, Option<F>), Violation> {
    if number & !(NO_FILE | 0xff) != 0 {
        return Err(Violation::Body(files.request));
    }
    let file = match number & NO_FILE {
        0 => Some(files.take()?),
        _ => None,
    };
    Ok(((number & 0xff) as u32, file))
}

fn config<F>(request: FrontendReq, body: &[u8]) -> Result<Message<F>, Violation> {
    let wrong = Violation::Body(request);
    let (head, bytes) = body
        .split_at_checked(size_of::<VhostUserConfig>())
        .ok_or(wrong)?;
    let head: VhostUserConfig = plain(head).ok_or(wrong)?;
    if head.size as usize != bytes.len() {
        return Err(wrong);
    }
    let offset = head.offset;
    Ok(match request {
        FrontendReq::GET_CONFIG => Message::GetConfig {
            offset,
            len: head.size,
        },
        _ => Message::SetConfig {
            offset,
            bytes: bytes.to_vec(),
        },
    })
}

/// Front ends send this structure with the padding that their compiler gives it, or without.
fn inflight(body: &[u8]) -> Option<VhostUserInflight> {
    let mut padded = [0; size_of::<VhostUserInflight>()];
    let len = body.len();
    (len == 20 || len == padded.len()).then(|| padded[..len].copy_from_slice(body))?;
    plain(&padded)
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Number(u64),
    Ring {
        index: u32,
        number: u32,
    },
    /// Without bytes where they are not there.
    Config {
        offset: u32,
        bytes: Vec<u8>,
    },
    Inflight {
        queues: u16,
        size: u16,
        len: u64,
    },
}

impl Reply {
    /// The bytes of the answer to a request.
    pub fn write(&self, to: &Header) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Reply::Number(number) => body.extend(number.to_ne_bytes()),
            Reply::Ring { index, number } => {
                body.extend_from_slice(VhostUserVringState::new(*index, *number).as_slice());
            }
            // No body at all says that there was something wrong with the question.
            Reply::Config { bytes, .. } if bytes.is_empty() => {}
            Reply::Config { offset, bytes } => {
                let mut head = VhostUserConfig::default();
                (head.offset, head.size) = (*offset, bytes.len() as u32);
                body.extend_from_slice(head.as_slice());
                body.extend_from_slice(bytes);
            }
            Reply::Inflight { queues, size, len } => {
                for number in [*len, 0] {
                    body.extend(number.to_ne_bytes());
                }
                for number in [*queues, *size, 0, 0] {
                    body.extend(number.to_ne_bytes());
                }
            }
        }
        let header = Header {
            request: to.request,
            flags: VERSION | VhostUserHeaderFlag::REPLY.bits(),
            size: body.len() as u32,
        };
        let mut out = Vec::with_capacity(HEADER + body.len());
        header.write(&mut out);
        out.extend_from_slice(&body);
        out
    }
}

/// The message on the back channel that says that the configuration space has changed.
pub fn config_change() -> [u8; HEADER] {
    let mut out = Vec::with_capacity(HEADER);
    let header = Header {
        request: BackendReq::CONFIG_CHANGE_MSG.into(),
        flags: VERSION,
        size: 0,
    };
    header.write(&mut out);
    std::array::from_fn(|n| out[n])
}
