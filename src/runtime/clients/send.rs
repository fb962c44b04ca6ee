//! From the machine to the socket.

use super::*;

impl Clients {
    /// The machine answered a command.
    pub fn reply(
        &mut self,
        key: u32,
        slot: Slot,
        pending: &Pending,
        result: Result<(), IoError>,
        map: &[MapRun],
        desk: &mut Desk,
    ) {
        self.touch(key);
        let connection = &mut self.connections[key];
        connection.in_machine -= 1;
        if let Err(error) = result
            && connection.hides(error)
        {
            pending.buf.into_iter().for_each(|buf| desk.release(buf, 1));
            return self.lose(key, desk);
        }
        let connection = &mut self.connections[key];
        let mut data = 0;
        if connection.life != Life::Gone {
            let pool = &mut self.messages;
            let message = connection
                .gathered
                .get_or_insert_with(|| pool.pop().unwrap_or_default());
            data = connection.session.reply(slot, result, map, message.bytes());
            if let (1.., Some(id)) = (data, pending.buf) {
                message.put_payload(Part {
                    at: BufRef { id, block: 0 },
                    skip: (pending.offset % BLOCK) as u32,
                    len: data,
                });
            }
            if let (Ok(()), Some(operation)) = (result, Operation::of(pending.kind)) {
                connection.replies.add(operation, desk.now);
            }
            if connection.stall == Some(Stall::Full) {
                connection.stall = None;
            }
        }
        if data == 0 {
            pending.buf.into_iter().for_each(|buf| desk.release(buf, 1));
        }
    }

    /// A message was sent, or could not be.
    pub fn sent(&mut self, key: u32, done: Completion, desk: &mut Desk) {
        self.touch(key);
        let now = desk.now;
        let connection = &mut self.connections[key];
        let number = connection.sending.take();
        let number = number.expect("a connection sends what completes");
        let mut message = desk.ring.sent(number);
        let whole = done
            .outcome()
            .is_ok_and(|bytes| u64::from(bytes) == message.len());
        message
            .drain_payloads()
            .for_each(|buf| desk.release(buf, 1));
        self.keep(message);
        let connection = &mut self.connections[key];
        connection.sending_bytes = 0;
        match connection.volume {
            Some(volume) if whole => {
                let stats = desk.stats_of(volume);
                connection.sending_replies.sent(now, stats);
            }
            _ => connection.sending_replies.forget(),
        }
        if connection.stall == Some(Stall::Output) {
            connection.stall = None;
        }
        if !whole {
            self.lose(key, desk);
        }
    }

    /// Keeps an empty message's memory for the next, unless one reply made it very large.
    pub(super) fn keep(&mut self, mut message: Message) {
        const LARGE: usize = 64 * 1024;
        if self.messages.len() < MESSAGES && message.bytes().capacity() <= LARGE {
            message.bytes().clear();
            self.messages.push(message);
        }
    }

    /// The client is gone: what was for it is dropped, what is in flight comes back.
    pub(super) fn lose(&mut self, key: u32, desk: &mut Desk) {
        let connection = &mut self.connections[key];
        if connection.life == Life::Gone {
            return;
        }
        connection.life = Life::Gone;
        connection.stall = None;
        connection.rest = Vec::new();
        connection.replies.forget();
        if let Some(incoming) = connection.incoming.take() {
            desk.release(incoming.buf, 1);
        }
        desk.ring.shutdown(connection.file); // ends what is received or sent at the moment
        if let Some(mut message) = connection.gathered.take() {
            message
                .drain_payloads()
                .for_each(|buf| desk.release(buf, 1));
            self.keep(message);
        }
        self.touch(key);
    }
}
