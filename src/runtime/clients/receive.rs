//! From the socket to the machine.

use super::*;

impl Clients {
    /// A receive has ended.
    pub fn received(&mut self, key: u32, done: Completion, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        let into = std::mem::replace(&mut connection.receiving, Receiving::No);
        connection.more_to_come = done.socket_has_more();
        self.touch(key);
        match (done.outcome(), done.provided()) {
            (Ok(0), None) => self.lose(key, desk),
            (Ok(len), Some(buffer)) => {
                let lent = desk.ring.lent(buffer, len);
                let memory = Arc::clone(desk.buffers.arena());
                self.offer(key, memory.lent(&lent), desk);
                desk.ring.provide_again(lent);
            }
            (Ok(len), None) => {
                debug_assert_eq!(into, Receiving::Payload);
                self.fill(key, len, desk);
            }
            (Err(error), buffer) => {
                if let Some(buffer) = buffer {
                    let lent = desk.ring.lent(buffer, 0);
                    desk.ring.provide_again(lent);
                }
                match error.raw_os_error() {
                    // All provided buffers were in use: there is something to receive.
                    Some(libc::ENOBUFS) => self.connections[key].more_to_come = true,
                    Some(libc::EINTR | libc::EAGAIN) => {}
                    _ => self.lose(key, desk),
                }
            }
        }
    }

    /// Gives received bytes to the session; what it cannot take now is kept.
    pub(super) fn offer(&mut self, key: u32, input: &[u8], desk: &mut Desk) {
        let taken = self.take(key, input, desk);
        let connection = &mut self.connections[key];
        if connection.life == Life::Serving {
            connection.rest.extend_from_slice(&input[taken..]);
        }
    }

    /// Does what the bytes of a client say, as far as that goes now. How many were taken.
    fn take(&mut self, key: u32, input: &[u8], desk: &mut Desk) -> usize {
        let mut left = input;
        loop {
            let connection = &mut self.connections[key];
            if connection.life != Life::Serving || connection.stall.is_some() {
                break;
            }
            if let Some(incoming) = &mut connection.incoming {
                if left.is_empty() {
                    break;
                }
                let here = left.len().min(incoming.left() as usize);
                let (data, behind) = left.split_at(here);
                let skip = incoming.skip() as usize;
                desk.buffers.arena().copy_in(incoming.at(), skip, data);
                left = behind;
                self.fill(key, here as u32, desk);
                continue;
            }
            if connection.unsent() >= UNSENT {
                connection.stall = Some(Stall::Output);
                break;
            }
            let pool = &mut self.messages;
            let message = connection
                .gathered
                .get_or_insert_with(|| pool.pop().unwrap_or_default());
            let (taken, event) = connection.session.receive(left, message.bytes());
            left = &left[taken..];
            if !self.obey(key, event, desk) {
                break;
            }
        }
        input.len() - left.len()
    }

    /// Does what a session says. False where nothing more can be taken now.
    fn obey(&mut self, key: u32, event: Event, desk: &mut Desk) -> bool {
        match event {
            Event::Answered => return true,
            Event::Open(purpose) => {
                self.open(key, purpose, desk);
                return true;
            }
            Event::List => {
                self.list(key);
                return true;
            }
            Event::Command(command) => {
                self.command(key, command, desk.now, desk);
                return true;
            }
            // A lookup is answered at once or with a later table of exports, and a write's data goes to `incoming` before this is asked.
            Event::NeedMore | Event::Waiting | Event::Payload { .. } => {}
            Event::Full => self.connections[key].stall = Some(Stall::Full),
            Event::Disconnect => self.connections[key].life = Life::Ending,
            Event::Violation(violation) => {
                tracing::warn!(%violation, "an NBD client was cut off");
                self.connections[key].life = Life::Ending;
            }
        }
        false
    }

    /// Answers the lookup of an export; one that is away later.
    pub(super) fn open(&mut self, key: u32, purpose: Purpose, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        let name = connection.session.export_wanted();
        let found = match (name, self.exports.iter().count()) {
            ("", 1) => self.exports.iter().next(),
            _ => self.exports.by_name(name),
        };
        // Before anything is said or done about the volume.
        let visitor = connection.visitor.as_ref();
        let shut_out = visitor.zip(found);
        let shut_out = shut_out.and_then(|(visitor, export)| visitor.refused_by(&export.clients));
        if let (Some(visitor), Some(export), Some(why)) = (visitor, found, shut_out) {
            let (client, volume) = (&visitor.client, &export.name);
            tracing::warn!(client, volume, why, "an NBD client was refused a volume");
        }
        if let (Purpose::Attach, Some(export), None) = (purpose, found, shut_out)
            && export.is_away
            && export.refused.is_none()
        {
            self.wanted.push(export.volume);
            return self.waiting.push(key);
        }
        let result = match found {
            None => Err(Refusal::Unknown),
            Some(_) if shut_out.is_some() => Err(Refusal::Policy(shut_out.unwrap_or_default())),
            Some(export) => match &export.refused {
                Some(reason) => Err(Refusal::Policy(reason)),
                None => Ok(ExportInfo {
                    volume: export.volume,
                    size: export.size,
                    block_size: export.block_size,
                    read_only: export.read_only,
                    description: "",
                }),
            },
        };
        if let (Purpose::Attach, Ok(info)) = (purpose, &result) {
            desk.shared.attachments.take(info.volume);
            connection.volume = Some(info.volume);
            self.strangers -= 1;
        }
        let pool = &mut self.messages;
        let message = connection
            .gathered
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        connection.session.opened(result, message.bytes());
    }

