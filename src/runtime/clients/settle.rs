//! The end of a turn: every connection that something happened to sends what it has, receives again, or is
//! closed. And the sweep, now and then, over those to which nothing happens.

use super::*;

impl Clients {
    /// Settles all connections that something happened to.
    pub fn settle(&mut self, desk: &mut Desk) {
        // Settling one may touch it again, for the next turn.
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            self.connections[key].dirty = false;
            self.go_on(key, desk);
            self.send(key, desk);
            self.receive(key, desk);
            self.wake(key, desk.now);
            if self.connections[key].is_over() {
                self.close(key, desk);
            }
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Whether something waits for the next turn.
    pub fn is_unsettled(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes what was received earlier and could not be taken.
    fn go_on(&mut self, key: u32, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        if connection.stall.is_some() || connection.rest.is_empty() {
            return;
        }
        let mut rest = std::mem::take(&mut connection.rest);
        self.offer(key, &rest, desk);
        let connection = &mut self.connections[key];
        if connection.rest.is_empty() {
            rest.clear();
            connection.rest = rest; // its memory
        }
    }

    fn send(&mut self, key: u32, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        if connection.sending.is_some() {
            return;
        }
        let Some(message) = connection.gathered.take() else {
            return;
        };
        if message.is_empty() {
            return self.keep(message);
        }
        let bytes = message.len();
        match desk
            .ring
            .send(connection.file, message, Completed::Send(key).tag())
        {
            Ok(number) => {
                connection.sending = Some(number);
                connection.sending_bytes = bytes;
                // Those of the last message were counted when it was sent: this swaps in an empty list.
                std::mem::swap(&mut connection.replies, &mut connection.sending_replies);
            }
            Err((error, mut message)) => {
                tracing::error!(%error, "an NBD client was cut off");
                message
                    .drain_payloads()
                    .for_each(|buf| desk.release(buf, 1));
                self.lose(key, desk);
            }
        }
    }

    fn receive(&mut self, key: u32, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        let listens = connection.life == Life::Serving
            && connection.receiving == Receiving::No
            && connection.stall.is_none()
            && connection.rest.is_empty();
        if !listens {
            return;
        }
        let (file, tag) = (connection.file, Completed::Receive(key).tag());
        let pushed = match &connection.incoming {
            Some(incoming) if incoming.left() >= DIRECT => {
                connection.receiving = Receiving::Payload;
                let (at, skip, len) = (incoming.at(), incoming.skip(), incoming.left());
                desk.ring.receive_into(file, Part { at, skip, len }, tag)
            }
            _ => {
                connection.receiving = Receiving::Anything;
                let expect = match connection.more_to_come {
                    true => Expect::Now,
                    false => Expect::Later,
                };
                desk.ring.receive(file, expect, tag)
            }
        };
        if let Err(error) = pushed {
            tracing::error!(%error, "an NBD client was cut off");
            self.connections[key].receiving = Receiving::No;
            self.lose(key, desk);
        }
    }

    /// Notes that a connection is not at rest, so that a later sweep brings it there.
    fn wake(&mut self, key: u32, now: Time) {
        let connection = &mut self.connections[key];
        if !connection.awake {
            connection.awake = true;
            self.awake.push(key);
            self.sweep_by(now + SWEEP);
        }
        self.connections[key].since = self.connections[key].since.max(now);
    }

    fn close(&mut self, key: u32, desk: &mut Desk) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        desk.ring.drop_file(connection.file);
        match connection.volume {
            Some(volume) => desk.shared.attachments.give_back(volume),
            None => self.strangers -= 1,
        }
        self.awake.retain(|&other| other != key);
        self.waiting.retain(|&other| other != key);
        self.hungry.retain(|hungry| match *hungry {
            Hungry::Command(other) | Hungry::Job(other, _) => other != key,
        });
        if !self.deaf.is_empty() {
            self.sweep_by(desk.now); // there is a file for another client
        }
    }

    /// Brings quiet connections to rest, cuts off those whose handshake takes too long, and hears new ones.
    pub fn sweep(&mut self, desk: &mut Desk) {
        if self.sweep_at.is_none_or(|at| at > desk.now) {
            return;
        }
        self.sweep_at = None;
        self.rest(desk.now);
        if self.strangers > 0 {
            let slow = |c: &Connection| c.volume.is_none() && desk.now.since(c.begun) > HANDSHAKE;
            let slow: Vec<u32> = self
                .connections
                .iter()
                .filter(|(_, c)| slow(c))
                .map(|(key, _)| key)
                .collect();
            for key in slow {
                tracing::warn!("an NBD client was cut off in a slow handshake");
                self.lose(key, desk);
            }
            self.sweep_by(desk.now + SWEEP);
        }
        for listener in std::mem::take(&mut self.deaf) {
            let tag = Completed::Accept(listener).tag();
            if desk
                .ring
                .accept(self.listeners[listener as usize], tag)
                .is_err()
            {
                self.deaf.push(listener);
                self.sweep_by(desk.now + SWEEP);
            }
        }
    }

    fn rest(&mut self, now: Time) {
        let mut awake = std::mem::take(&mut self.awake);
        awake.retain(|&key| {
            let connection = &mut self.connections[key];
            let quiet = connection.in_machine == 0
                && connection.sending.is_none()
                && now.since(connection.since) >= SWEEP / 2;
            if quiet {
                connection.rest_now();
                connection.awake = false;
            }
            !quiet
        });
        self.awake = awake;
        if !self.awake.is_empty() {
            self.sweep_by(now + SWEEP);
        }
    }
}
