//! One connection of a front end: what it negotiated, the memory and the rings that it described, and what each
//! of its messages asks of the driver.
//!
//! Generic over what a file is: the driver's are descriptors, those of tests count how they are dropped.
//!
//! A ring runs from when its kick, its addresses and its size are known until its base is asked for. Whether it is enabled
//! only says if heads are taken from it. *A ring that runs is not changed* but in its call, its error file,
//! its log and whether it is enabled.

use super::config::Device;
use super::message::{Header, Message, Region, Reply, RingAddress, Violation};
use super::{Inflight, Plan};
use crate::base::VolumeId;
use vhost::vhost_user::message::{
    FrontendReq, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// Descriptors of a ring at most, as QEMU has it.
const RING_MAX: u32 = 1024;
/// Parts of the memory at most.
const SLOTS: usize = 509;

/// A ring as the front end described it so far.
#[derive(Debug)]
pub struct Ring<F> {
    pub(super) size: u16,
    pub(super) base: u16,
    pub(super) address: Option<RingAddress>,
    pub(super) kick: Option<F>,
    pub(super) call: Option<F>,
    pub(super) error: Option<F>,
    pub(super) enabled: bool,
    pub(super) runs: bool,
}

impl<F> Default for Ring<F> {
    fn default() -> Ring<F> {
        Ring {
            size: 0,
            base: 0,
            address: None,
            kick: None,
            call: None,
            error: None,
            enabled: false,
            runs: false,
        }
    }
}

impl<F> Ring<F> {
    pub fn kick(&self) -> Option<&F> {
        self.kick.as_ref()
    }

    pub fn call(&self) -> Option<&F> {
        self.call.as_ref()
    }

    pub fn error(&self) -> Option<&F> {
        self.error.as_ref()
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn runs(&self) -> bool {
        self.runs
    }
}

/// The in-flight region of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InflightArea {
    pub queues: u16,
    /// Of each ring.
    pub size: u16,
    pub len: u64,
    pub offset: u64,
}

/// What a message asks of the driver.
#[derive(Debug)]
pub enum Task<F> {
    /// To be answered with this.
    Reply(Reply),
    /// Nothing is left to do.
    Done,
    /// All memory is now this.
    SetMemory(Vec<(Region, F)>),
    AddMemory(Region, F),
    RemoveMemory(Region),
    /// Writes to memory are logged here, where [`Session::logs`] says so.
    SetLog {
        len: u64,
        offset: u64,
        file: F,
    },
    /// Whether writes are logged may have changed, for a ring or for all.
    Logging(Option<u16>),
    /// A ring is to be stopped, and [`Session::stopped`] told at which index.
    Stop(u16),
    /// All rings are to be stopped, and memory of the connection stays.
    StopAll,
    /// The call or the error file of a ring that runs has changed.
    Signals(u16),
    /// A ring that runs is to take heads, or none.
    Enable(u16, bool),
    /// The channel on which changes of the configuration are told.
    Channel(F),
    /// A new in-flight region is to be made and sent.
    MakeInflight(InflightArea),
    /// Rings that start from now on have their in-flight region here.
    SetInflight(InflightArea, F),
}

/// One connection.
#[derive(Debug)]
pub struct Session<F> {
    pub device: Device,
    pub volume: VolumeId,
    pub(super) features: Option<u64>,
    pub(super) protocol: Protocol,
    regions: Vec<Region>,
    pub(super) rings: Vec<Ring<F>>,
}

impl<F> Session<F> {
    pub fn new(volume: VolumeId, device: Device) -> Session<F> {
        Session {
            volume,
            features: None,
            protocol: Protocol::empty(),
            regions: Vec::new(),
            rings: (0..device.queues).map(|_| Ring::default()).collect(),
            device,
        }
    }

    /// Takes a message. Where it is a violation the connection is to be dropped.
    pub fn take(&mut self, message: Message<F>) -> Result<Task<F>, Violation> {
        let number = |number: u64| Ok(Task::Reply(Reply::Number(number)));
        match message {
            Message::GetFeatures => number(self.device.features()),
            Message::SetFeatures(bits) => self.set_features(bits),
            Message::SetOwner => Ok(Task::Done),
            Message::ResetOwner => Ok(Task::StopAll),
            Message::ResetDevice => {
                self.needs(Protocol::RESET_DEVICE, FrontendReq::RESET_DEVICE)?;
                self.features = None;
                Ok(Task::StopAll)
            }
            Message::GetProtocolFeatures => number(Device::protocol().bits()),
            Message::SetProtocolFeatures(bits) => {
                let known = Protocol::from_bits(bits).filter(|b| Device::protocol().contains(*b));
                self.protocol = known.ok_or(Violation::Features(bits))?;
                Ok(Task::Done)
            }
            Message::QueueCount => {
                self.needs(Protocol::MQ, FrontendReq::GET_QUEUE_NUM)?;
                number(self.device.queues.into())
            }
            Message::MemorySlots => {
                let slots = Protocol::CONFIGURE_MEM_SLOTS;
                self.needs(slots, FrontendReq::GET_MAX_MEM_SLOTS)?;
                number(SLOTS as u64)
            }
            Message::SetMemory(_) | Message::AddMemory(..) | Message::RemoveMemory(_) => {
                self.change_memory(message)
            }
            Message::SetLog { len, offset, file } => {
                self.needs(Protocol::LOG_SHMFD, FrontendReq::SET_LOG_BASE)?;
                Ok(Task::SetLog { len, offset, file })
            }
            // Its front end need not be told of each write to the log, and none asks for it any more.
            Message::SetLogSignal(_) => Ok(Task::Done),
            Message::RingSize(..)
            | Message::RingAddress(..)
            | Message::SetRingBase(..)
            | Message::GetRingBase(_)
            | Message::RingKick(..)
            | Message::RingCall(..)
            | Message::RingError(..)
            | Message::RingEnable(..) => self.change_ring(message),
            Message::Channel(file) => {
                self.needs(Protocol::BACKEND_REQ, FrontendReq::SET_BACKEND_REQ_FD)?;
                Ok(Task::Channel(file))
            }
            Message::GetConfig { offset, len } => {
                self.needs(Protocol::CONFIG, FrontendReq::GET_CONFIG)?;
                let bytes = self.device.read(offset, len);
                Ok(Task::Reply(Reply::Config { offset, bytes }))
            }
            Message::SetConfig { offset, bytes } => {
                self.needs(Protocol::CONFIG, FrontendReq::SET_CONFIG)?;
                match self.device.write(offset, &bytes) {
                    true => Ok(Task::Done),
                    false => Err(Violation::Failed(FrontendReq::SET_CONFIG)),
                }
            }
            Message::GetInflight { queues, size } => {
                self.needs(Protocol::INFLIGHT_SHMFD, FrontendReq::GET_INFLIGHT_FD)?;
                self.check_inflight(queues, size)?;
                Ok(Task::MakeInflight(InflightArea {
                    queues,
                    size,
                    len: Inflight::bytes(queues, size),
                    offset: 0,
                }))
            }
            Message::SetInflight {
                queues,
                size,
                len,
                offset,
                file,
            } => {
                self.needs(Protocol::INFLIGHT_SHMFD, FrontendReq::SET_INFLIGHT_FD)?;
                self.check_inflight(queues, size)?;
                // Other back ends leave less room between the rings: each is looked at when it starts.
                if len == 0 || offset.checked_add(len).is_none() {
                    return Err(Violation::Inflight);
                }
                let area = InflightArea {
                    queues,
                    size,
                    len,
                    offset,
                };
                Ok(Task::SetInflight(area, file))
            }
        }
    }

    /// The bytes that a message is answered with, if any: with what it asked for, or with whether it was carried out.
    /// Where it was not, and nobody asked, the connection is to be dropped.
    pub fn answer(
        &self,
        header: &Header,
        reply: Option<Reply>,
        done: bool,
    ) -> Result<Option<Vec<u8>>, Violation> {
        let acks = self.protocol.contains(Protocol::REPLY_ACK) && header.wants_ack();
        match (reply, done) {
            (Some(reply), true) => Ok(Some(reply.write(header))),
            (None, _) if acks => Ok(Some(Reply::Number(u64::from(!done)).write(header))),
            (None, true) => Ok(None),
            (_, false) => {
                let request = FrontendReq::try_from(header.request);
                Err(request.map_or(Violation::Unknown(header.request), Violation::Failed))
            }
        }
    }

    fn needs(&self, feature: Protocol, request: FrontendReq) -> Result<(), Violation> {
        match self.protocol.contains(feature) {
            true => Ok(()),
            false => Err(Violation::Unknown(request.into())),
        }
    }

    fn set_features(&mut self, bits: u64) -> Result<Task<F>, Violation> {
        // The volume may have become smaller in what it offers (read-only) since they were asked for.
        if bits & !self.device.features() != 0 {
            return Err(Violation::Features(bits & !self.device.features()));
        }
        let log = VhostUserVirtioFeatures::LOG_ALL.bits();
        let before = self.features.replace(bits).unwrap_or(bits);
        let running = self.rings.iter().position(|ring| ring.runs);
        if let (true, Some(ring)) = ((before ^ bits) & !log != 0, running) {
            return Err(Violation::RingRuns(ring as u32));
        }
        Ok(Task::Logging(None))
    }

    fn has(&self, bit: u32) -> bool {
        self.features.is_some_and(|bits| bits & 1 << bit != 0)
    }

    /// Whether writes to memory are to be logged.
    pub fn logs(&self) -> bool {
        let log = VhostUserVirtioFeatures::LOG_ALL.bits();
        self.features.is_some_and(|bits| bits & log != 0)
    }

    /// Whether the front end is told of changes on the back channel.
    pub fn has_channel(&self) -> bool {
        self.protocol.contains(Protocol::BACKEND_REQ)
    }

    fn change_memory(&mut self, message: Message<F>) -> Result<Task<F>, Violation> {
        let slots = Protocol::CONFIGURE_MEM_SLOTS;
        match message {
            Message::SetMemory(regions) => {
                let all: Vec<Region> = regions.iter().map(|(region, _)| *region).collect();
                check_regions(&all)?;
                self.regions = all;
                Ok(Task::SetMemory(regions))
            }
            Message::AddMemory(region, file) => {
                self.needs(slots, FrontendReq::ADD_MEM_REG)?;
                let mut all = self.regions.clone();
                all.push(region);
                check_regions(&all)?;
                self.regions = all;
                Ok(Task::AddMemory(region, file))
            }
            Message::RemoveMemory(region) => {
                self.needs(slots, FrontendReq::REM_MEM_REG)?;
                let same = |other: &Region| {
                    (other.guest, other.user, other.len) == (region.guest, region.user, region.len)
                };
                let place = self.regions.iter().position(same);
                let removed = self.regions.swap_remove(place.ok_or(Violation::Memory)?);
                Ok(Task::RemoveMemory(removed))
            }
            _ => unreachable!("messages about memory only"),
        }
    }

    fn change_ring(&mut self, message: Message<F>) -> Result<Task<F>, Violation> {
        match message {
            Message::RingSize(index, size) => {
                let ring = self.stopped_ring(index)?;
                if !size.is_power_of_two() || size > RING_MAX {
                    return Err(Violation::RingSize(size));
                }
                ring.size = size as u16;
            }
            Message::SetRingBase(index, base) => {
                let ring = self.stopped_ring(index)?;
                let wrong = Violation::Body(FrontendReq::SET_VRING_BASE);
                ring.base = u16::try_from(base).map_err(|_| wrong)?;
            }
            Message::RingAddress(index, address) => {
                let ring = self.ring_mut(index)?;
                let places = |a: &RingAddress| (a.descriptors, a.available, a.used);
                let moved = ring.address.as_ref().map(places) != Some(places(&address));
                if ring.runs && moved {
                    return Err(Violation::RingRuns(index));
                }
                ring.address = Some(address);
                if ring.runs {
                    return Ok(Task::Logging(Some(index as u16)));
                }
            }
            Message::RingKick(index, file) => {
                let ring = self.stopped_ring(index)?;
                ring.kick = Some(file.ok_or(Violation::NoKick(index))?);
            }
            Message::RingCall(index, file) => {
                let ring = self.ring_mut(index)?;
                ring.call = file;
                if ring.runs {
                    return Ok(Task::Signals(index as u16));
                }
            }
            Message::RingError(index, file) => {
                let ring = self.ring_mut(index)?;
                ring.error = file;
                if ring.runs {
                    return Ok(Task::Signals(index as u16));
                }
            }
            Message::RingEnable(index, on) => {
                let ring = self.ring_mut(index)?;
                ring.enabled = on;
                if ring.runs {
                    return Ok(Task::Enable(index as u16, on));
                }
            }
            Message::GetRingBase(index) => {
                let ring = self.ring_mut(index)?;
                if ring.runs {
                    return Ok(Task::Stop(index as u16));
                }
                ring.kick = None;
                let number = ring.base.into();
                return Ok(Task::Reply(Reply::Ring { index, number }));
            }
            _ => unreachable!("messages about rings only"),
        }
        Ok(Task::Done)
    }

    fn ring_mut(&mut self, index: u32) -> Result<&mut Ring<F>, Violation> {
        let ring = self.rings.get_mut(index as usize);
        ring.ok_or(Violation::NoSuchRing(index))
    }

    fn stopped_ring(&mut self, index: u32) -> Result<&mut Ring<F>, Violation> {
        let ring = self.ring_mut(index)?;
        match ring.runs {
            true => Err(Violation::RingRuns(index)),
            false => Ok(ring),
        }
    }

    fn check_inflight(&self, queues: u16, size: u16) -> Result<(), Violation> {
        let right = queues > 0
            && usize::from(queues) <= self.rings.len()
            && size.is_power_of_two()
            && u32::from(size) <= RING_MAX;
        match right {
            true => Ok(()),
            false => Err(Violation::Inflight),
        }
    }

    pub fn ring(&self, index: u16) -> &Ring<F> {
        &self.rings[usize::from(index)]
    }

    /// The rings that run.
    pub fn running(&self) -> Vec<u16> {
        let rings = (0..).zip(&self.rings);
        rings
            .filter(|(_, ring)| ring.runs)
            .map(|(index, _)| index)
            .collect()
    }

    /// A ring that is to be started now.
    pub fn startable(&self) -> Option<u16> {
        self.features?;
        let ready = |ring: &Ring<F>| {
            !ring.runs && ring.size > 0 && ring.kick.is_some() && ring.address.is_some()
        };
        let place = self.rings.iter().position(ready)?;
        (!self.regions.is_empty()).then_some(place as u16)
    }

    /// A ring as it lies in the memory that there is now.
    pub fn plan(&self, index: u16) -> Result<Plan, Violation> {
        let ring = self.ring(index);
        let wrong = Violation::RingAddress(index.into());
        let address = ring.address.ok_or(wrong)?;
        let guest = |user: u64| self.guest_address(user).ok_or(wrong);
        Ok(Plan {
            size: ring.size,
            base: ring.base,
            descriptors: guest(address.descriptors)?,
            available: guest(address.available)?,
            used: guest(address.used)?,
            event_idx: self.has(VIRTIO_RING_F_EVENT_IDX),
            indirect: self.has(VIRTIO_RING_F_INDIRECT_DESC),
            log_used: address.log,
        })
    }

    /// The regions, as they were told.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    fn guest_address(&self, user: u64) -> Option<u64> {
        let in_it = |region: &&Region| (region.user..region.user + region.len).contains(&user);
        let region = self.regions.iter().find(in_it)?;
        Some(region.guest + (user - region.user))
    }

    /// A ring was started. Where the front end does not enable rings itself, it is enabled.
    pub fn started(&mut self, index: u16) {
        let enables = self.has(30); // VHOST_USER_F_PROTOCOL_FEATURES
        let ring = &mut self.rings[usize::from(index)];
        ring.runs = true;
        ring.enabled |= !enables;
    }

    /// A ring was stopped at this index, and waits for another kick.
    pub fn stopped(&mut self, index: u16, base: u16) {
        let ring = &mut self.rings[usize::from(index)];
        (ring.runs, ring.base, ring.kick) = (false, base, None);
    }

    /// A ring rests at this index, to go on from there in another process: it keeps its kick.
    pub fn rested(&mut self, index: u16, base: u16) {
        let ring = &mut self.rings[usize::from(index)];
        (ring.runs, ring.base) = (false, base);
    }
}

fn check_regions(regions: &[Region]) -> Result<(), Violation> {
    if regions.len() > SLOTS {
        return Err(Violation::Memory);
    }
    let disjoint = |of: fn(&Region) -> u64| {
        let mut ends: Vec<(u64, u64)> = regions.iter().map(|r| (of(r), of(r) + r.len)).collect();
        ends.sort_unstable();
        ends.windows(2).all(|pair| pair[0].1 <= pair[1].0)
    };
    match disjoint(|region| region.guest) && disjoint(|region| region.user) {
        true => Ok(()),
        false => Err(Violation::Memory),
    }
}
