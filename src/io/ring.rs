//! One thread's io_uring: what is to be done is gathered, and one system call a turn submits it and brings
//! what has ended.
//!
//! Memory: operations name memory of the [`Arena`] only (or a [`Message`] that the ring keeps until it is
//! sent), so nothing that an operation in flight points to can go away. Lists of pieces (`iovec`,
//! `msghdr`) need to live only until the kernel has taken the submission (IORING_FEAT_SUBMIT_STABLE); they
//! lie in `scratch`, which is used again after each turn.
//!
//! Files: the ring owns every file that it works on and registers it where there is room, which saves looking
//! it up at each operation. An operation that is in flight when its file is dropped ends by itself.

use super::arena::{Arena, Part};
use super::buffers::Buffers;
use super::message::Message;
use super::provided::Provided;
use super::scratch::Scratch;
use crate::base::{BufRef, Slab};
use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use nix::sys::socket::MsgFlags;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Submissions that fit one turn; more are submitted early.
const SUBMISSIONS: u32 = 2048;
/// Submissions that are worth a system call in the middle of a turn.
const EARLY: usize = 4;
/// The same in bytes to be moved.
const EARLY_BYTES: u64 = 256 * 1024;
/// How long a ring that ends waits for something to end that was called off.
const CALLED_OFF_WITHIN: Duration = Duration::from_millis(5);
/// Completions that the kernel has room for before it must keep them aside.
const COMPLETIONS: u32 = 8192;
/// Files that are registered at most.
const FILES: u32 = 4096;
/// The kernel's bound on one registered buffer, in bytes.
const REGISTERED_BYTES: usize = 1 << 30;
/// Pieces of one gathering operation (UIO_MAXIOV).
pub const PIECES: usize = 1024;

/// A file that the ring owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(u32);

#[cfg(test)]
impl FileNo {
    /// A file that is never used.
    pub fn for_test() -> FileNo {
        FileNo(u32::MAX)
    }
}

/// A message that the ring is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendNo(u32);

/// The caller's name for an operation; comes back with its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// Tags that the ring keeps for itself: completions nobody waits for.
const IGNORED: u64 = u64::MAX;
/// The same of operations that complete only where they fail.
const UNCOUNTED: u64 = u64::MAX - 1;

/// An operation that ended, or a part of one that goes on.
#[derive(Debug)]
pub struct Completion {
    pub tag: Tag,
    /// What the system call would have returned: bytes, a file descriptor, or the negative of an errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether more completions follow under the same tag.
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Whether the socket had more than was received.
    pub fn socket_has_more(&self) -> bool {
        cqueue::sock_nonempty(self.flags)
    }

    /// The provided buffer that this received into.
    pub fn provided(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }

    /// The socket that an accept brought.
    pub fn into_socket(self) -> io::Result<OwnedFd> {
        self.outcome()?;
        // SAFETY: the kernel made this descriptor for an accept just now; nobody else knows it, and the
        // completion that named it is gone.
        Ok(unsafe { OwnedFd::from_raw_fd(self.result) })
    }

    /// Bytes, or the error.
    pub fn outcome(&self) -> io::Result<u32> {
        match u32::try_from(self.result) {
            Ok(bytes) => Ok(bytes),
            Err(_) => Err(io::Error::from_raw_os_error(-self.result)),
        }
    }
}

/// A provided buffer with what was received; see [`Arena::lent`].
#[derive(Debug)]
pub struct Lent {
    buffer: u16,
    pub(super) part: Part,
}

/// How long a turn may wait for completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    No,
    AtMost(Duration),
    Forever,
}

/// How a receive begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// There is something in the socket: try at once.
    Now,
    /// There is nothing in the socket yet: wait first, and save the try.
    Later,
}

#[derive(Debug)]
struct OpenFile {
    file: OwnedFd,
    registered: bool,
}

/// How an operation names its file.
enum Target {
    Registered(Fixed),
    Plain(Fd),
}

/// The entry that `$build` makes for a file, registered or not.
macro_rules! entry {
    ($ring:expr, $file:expr, $fd:ident => $build:expr) => {
        match $ring.target($file) {
            Target::Registered($fd) => $build,
            Target::Plain($fd) => $build,
        }
    };
}

