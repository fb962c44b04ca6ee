//! Writes of zeroes that must stay allocated (NBD's NO_HOLE): carried out as writes, a piece at a time.

use super::*;

impl Clients {
    pub(super) fn begin_zeroes(
        &mut self,
        key: u32,
        command: Command,
        begun: Time,
        desk: &mut Desk,
    ) {
        let job = self.connections[key].add_zero_job(ZeroJob {
            slot: command.slot,
            at: command.offset,
            end: command.offset + command.len,
            begun,
        });
        self.continue_zeroes(key, job, desk);
    }

    /// Submits the next piece of a job, or has it wait for payload memory.
    pub(super) fn continue_zeroes(&mut self, key: u32, job: u32, desk: &mut Desk) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (Some(zeroes), Some(volume)) = (connection.zero_jobs[job as usize], connection.volume)
        else {
            return;
        };
        if connection.life == Life::Gone {
            connection.zero_jobs[job as usize] = None;
            return self.touch(key);
        }
        let piece = (ZERO_PIECE - zeroes.at % ZERO_PIECE).min(zeroes.end - zeroes.at);
        let blocks = Request::buffer_blocks(RequestKind::Write, zeroes.at, piece) as u32;
        let Some(buf) = desk.allocate(blocks) else {
            return self.hungry.push_back(Hungry::Job(key, job));
        };
        desk.buffers
            .arena()
            .zero_blocks(BufRef { id: buf, block: 0 }, blocks);
        let wanted = Wanted {
            owner: Owner::Zeroing {
                connection: key,
                job,
            },
            volume,
            kind: RequestKind::Write,
            offset: zeroes.at,
            len: piece,
            buf: Some(buf),
            begun: zeroes.begun,
        };
        match desk.submit(wanted) {
            Ok(()) => connection.in_machine += 1,
            Err(error) => {
                desk.release(buf, 1);
                self.end_zeroes(key, job, Err(error), desk);
            }
        }
    }

    /// The machine answered a piece.
    pub fn zeroed(
        &mut self,
        key: u32,
        job: u32,
        pending: &Pending,
        result: Result<(), IoError>,
        desk: &mut Desk,
    ) {
        pending.buf.into_iter().for_each(|buf| desk.release(buf, 1));
        let connection = &mut self.connections[key];
        connection.in_machine -= 1;
        let Some(zeroes) = &mut connection.zero_jobs[job as usize] else {
            unreachable!("a job ends after its last piece");
        };
        zeroes.at += pending.len;
        zeroes.begun = desk.now;
        match (result, zeroes.at == zeroes.end) {
            (Ok(()), false) => self.continue_zeroes(key, job, desk),
            _ => self.end_zeroes(key, job, result, desk),
        }
    }

    fn end_zeroes(&mut self, key: u32, job: u32, result: Result<(), IoError>, desk: &mut Desk) {
        self.touch(key);
        let connection = &mut self.connections[key];
        let ended = connection.zero_jobs[job as usize].take();
        let (Some(ended), true) = (ended, connection.life != Life::Gone) else {
            return;
        };
        if let Err(error) = result
            && connection.hides(error)
        {
            return self.lose(key, desk);
        }
        let pool = &mut self.messages;
        let message = connection
            .gathered
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        connection
            .session
            .reply(ended.slot, result, &[], message.bytes());
        if result.is_ok() {
            // As its pieces were.
            connection.replies.add(Operation::Write, desk.now);
        }
        if connection.stall == Some(Stall::Full) {
            connection.stall = None;
        }
    }
}
