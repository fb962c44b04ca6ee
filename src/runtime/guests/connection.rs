//! One front end's connection: carries out what its session says.

use super::super::handle::Handle;
use super::super::mailbox::Mail;
use super::queue::{Name, Start};
use super::table::{Entry, GuestState};
use super::{AGAIN, Change, GuestMail, Stop, park};
use crate::base::VolumeId;
use crate::frontend::vhost_user::{
    Device, Disk, HEADER, Header, Inflight, InflightArea, Message, Region, Reply, Session, Task,
    Told, Violation, Vring, config_change,
};
use crate::io::{self, DirtyLog, FdStream, GuestMemory, SharedMap, Span, Until, wait};
use crate::shard::ShardNo;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use tokio::sync::oneshot;

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// The front end closed it.
    Gone,
    /// The guest is to end, or the node stops.
    Told,
    /// It is to be handed to the next process, and no message is half read.
    HandsOver,
    Violation(Violation),
    System(std::io::Error),
    Refused(String),
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Ended {
        Ended::Violation(violation)
    }
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Ended {
        Ended::System(error)
    }
}

/// A queue that runs on a shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub shard: ShardNo,
    pub key: u32,
}

/// The attachment that a connection counts as.
struct Attachment<'a>(&'a Handle, VolumeId);

impl Drop for Attachment<'_> {
    fn drop(&mut self) {
        self.0.shared.attachments.give_back(self.1);
    }
}

pub struct Connection<'a> {
    handle: &'a Handle,
    pub(super) entry: &'a Entry,
    pub(super) stream: FdStream,
    pub(super) session: Session<OwnedFd>,
    disk: Disk,
    /// By index, where it runs.
    pub(super) running: Vec<Option<Running>>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) log: Option<DirtyLog>,
    pub(super) inflight: Option<(InflightArea, SharedMap)>,
    /// Where changes of the configuration are told, and whether one is to be.
    pub(super) channel: Option<FdStream>,
    pub(super) changed: bool,
    /// Whether a message was begun and is not carried out.
    is_in_message: bool,
    _attachment: Attachment<'a>,
}