    fn list(&mut self, key: u32) {
        let connection = &mut self.connections[key];
        let visitor = connection.visitor.as_ref();
        let known = |export: &&super::super::exports::Export| {
            visitor.is_none_or(|visitor| visitor.refused_by(&export.clients).is_none())
        };
        let names = self.exports.iter().filter(known);
        let names = names.map(|export| export.name.as_str());
        if let Some(message) = &mut connection.gathered {
            connection.session.listed(names, message.bytes());
        }
    }

    /// Begins a command, or has it wait for payload memory.
    pub(super) fn command(&mut self, key: u32, command: Command, begun: Time, desk: &mut Desk) {
        if command.zeroing == Zeroing::KeepAllocated {
            return self.begin_zeroes(key, command, begun, desk);
        }
        let blocks = blocks_of(&command);
        if blocks == 0 {
            return self.submit(key, command, None, begun, desk);
        }
        let Some(buf) = desk.allocate(blocks) else {
            if blocks > desk.buffers.largest() {
                return self.refuse(key, command.slot, IoError::Busy, desk);
            }
            self.connections[key].stall = Some(Stall::Memory(command, begun));
            self.hungry.push_back(Hungry::Command(key));
            return;
        };
        if !has_payload(&command) {
            return self.submit(key, command, Some(buf), begun, desk);
        }
        let filled = 0;
        self.connections[key].incoming = Some(Incoming {
            command,
            buf,
            filled,
            begun,
        });
    }

    /// So many bytes of the write's data are in its buffer.
    fn fill(&mut self, key: u32, bytes: u32, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        let Some(incoming) = &mut connection.incoming else {
            return; // the connection was lost meanwhile
        };
        incoming.filled += bytes;
        connection.session.payload_taken(bytes);
        if incoming.left() == 0 {
            let Incoming {
                command,
                buf,
                begun,
                ..
            } = *incoming;
            connection.incoming = None;
            self.submit(key, command, Some(buf), begun, desk);
        }
    }

    fn submit(
        &mut self,
        key: u32,
        command: Command,
        buf: Option<crate::base::BufId>,
        begun: Time,
        desk: &mut Desk,
    ) {
        let connection = &mut self.connections[key];
        let Some(volume) = connection.volume else {
            unreachable!("commands come after the handshake");
        };
        if connection.kernel.is_some() && desk.now.since(begun) > STALE {
            tracing::warn!(%volume, "a request of the kernel's nbd waited too long for memory");
            buf.into_iter().for_each(|buf| desk.release(buf, 1));
            return self.lose(key, desk);
        }
        let slot = command.slot;
        let wanted = Wanted {
            owner: Owner::Client {
                connection: key,
                slot,
            },
            volume,
            kind: command.kind,
            offset: command.offset,
            len: command.len,
            buf,
            begun,
        };
        match desk.submit(wanted) {
            Ok(()) => connection.in_machine += 1,
            Err(error) => {
                buf.into_iter().for_each(|buf| desk.release(buf, 1));
                self.refuse(key, slot, error, desk);
            }
        }
    }

    /// Fails a command without asking the machine.
    pub(super) fn refuse(&mut self, key: u32, slot: Slot, error: IoError, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        if connection.hides(error) {
            return self.lose(key, desk);
        }
        let pool = &mut self.messages;
        let message = connection
            .gathered
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        connection
            .session
            .reply(slot, Err(error), &[], message.bytes());
    }

    /// Whether clients wait for payload memory.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// Lets go on what waited for payload memory, as far as it reaches.
    pub fn feed(&mut self, desk: &mut Desk) {
        desk.memory_freed = false;
        for _ in 0..self.hungry.len() {
            let Some(hungry) = self.hungry.pop_front() else {
                return;
            };
            match hungry {
                Hungry::Job(key, job) => self.continue_zeroes(key, job, desk),
                Hungry::Command(key) => {
                    let Some(connection) = self.connections.get_mut(key) else {
                        continue;
                    };
                    let Some(Stall::Memory(command, begun)) = connection.stall else {
                        continue;
                    };
                    connection.stall = None;
                    self.touch(key);
                    self.command(key, command, begun, desk);
                }
            }
        }
    }
}