/// A ring of this thread. Must be used on the thread that made it.
pub struct Ring {
    uring: IoUring,
    arena: Arc<Arena>,
    registered: bool,
    /// Whether the kernel gathers from registered memory.
    gathers: bool,
    files: Slab<OpenFile>,
    files_registered: bool,
    messages: Slab<Message>,
    provided: Provided,
    scratch: Scratch,
    /// Bytes that what was pushed since the last system call is to move.
    waiting_bytes: u64,
    /// Operations pushed and not ended.
    in_flight: u64,
    /// System calls made, for the turn's cost to be seen.
    calls: u64,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Ring");
        text.field("registered", &self.registered);
        text.field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring for this thread. Takes 2 MiB of payload memory for receiving, for as long as the arena lives. Payload memory is
    /// registered by [`Ring::register_memory`].
    pub fn new(buffers: &mut Buffers) -> io::Result<Ring> {
        super::kernel::check()?;
        let arena = Arc::clone(buffers.arena());
        let provided = buffers
            .allocate(Provided::BLOCKS)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let provided = BufRef {
            id: provided,
            block: 0,
        };
        let uring = build().map_err(super::kernel::explain)?;
        let files_registered = super::kernel::lets_go_of_files()
            && uring.submitter().register_files_sparse(FILES).is_ok();
        let mut probe = Probe::new();
        let probed = uring.submitter().register_probe(&mut probe).is_ok();
        let gathers = probed && probe.is_supported(opcode::WritevFixed::CODE);
        let provided = Provided::register(&uring, &arena, provided)?;
        Ok(Ring {
            uring,
            arena,
            registered: false,
            gathers,
            files: Slab::new(1 << 20),
            files_registered,
            messages: Slab::new(1 << 20),
            provided,
            scratch: Scratch::new(),
            waiting_bytes: 0,
            in_flight: 0,
            calls: 0,
        })
    }

    /// Registers the payload memory, where RLIMIT_MEMLOCK allows it; without, each operation costs a little more. Takes as
    /// long as the kernel needs to make the memory, which [`Arena::make`] has done before.
    pub fn register_memory(&mut self) -> bool {
        self.registered = self.registered || register(&self.uring, &self.arena).is_ok();
        self.registered
    }