impl<'a> Connection<'a> {
    /// Takes a new front end, or says why it is not served.
    pub fn begin(
        handle: &'a Handle,
        entry: &'a Entry,
        stream: FdStream,
    ) -> Result<Connection<'a>, String> {
        let volume = entry.volume;
        // Counted before it is looked at: a volume that is to be deleted is refused first, and then counted.
        handle.shared.attachments.take(volume);
        let attachment = Attachment(handle, volume);
        let export = handle.shared.guests.export(volume);
        let export = export.ok_or("its volume is not there")?;
        if let Some(why) = export.refused {
            return Err(why);
        }
        if !entry.advance(GuestState::Connected) {
            return Err("it is being ended".to_owned());
        }
        let mut disk = Disk {
            block_size: export.block_size,
            read_only: export.read_only,
            id: Default::default(),
        };
        let name = format!("{:x}", volume.0).into_bytes();
        let len = name.len().min(disk.id.len());
        disk.id[..len].copy_from_slice(&name[..len]);
        let device = Device::new(
            export.size,
            export.block_size,
            export.read_only,
            entry.queues,
        );
        Ok(Connection {
            handle,
            entry,
            stream,
            session: Session::new(volume, device),
            disk,
            running: vec![None; usize::from(entry.queues)],
            memory: Arc::default(),
            log: None,
            inflight: None,
            channel: None,
            changed: false,
            is_in_message: false,
            _attachment: attachment,
        })
    }

    /// Serves it to its end, from where another process left it if it did. Nothing of it is on any shard then.
    pub fn serve(mut self, handed: Option<(u64, Vec<Told<OwnedFd>>)>) -> Ended {
        let mut so_far = match handed {
            Some((size, told)) => self.take_over(size, told),
            None => Ok(()),
        };
        let ended = loop {
            match so_far {
                Ok(()) => so_far = self.turn(),
                Err(ended) => break ended,
            }
        };
        if matches!(ended, Ended::HandsOver) {
            return self.hand_over();
        }
        match self.stop_all() {
            Ok(()) => ended,
            Err(_) => Ended::Told, // the shards have gone
        }
    }

    /// Goes on where another process stopped: with the session that these messages tell, whose driver knows this size.
    fn take_over(&mut self, size: u64, told: Vec<Told<OwnedFd>>) -> Result<(), Ended> {
        for told in told {
            let task = self.session.take(told.read()?)?;
            // What there is to answer was answered at its time.
            let (_, _, done) = self.carry_out(task)?;
            if !done {
                return Err(Ended::Refused("it could not be taken over".into()));
            }
        }
        self.changed = self.channel.is_some() && size != self.session.device.size;
        if self.changed {
            self.tell_change();
        }
        self.start_rings()
    }

    /// Takes the next message and does what it asks for.
    fn turn(&mut self) -> Result<(), Ended> {
        if self.entry.hands_over() {
            return Err(Ended::HandsOver);
        }
        self.message()?;
        self.is_in_message = false;
        Ok(())
    }

    fn message(&mut self) -> Result<(), Ended> {
        let mut files = Vec::new();
        let mut head = [0; HEADER];
        self.receive(&mut head, &mut files)?;
        let header = Header::parse(&head)?;
        let mut body = vec![0; header.size as usize]; // bounded by the header's check
        self.receive(&mut body, &mut files)?;
        let message = Message::read(&header, &body, files)?;
        let task = self.session.take(message)?;
        let (reply, file, done) = self.carry_out(task)?;
        if let Some(bytes) = self.session.answer(&header, reply, done)? {
            self.send(&bytes, file)?;
        }
        self.start_rings()
    }

    /// Receives all of `into`, and meanwhile does whatever else there is.
    fn receive(&mut self, into: &mut [u8], files: &mut Vec<OwnedFd>) -> Result<(), Ended> {
        let mut done = 0;
        while done < into.len() {
            match self.stream.receive(&mut into[done..], files)? {
                Some(0) => return Err(Ended::Gone),
                Some(bytes) => (done, self.is_in_message) = (done + bytes, true),
                None => self.sleep(Until::Readable)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8], file: Option<OwnedFd>) -> Result<(), Ended> {
        let mut file = file.as_ref().map(AsFd::as_fd);
        while !bytes.is_empty() {
            match self.stream.send(bytes, file) {
                Ok(Some(sent)) => (bytes, file) = (&bytes[sent..], None),
                Ok(None) => self.sleep(Until::Writable)?,
                // It has gone: the rest of what it said is of no use.
                Err(_) => return Err(Ended::Gone),
            }
        }
        Ok(())
    }

    /// Sleeps until the front end can be heard or spoken to, or something else is to be done, and does that.
    fn sleep(&mut self, until: Until) -> Result<(), Ended> {
        let mut on = vec![
            (self.entry.nudge().fd(), Until::Readable),
            (self.stream.as_fd(), until),
        ];
        if let Some(channel) = &self.channel {
            let until = match self.changed {
                true => Until::Writable,
                false => Until::Hangup,
            };
            on.push((channel.as_fd(), until));
        }
        let ready = wait(&on, None)?;
        if ready & 1 != 0 {
            self.entry.nudge().heard();
            self.look_around()?;
        }
        if ready & 4 != 0 {
            self.tell_change();
        }
        Ok(())
    }

    /// Looks at what may have changed outside.
    fn look_around(&mut self) -> Result<(), Ended> {
        if self.entry.is_to_end() {
            return Err(Ended::Told);
        }
        if self.entry.hands_over() && !self.is_in_message {
            return Err(Ended::HandsOver);
        }
        let export = self.handle.shared.guests.export(self.entry.volume);
        let Some(export) = export else {
            return Err(Ended::Refused("its volume is not there any more".into()));
        };
        if export.size != self.session.device.size {
            self.session.device.size = export.size;
            self.changed = self.channel.is_some();
            self.tell_change();
        }
        self.start_rings() // another guest may have given the volume up
    }

    /// Tells the front end that its configuration has changed, where it can be told at once.
    fn tell_change(&mut self) {
        let Some(channel) = &self.channel else { return };
        if !self.changed {
            self.channel = None; // the front end closed it
            return;
        }
        match channel.send(&config_change(), None) {
            Ok(None) => {}
            Ok(Some(_)) => self.changed = false,
            Err(_) => (self.channel, self.changed) = (None, false),
        }
    }

    /// Does what a message asks for: what it is to be answered with, a file that goes with it, and whether it was done.
    fn carry_out(
        &mut self,
        task: Task<OwnedFd>,
    ) -> Result<(Option<Reply>, Option<OwnedFd>, bool), Ended> {
        let done = match task {
            Task::Done => true,
            Task::Reply(reply) => return Ok((Some(reply), None, true)),
            Task::SetMemory(regions) => {
                let maps = regions.into_iter().map(map).collect();
                self.change_memory(maps)?
            }
            Task::AddMemory(region, file) => {
                let mut maps = self.maps();
                maps.push(map((region, file)));
                self.change_memory(maps.into_iter().collect())?
            }
            Task::RemoveMemory(region) => {
                let mut maps = self.maps();
                maps.retain(|part| part.as_ref().is_ok_and(|(guest, _)| *guest != region.guest));
                self.change_memory(maps.into_iter().collect())?
            }
            Task::SetLog { len, offset, file } => {
                let log = DirtyLog::new(SharedMap::new(file, offset, len)?);
                let before = self.log.replace(log);
                self.set_logs(None)?;
                drop(before); // here, not on a shard
                return Ok((Some(Reply::Number(0)), None, true));
            }
            Task::Logging(ring) => {
                self.set_logs(ring)?;
                true
            }
            Task::Stop(index) => {
                let base = self.stop_whole(index)?;
                self.settle_claim();
                let reply = Reply::Ring {
                    index: index.into(),
                    number: base.into(),
                };
                return Ok((Some(reply), None, true));
            }
            Task::StopAll => {
                self.stop_all()?;
                true
            }
            Task::Signals(index) => {
                let ring = self.session.ring(index);
                let (call, error) = (copy(ring.call())?, copy(ring.error())?);
                self.check_events([&call, &error])?;
                self.change(index, Change::Signals { call, error })?;
                true
            }
            Task::Enable(index, on) => {
                self.change(index, Change::Enable(on))?;
                true
            }
            Task::Channel(file) => {
                self.channel = Some(FdStream::new(file));
                true
            }
            Task::MakeInflight(area) => {
                let (map, file) = SharedMap::create("sarsen-inflight", area.len)?;
                drop(map);
                let InflightArea {
                    queues, size, len, ..
                } = area;
                let reply = Reply::Inflight { queues, size, len };
                return Ok((Some(reply), Some(file), true));
            }
            Task::SetInflight(area, file) => {
                self.inflight = Some((area, SharedMap::new(file, area.offset, area.len)?));
                true
            }
        };
        Ok((None, None, done))
    }

    /// The memory that there is, to be changed.
    fn maps(&self) -> Vec<std::io::Result<(u64, Arc<SharedMap>)>> {
        self.memory.parts().iter().cloned().map(Ok).collect()
    }

    /// Gives all queues other memory. When it returns nothing works on what was before. False where it cannot be mapped.
    fn change_memory(
        &mut self,
        maps: std::io::Result<Vec<(u64, Arc<SharedMap>)>>,
    ) -> Result<bool, Ended> {
        let memory = match maps.and_then(GuestMemory::new) {
            Ok(memory) => Arc::new(memory),
            Err(error) => {
                // Its session has it already, so nothing that runs could go on in it.
                tracing::warn!(guest = self.entry.key, %error, "memory of a guest was not mapped");
                self.stop_all()?;
                return Err(Ended::System(error));
            }
        };
        let mut waiting = Vec::new();
        for index in self.session.running() {
            let plan = match self.session.plan(index) {
                Ok(plan) => plan,
                Err(violation) => {
                    // The ring's own place went: it is at rest before that is said.
                    self.stop_all()?;
                    return Err(violation.into());
                }
            };
            waiting.push((index, plan));
        }
        for (index, plan) in waiting {
            self.change(index, Change::Memory(Arc::clone(&memory), plan))?;
        }
        self.memory = memory;
        Ok(true)
    }

    /// Has a ring or all of them log what they write, or not.
    fn set_logs(&mut self, only: Option<u16>) -> Result<(), Ended> {
        let log = self.log.clone().filter(|_| self.session.logs());
        for index in self.session.running() {
            if only.is_none_or(|only| only == index) {
                let used = self.session.plan(index)?.log_used;
                self.change(index, Change::Log(log.clone(), used))?;
            }
        }
        Ok(())
    }

    /// Starts what rings are ready, where no other guest has the volume.
    fn start_rings(&mut self) -> Result<(), Ended> {
        while let Some(index) = self.session.startable() {
            let table = &self.handle.shared.guests;
            if !table.claim(self.entry.volume, self.entry.key) {
                return Ok(()); // with the nudge that comes when it is given up
            }
            if !self.entry.advance(GuestState::Running) {
                return Err(Ended::Told);
            }
            self.start(index)?;
        }
        Ok(())
    }

    fn start(&mut self, index: u16) -> Result<(), Ended> {
        let plan = self.session.plan(index)?;
        self.session.started(index);
        let name = Name {
            guest: self.entry.key,
            index,
        };
        let inflight = match &self.inflight {
            Some((area, map)) if index < area.queues => {
                let region = Span::of(map);
                let found = Inflight::open(&region, index, area.queues, plan.size);
                Some(found.ok_or(Violation::Inflight)?)
            }
            _ => None,
        };
        let log_used = plan.log_used;
        let mut vring = Vring::start(plan, inflight, &self.memory).map_err(|broken| {
            tracing::warn!(queue = %name, "a guest's queue does not start: {broken}");
            Violation::RingAddress(index.into())
        })?;
        let log = self.log.clone().filter(|_| self.session.logs());
        vring.set_log(log, log_used);
        let ring = self.session.ring(index);
        let (call, error) = (copy(ring.call())?, copy(ring.error())?);
        let kick = copy(ring.kick())?.ok_or(Violation::NoKick(index.into()))?;
        if !io::is_eventfd(&kick) {
            return Err(Violation::NoKick(index.into()).into());
        }
        self.check_events([&call, &error])?;
        let start = Start {
            name,
            volume: self.entry.volume,
            disk: self.disk,
            vring,
            memory: Arc::clone(&self.memory),
            kick,
            call_may_wait: call.as_ref().is_some_and(io::may_wait),
            call,
            error,
            is_enabled: ring.is_enabled(),
        };
        let shard = self.shard_of(index);
        let queue = Box::new(start);
        let key = self.ask(shard, |done| GuestMail::Start { queue, done })?;
        let Some(key) = key else {
            let text = "a shard took no more queues: see RLIMIT_NOFILE";
            return Err(Ended::System(std::io::Error::other(text)));
        };
        self.running[usize::from(index)] = Some(Running { shard, key });
        tracing::debug!(queue = %name, shard = shard.0, "a guest's queue runs");
        Ok(())
    }

    /// A shard writes to what the front end sent: only to eventfds, which cannot make it wait.
    fn check_events(&self, files: [&Option<OwnedFd>; 2]) -> Result<(), Ended> {
        match files.into_iter().flatten().all(io::is_eventfd) {
            true => Ok(()),
            false => Err(Ended::System(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "a ring's call or error file is no eventfd",
            ))),
        }
    }

    /// Queues go in turn to the shards that have a part of the volume, so that requests need not go to another one; guests
    /// begin at different ones.
    fn shard_of(&self, index: u16) -> ShardNo {
        let places = &self.handle.shared.places;
        let shards = places.shards_of(self.entry.volume);
        let shards = shards.filter(|shards| !shards.is_empty());
        let shards = shards.unwrap_or_else(|| self.handle.all());
        let turn = self.entry.key.wrapping_add(index.into());
        shards[(turn % shards.len() as u64) as usize]
    }

    pub(super) fn change(&self, index: u16, change: Change) -> Result<(), Ended> {
        let Some(Running { shard, key }) = self.running[usize::from(index)] else {
            return Ok(());
        };
        self.ask(shard, |done| GuestMail::Change { key, change, done })
    }

    /// Stops a ring when everything that was taken from it is given back, and says at which index: its front end may take it
    /// to another host, without its in-flight region. Where its volume is closed that takes until it is open.
    fn stop_whole(&mut self, index: u16) -> Result<u16, Ended> {
        let base = match self.running[usize::from(index)] {
            Some(at) => loop {
                if let Some(base) = self.try_stop(at, true)? {
                    break base;
                }
                if self.entry.is_to_end() {
                    return Err(Ended::Told);
                }
                std::thread::sleep(AGAIN);
            },
            None => 0, // it did not get as far as its shard
        };
        self.running[usize::from(index)] = None;
        self.session.stopped(index, base);
        Ok(base)
    }

    pub(super) fn stop_all(&mut self) -> Result<(), Ended> {
        for index in self.session.running() {
            let base = match self.running[usize::from(index)].take() {
                Some(at) => self.stop_now(at)?,
                None => 0, // it did not get as far as its shard
            };
            self.session.stopped(index, base);
        }
        self.settle_claim();
        Ok(())
    }

    /// Stops a queue when nothing of it is in flight, and says at which index.
    pub(super) fn stop_now(&self, at: Running) -> Result<u16, Ended> {
        self.try_stop(at, false)?.ok_or(Ended::Told)
    }

    fn try_stop(&self, at: Running, whole: bool) -> Result<Option<u16>, Ended> {
        self.ask(at.shard, |done| GuestMail::Stop {
            key: at.key,
            stop: Stop { whole, done },
        })
    }

    /// Gives the volume up where no ring runs any more.
    fn settle_claim(&self) {
        if self.session.running().is_empty() {
            let table = &self.handle.shared.guests;
            table.give_up(self.entry.volume, self.entry.key);
            self.entry.advance(GuestState::Connected);
        }
    }

    pub(super) fn ask<T>(
        &self,
        shard: ShardNo,
        mail: impl FnOnce(oneshot::Sender<T>) -> GuestMail,
    ) -> Result<T, Ended> {
        let mail = |done| Mail::Guest(mail(done));
        let answer = park::wait(self.handle.ask_shard(shard, mail));
        answer.map_err(|_| Ended::Told)
    }
}

fn copy(file: Option<&OwnedFd>) -> std::io::Result<Option<OwnedFd>> {
    file.map(OwnedFd::try_clone).transpose()
}

fn map((region, file): (Region, OwnedFd)) -> std::io::Result<(u64, Arc<SharedMap>)> {
    let map = SharedMap::new(file, region.offset, region.len)?;
    Ok((region.guest, Arc::new(map)))
}
