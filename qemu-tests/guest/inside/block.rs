//! A disk of the guest as an NBD export, for the load and for verifying: each request becomes one system call on the
//! device, unbuffered, and several are in flight.

use crate::harness::nbd::{self, FLAG_FUA, Verb};
use crate::harness::{Step, ensure};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::{File, OpenOptions};
use std::io::{Error, IoSlice, Read, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests of one connection that may be in flight.
const WORKERS: usize = 16;
/// The longest request that is taken, more than the load sends.
const LENGTH_MAX: u32 = 4 << 20;

/// Serves a device until the process ends.
pub fn serve(device: &str, socket: &Path) -> Step<()> {
    let listener = UnixListener::bind(socket)?;
    loop {
        let (stream, _) = listener.accept()?;
        let disk = Disk::open(device)?;
        std::thread::spawn(move || {
            if let Err(why) = connection(stream, Arc::new(disk)) {
                println!("a connection ended: {why}");
            }
        });
    }
}

pub struct Disk {
    file: File,
    size: u64,
}

struct Job {
    verb: u16,
    flags: u16,
    cookie: [u8; 8],
    offset: u64,
    len: u32,
    payload: Aligned,
}

fn connection(mut stream: UnixStream, disk: Arc<Disk>) -> Step<()> {
    let structured = nbd::serve_handshake(&mut stream, disk.size)?;
    let (jobs, queue) = sync_channel::<Job>(WORKERS);
    let queue = Arc::new(Mutex::new(queue));
    let replies = Arc::new(Mutex::new(stream.try_clone()?));
    for _ in 0..WORKERS {
        let (queue, disk, replies) = (queue.clone(), disk.clone(), replies.clone());
        std::thread::spawn(move || work(&queue, &disk, &replies, structured));
    }
    loop {
        let mut head = [0; 28];
        stream.read_exact(&mut head)?;
        let number = |at: usize, len: usize| {
            head[at..at + len]
                .iter()
                .fold(0u64, |sum, &byte| sum << 8 | u64::from(byte))
        };
        let (verb, len) = (number(6, 2) as u16, number(24, 4) as u32);
        if verb == Verb::Disconnect as u16 {
            return Ok(()); // the workers answer what they have, and end
        }
        let carries = verb == Verb::Write as u16 || verb == Verb::Read as u16;
        ensure!(!carries || len <= LENGTH_MAX, "a request of {len} bytes");
        let mut payload = Aligned::new(if carries { len as usize } else { 0 });
        if verb == Verb::Write as u16 {
            stream.read_exact(payload.bytes())?;
        }
        jobs.send(Job {
            verb,
            flags: number(4, 2) as u16,
            cookie: head[8..16].try_into()?,
            offset: number(16, 8),
            len,
            payload,
        })?;
    }
}

fn work(queue: &Mutex<Receiver<Job>>, disk: &Disk, replies: &Mutex<UnixStream>, structured: bool) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = next else {
            return; // the connection has ended
        };
        let done = disk.carry_out(&mut job);
        if let Err(error) = &done {
            println!(
                "verb {} at {} of {} bytes: {error}",
                job.verb, job.offset, job.len
            );
        }
        let error = done
            .err()
            .map_or(0, |error| error.raw_os_error().unwrap_or(5) as u32);
        let data: &[u8] = match job.verb == Verb::Read as u16 && error == 0 {
            true => job.payload.bytes(),
            false => &[],
        };
        let reply = nbd::reply(structured, job.cookie, error, job.offset, data);
        let mut stream = replies.lock().unwrap_or_else(PoisonError::into_inner);
        if stream.write_all(&reply).is_err() {
            return; // nobody is there to be told
        }
    }
}

impl Disk {
    pub fn open(device: &str) -> Step<Disk> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let file = options.open(device).map_err(|e| format!("{device}: {e}"))?;
        let size = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0))?;
        Ok(Disk { file, size })
    }

    /// Unbuffered.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn carry_out(&self, job: &mut Job) -> Result<()> {
        let durable = job.flags & FLAG_FUA != 0;
        match job.verb {
            verb if verb == Verb::Read as u16 => {
                self.file.read_exact_at(job.payload.bytes(), job.offset)
            }
            verb if verb == Verb::Write as u16 => {
                self.write(job.payload.bytes(), job.offset, durable)
            }
            verb if verb == Verb::Flush as u16 => self.file.sync_data(),
            verb if verb == Verb::Trim as u16 => {
                self.discard(job.offset, u64::from(job.len))?;
                if durable {
                    self.file.sync_data()
                } else {
                    Ok(())
                }
            }
            verb if verb == Verb::WriteZeroes as u16 => {
                let zero = |how| {
                    let how = how | libc::FALLOC_FL_KEEP_SIZE;
                    let (fd, len) = (self.file.as_raw_fd(), i64::from(job.len));
                    // SAFETY: no memory is handed over.
                    checked(unsafe { libc::fallocate(fd, how, job.offset as i64, len) })
                };
                // Without PUNCH_HOLE the kernel may not unmap. With it, it writes no zeroes where the driver knows no such
                // request (nbd before Linux 6.12); it does without.
                let punched = match job.flags & nbd::FLAG_NO_HOLE {
                    0 => zero(libc::FALLOC_FL_PUNCH_HOLE),
                    _ => zero(libc::FALLOC_FL_ZERO_RANGE),
                };
                match punched {
                    Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                        zero(libc::FALLOC_FL_ZERO_RANGE)?;
                    }
                    done => done?,
                }
                if durable {
                    self.file.sync_data()
                } else {
                    Ok(())
                }
            }
            _ => Err(Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    fn write(&self, bytes: &[u8], offset: u64, durable: bool) -> Result<()> {
        if !durable {
            return self.file.write_all_at(bytes, offset);
        }
        let part = [IoSlice::new(bytes)];
        // SAFETY: IoSlice has the layout of iovec, and `bytes` outlives the call.
        let wrote = unsafe {
            let fd = self.file.as_raw_fd();
            libc::pwritev2(fd, part.as_ptr().cast(), 1, offset as i64, libc::RWF_DSYNC)
        };
        match wrote {
            -1 => Err(Error::last_os_error()),
            wrote if wrote as usize == bytes.len() => Ok(()),
            _ => Err(Error::other("a short write")),
        }
    }

    /// BLKDISCARD, which reaches the device as discards.
    fn discard(&self, offset: u64, len: u64) -> Result<()> {
        const BLKDISCARD: libc::c_ulong = 0x1277;
        let range = [offset, len];
        // SAFETY: the request reads two u64 from the pointer.
        checked(unsafe { libc::ioctl(self.file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
    }
}

fn checked(returned: i32) -> Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Memory that unbuffered I/O takes.
pub struct Aligned {
    start: *mut u8,
    len: usize,
}

// SAFETY: the memory is its own.
unsafe impl Send for Aligned {}

impl Aligned {
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len.max(1), 4096).expect("a length below LENGTH_MAX")
    }

    pub fn new(len: usize) -> Aligned {
        let layout = Aligned::layout(len);
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Aligned { start, len }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes that were zeroed at the allocation and are borrowed with `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start, Aligned::layout(self.len)) }
    }
}