    /// Another descriptor of the ring. The kernel ends what is in flight when the last one is closed.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open for as long as the ring lives.
        let fd = unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) };
        fd.try_clone_to_owned()
    }

    /// System calls made so far.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Operations that have not ended.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Takes a file into the ring.
    pub fn adopt(&mut self, file: OwnedFd) -> io::Result<FileNo> {
        let raw = file.as_raw_fd();
        let registered = false;
        let full = |_| io::Error::from_raw_os_error(libc::ENFILE);
        let key = self
            .files
            .insert(OpenFile { file, registered })
            .map_err(full)?;
        if self.files_registered && key < FILES {
            let updated = self.uring.submitter().register_files_update(key, &[raw]);
            self.files[key].registered = updated.is_ok();
        }
        Ok(FileNo(key))
    }

    /// Takes a disk into the ring; what is known of it stays with the caller.
    pub fn adopt_disk(&mut self, disk: &super::Disk) -> io::Result<FileNo> {
        self.adopt(disk.duplicate()?)
    }

    /// Closes a file. Operations of it that are in flight still end, with an error or without.
    pub fn drop_file(&mut self, file: FileNo) {
        let Some(open) = self.files.remove(file.0) else {
            return;
        };
        if open.registered {
            let removed = self.uring.submitter().register_files_update(file.0, &[-1]);
            debug_assert!(removed.is_ok(), "a registered file can be taken out");
        }
    }

    /// Ends both directions of a socket, so that what waits on it ends.
    pub fn shutdown(&mut self, file: FileNo) {
        if let Some(open) = self.files.get(file.0) {
            let how = nix::sys::socket::Shutdown::Both;
            // A socket that the peer has closed already says ENOTCONN: that is what was wanted.
            let _ = nix::sys::socket::shutdown(open.file.as_raw_fd(), how);
        }
    }

    /// Sends what a socket takes at once, beside the ring: for the last that is said before [`Ring::shutdown`]. Not while a message of it is on its way.
    pub fn say_at_once(&mut self, file: FileNo, bytes: &[u8]) {
        if let Some(open) = self.files.get(file.0) {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // Who does not hear it hears at least that the connection has ended.
            let _ = nix::sys::socket::send(open.file.as_raw_fd(), bytes, flags);
        }
    }

    /// The descriptor of a file, for what is not done through the ring.
    pub fn raw(&self, file: FileNo) -> RawFd {
        self.files[file.0].file.as_raw_fd()
    }

    /// Reads into one part.
    pub fn read(&mut self, file: FileNo, offset: u64, into: Part, tag: Tag) -> io::Result<()> {
        let (at, len) = (self.arena.address(into), into.len);
        self.waiting_bytes += u64::from(len);
        let entry = match self.fixed_index(into) {
            Some(index) => entry!(self, file, fd => {
                opcode::ReadFixed::new(fd, at, len, index)
                    .offset(offset)
                    .build()
            }),
            None => entry!(self, file, fd => opcode::Read::new(fd, at, len).offset(offset).build()),
        };
        self.push(entry, tag)
    }

    /// Writes the parts one behind the other; `rw_flags` as of pwritev2. At most [`PIECES`].
    pub fn write(
        &mut self,
        file: FileNo,
        offset: u64,
        parts: &[Part],
        rw_flags: i32,
        tag: Tag,
    ) -> io::Result<()> {
        self.waiting_bytes += parts.iter().map(|part| u64::from(part.len)).sum::<u64>();
        if let &[part] = parts
            && let Some(index) = self.fixed_index(part)
        {
            let (at, len) = (self.arena.address(part).cast_const(), part.len);
            let entry = entry!(self, file, fd => opcode::WriteFixed::new(fd, at, len, index).offset(offset).rw_flags(rw_flags).build());
            return self.push(entry, tag);
        }
        let index = self.common_index(parts);
        let (list, count) = self.gather(parts)?;
        let entry = match index {
            Some(index) => entry!(self, file, fd => {
                let op = opcode::WritevFixed::new(fd, list, count, index);
                op.offset(offset).rw_flags(rw_flags).build()
            }),
            None => entry!(self, file, fd => {
                let op = opcode::Writev::new(fd, list, count);
                op.offset(offset).rw_flags(rw_flags).build()
            }),
        };
        self.push(entry, tag)
    }

    /// fdatasync.
    pub fn flush(&mut self, file: FileNo, tag: Tag) -> io::Result<()> {
        if cfg!(sarsen_no_dsync) {
            return self.push(opcode::Nop::new().build(), tag);
        }
        let flags = FsyncFlags::DATASYNC;
        let entry = entry!(self, file, fd => opcode::Fsync::new(fd).flags(flags).build());
        self.push(entry, tag)
    }

    /// Gives a range of a disk back (FALLOC_FL_PUNCH_HOLE); it reads as zeroes afterwards.
    pub fn punch(&mut self, file: FileNo, offset: u64, len: u64, tag: Tag) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let entry = entry!(self, file, fd => {
            opcode::Fallocate::new(fd, len)
                .offset(offset)
                .mode(mode)
                .build()
        });
        self.push(entry, tag)
    }

    /// Completes each time the file becomes readable, until it is dropped.
    pub fn poll(&mut self, file: FileNo, tag: Tag) -> io::Result<()> {
        let events = libc::POLLIN as u32;
        let entry = entry!(self, file, fd => opcode::PollAdd::new(fd, events).multi(true).build());
        self.push(entry, tag)
    }

    /// Adds one to an eventfd. With a tag it completes; without one it does only where it fails, and nobody hears of it.
    ///
    /// Goes through the ring because a direct write would wait where the counter is full and the file says so, which
    /// is in the hands of whoever sent it. A file that may wait goes to a thread of the kernel's at once: tried here first,
    /// it would be tried over and over (its poll says that it can be written, its write that it would wait).
    pub fn signal(&mut self, file: FileNo, waits: bool, tag: Option<Tag>) -> io::Result<()> {
        static ONE: u64 = 1;
        let at = (&raw const ONE).cast::<u8>();
        let mut entry = entry!(self, file, fd => opcode::Write::new(fd, at, 8).build());
        if waits {
            entry = entry.flags(squeue::Flags::ASYNC);
        }
        match tag {
            Some(tag) => self.push(entry, tag),
            None => {
                self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), Tag(UNCOUNTED))?;
                // Whether it completes is not known, so it is not counted: its memory is static.
                self.in_flight -= 1;
                Ok(())
            }
        }
    }

    /// Whether writes to a file may wait.
    pub fn may_wait(&self, file: FileNo) -> bool {
        super::may_wait(&self.files[file.0].file)
    }

    /// Completes with a new socket for each client.
    pub fn accept(&mut self, file: FileNo, tag: Tag) -> io::Result<()> {
        let flags = libc::SOCK_CLOEXEC;
        let entry = entry!(self, file, fd => opcode::AcceptMulti::new(fd).flags(flags).build());
        self.push(entry, tag)
    }

    /// Receives what there is into a provided buffer, which the completion names. ENOBUFS where all of them are
    /// in use at the moment.
    pub fn receive(&mut self, file: FileNo, expect: Expect, tag: Tag) -> io::Result<()> {
        self.receive_some(file, (expect, 0), tag)
    }

    /// The same, at most so many bytes; 0: as many as fit.
    pub fn receive_some(
        &mut self,
        file: FileNo,
        (expect, at_most): (Expect, u32),
        tag: Tag,
    ) -> io::Result<()> {
        const POLL_FIRST: u16 = 1; // IORING_RECVSEND_POLL_FIRST
        let priority = if expect == Expect::Later {
            POLL_FIRST
        } else {
            0
        };
        let (nowhere, group) = (std::ptr::null_mut(), Provided::GROUP);
        let entry = entry!(self, file, fd => {
            opcode::Recv::new(fd, nowhere, at_most)
                .ioprio(priority)
                .buf_group(group)
                .build()
        });
        self.push(entry.flags(squeue::Flags::BUFFER_SELECT), tag)
    }

    /// Receives until the part is full or the stream ends.
    pub fn receive_into(&mut self, file: FileNo, into: Part, tag: Tag) -> io::Result<()> {
        let (at, len) = (self.arena.address(into), into.len);
        let flags = libc::MSG_WAITALL;
        let entry = entry!(self, file, fd => opcode::Recv::new(fd, at, len).flags(flags).build());
        self.push(entry, tag)
    }

    /// A command of 16 bytes to a driver.
    pub fn command(&mut self, file: FileNo, op: u32, cmd: [u8; 16], tag: Tag) -> io::Result<()> {
        let entry = entry!(self, file, fd => opcode::UringCmd16::new(fd, op).cmd(cmd).build());
        self.push(entry, tag)
    }

    /// Reads into one part from a driver that takes user memory only, and no registered one: ublk says EACCES to that.
    pub fn read_unregistered(
        &mut self,
        file: FileNo,
        position: u64,
        into: Part,
        tag: Tag,
    ) -> io::Result<()> {
        let (at, len) = (self.arena.address(into), into.len);
        self.waiting_bytes += u64::from(len);
        let entry =
            entry!(self, file, fd => opcode::Read::new(fd, at, len).offset(position).build());
        self.push(entry, tag)
    }

    /// Writes one part, not as registered memory, and gives the command when that is done. Where not all of it was written, the command
    /// completes with ECANCELED and is not given.
    pub fn write_then_command(
        &mut self,
        file: FileNo,
        (position, part, written): (u64, Part, Tag),
        (op, cmd, tag): (u32, [u8; 16], Tag),
    ) -> io::Result<()> {
        // A chain ends where a submission does.
        let (room, waiting) = {
            let queue = self.uring.submission();
            (queue.capacity(), queue.len())
        };
        if room - waiting < 2 {
            self.calls += 1;
            self.uring.submitter().submit()?;
        }
        let (at, len) = (self.arena.address(part).cast_const(), part.len);
        self.waiting_bytes += u64::from(len);
        let entry =
            entry!(self, file, fd => opcode::Write::new(fd, at, len).offset(position).build());
        self.push(entry.flags(squeue::Flags::IO_LINK), written)?;
        self.command(file, op, cmd, tag)
    }

    /// Sends all of a message. It stays here until [`Ring::sent`] takes it back, after the completion.
    ///
    /// # Errors
    /// The message comes back with the error.
    pub fn send(
        &mut self,
        file: FileNo,
        message: Message,
        tag: Tag,
    ) -> Result<SendNo, (io::Error, Message)> {
        let count = message.pieces();
        if !self.scratch.has_room(count)
            && let Err(error) = self.turn(Wait::No)
        {
            return Err((error, message));
        }
        let header = self.scratch.message(&message, &self.arena);
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32;
        let entry = entry!(self, file, fd => opcode::SendMsg::new(fd, header).flags(flags).build());
        let full = |message| (io::Error::from_raw_os_error(libc::ENOBUFS), message);
        let key = self.messages.insert(message).map_err(full)?;
        match self.push(entry, tag) {
            Ok(()) => Ok(SendNo(key)),
            Err(error) => Err((error, self.sent(SendNo(key)))),
        }
    }

    /// A message whose sending has completed.
    pub fn sent(&mut self, number: SendNo) -> Message {
        let message = self.messages.remove(number.0);
        message.expect("a message is taken back once, after its completion")
    }

    /// The provided buffer that a completion received `len` bytes into. To be given to [`Ring::provide_again`].
    pub fn lent(&self, buffer: u16, len: u32) -> Lent {
        let part = self.provided.part(buffer, len);
        Lent { buffer, part }
    }

    /// Provides a buffer again whose bytes were used.
    pub fn provide_again(&mut self, lent: Lent) {
        self.provided.give(lent.buffer);
    }

    /// Cancels all operations of a file.
    pub fn cancel_all(&mut self, file: FileNo) -> io::Result<()> {
        let Some(open) = self.files.get(file.0) else {
            return Ok(());
        };
        let builder = match open.registered {
            true => io_uring::types::CancelBuilder::fd(Fixed(file.0)).all(),
            false => io_uring::types::CancelBuilder::fd(Fd(open.file.as_raw_fd())).all(),
        };
        self.push(opcode::AsyncCancel2::new(builder).build(), Tag(IGNORED))
    }

    /// Submits what was pushed and waits as long as is said for the first completion. An interrupted or
    /// timed out wait is an ordinary end.
    pub fn turn(&mut self, wait: Wait) -> io::Result<()> {
        const GETEVENTS: u32 = 1;
        const EXT_ARG: u32 = 8;
        self.provided.publish();
        self.waiting_bytes = 0;
        let to_submit = self.uring.submission().len() as u32;
        let (submitter, least) = (self.uring.submitter(), u32::from(wait != Wait::No));
        self.calls += 1;
        let entered = match wait {
            Wait::AtMost(time) => {
                let time = Timespec::from(time);
                let args = SubmitArgs::new().timespec(&time);
                // SAFETY: the arguments live through the call, and EXT_ARG says what they are.
                unsafe { submitter.enter(to_submit, least, GETEVENTS | EXT_ARG, Some(&args)) }
            }
            // SAFETY: no arguments. The entries' memory is as the module's doc says.
            _ => unsafe { submitter.enter::<libc::sigset_t>(to_submit, least, GETEVENTS, None) },
        };
        if self.uring.submission().is_empty() {
            self.scratch.clear();
        }
        match entered {
            Ok(_) => Ok(()),
            Err(e) => match e.raw_os_error() {
                // EBUSY and EAGAIN: the kernel wants its completions to be taken first.
                Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Submits what was pushed where that is enough to be worth a system call: a disk then works on it while the
    /// rest of the turn goes on.
    pub fn submit_early(&mut self) -> io::Result<()> {
        let waiting = self.uring.submission().len();
        if waiting < EARLY && self.waiting_bytes < EARLY_BYTES {
            return Ok(());
        }
        self.waiting_bytes = 0;
        self.calls += 1;
        let result = self.uring.submitter().submit();
        if self.uring.submission().is_empty() {
            self.scratch.clear();
        }
        result.map(drop)
    }

    /// Moves what has ended into `into`.
    pub fn reap(&mut self, into: &mut Vec<Completion>) {
        for entry in self.uring.completion() {
            let completion = Completion {
                tag: Tag(entry.user_data()),
                result: entry.result(),
                flags: entry.flags(),
            };
            let counted = completion.tag.0 != UNCOUNTED && !completion.more();
            self.in_flight -= u64::from(counted);
            if completion.tag.0 < UNCOUNTED {
                into.push(completion);
            }
        }
    }

    fn push(&mut self, entry: squeue::Entry, tag: Tag) -> io::Result<()> {
        let entry = entry.user_data(tag.0);
        loop {
            // SAFETY: the entry was built by a method above, from memory that the ring keeps alive.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            // Entries before this one may name lists in `scratch`, this one too: it is not cleared here.
            let length = self.uring.submission().len();
            self.calls += 1;
            self.uring.submitter().submit()?;
            if self.uring.submission().len() == length {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
        }
    }

    fn target(&self, file: FileNo) -> Target {
        let open = &self.files[file.0];
        match open.registered {
            true => Target::Registered(Fixed(file.0)),
            false => Target::Plain(Fd(open.file.as_raw_fd())),
        }
    }

    /// The registered buffer that a part lies in as a whole.
    fn fixed_index(&self, part: Part) -> Option<u16> {
        if !self.registered {
            return None;
        }
        let start = self.arena.address(part) as usize - self.arena.whole().0 as usize;
        let (first, last) = (start, start + part.len as usize - 1);
        let same = first / REGISTERED_BYTES == last / REGISTERED_BYTES;
        same.then_some((first / REGISTERED_BYTES) as u16)
    }

    /// The same for all of a list, where the kernel gathers from registered memory (Linux 6.15).
    fn common_index(&self, parts: &[Part]) -> Option<u16> {
        let first = self.gathers.then(|| self.fixed_index(*parts.first()?))??;
        let same = |p: &Part| self.fixed_index(*p) == Some(first);
        parts.iter().all(same).then_some(first)
    }

    fn gather(&mut self, parts: &[Part]) -> io::Result<(*const libc::iovec, u32)> {
        assert!(
            parts.len() <= PIECES,
            "the kernel gathers at most {PIECES} pieces"
        );
        if !self.scratch.has_room(parts.len()) {
            self.turn(Wait::No)?;
        }
        Ok((self.scratch.list(parts, &self.arena), parts.len() as u32))
    }
}

impl Ring {
    /// Calls off all that is in flight, and takes what ends by that. What does not, as commands of ublk, ends with the ring.
    fn call_off(&mut self) {
        let all = opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::any()).build();
        if self.push(all, Tag(IGNORED)).is_err() {
            return;
        }
        let mut ended = Vec::new();
        let mut before = u64::MAX;
        while self.in_flight > 0 && self.in_flight < before {
            before = self.in_flight;
            if self.turn(Wait::AtMost(CALLED_OFF_WITHIN)).is_err() {
                return;
            }
            self.reap(&mut ended);
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            self.call_off();
        }
        if self.in_flight > 0 {
            // Closing the ring cancels it, but not before this returns. What it may still write to stays mapped for good.
            std::mem::forget(Arc::clone(&self.arena));
            std::mem::forget(std::mem::replace(&mut self.messages, Slab::new(0)));
        }
    }
}

fn build() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(COMPLETIONS)
        .setup_submit_all()
        .setup_single_issuer();
    builder.setup_defer_taskrun();
    let refused = match builder.build(SUBMISSIONS) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => e,
        other => return other,
    };
    // A kernel that was built or patched without the flags: the same ring with a little more overhead.
    let mut plain = IoUring::builder();
    plain.setup_cqsize(COMPLETIONS).setup_coop_taskrun();
    plain.build(SUBMISSIONS).map_err(|_| refused)
}

/// Registers the arena, so that its pages need not be pinned at each operation.
fn register(uring: &IoUring, arena: &Arena) -> io::Result<()> {
    let (base, len) = arena.whole();
    let parts: Vec<libc::iovec> = (0..len)
        .step_by(REGISTERED_BYTES)
        .map(|start| libc::iovec {
            // The arithmetic stays within the arena's mapping.
            iov_base: base.wrapping_add(start).cast(),
            iov_len: REGISTERED_BYTES.min(len - start),
        })
        .collect();
    // SAFETY: the ring holds the arena, so that the memory outlives the registration.
    unsafe { uring.submitter().register_buffers(&parts) }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
