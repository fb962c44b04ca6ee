//! A request header: its fields, and what is to become of it. Nothing here changes anything.
//!
//! The order of the checks is the order in which a person would want to be told: what is asked
//! (command, flags), whether it may be (read-only, contexts), whether it fits (length, range).

use super::door::Zeroing;
use super::fields::Fields;
use super::reply::{Failure, Framing, past_the_end};
use super::spec::{self, command, command_flag, errno};
use crate::base::RequestKind;

/// A request header as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u64,
}

impl Header {
    /// Reads a header of `bytes`, which has the length that the framing gives it. A wrong magic is
    /// the error.
    pub fn read(framing: Framing, bytes: &[u8]) -> Result<Header, u32> {
        let mut fields = Fields(bytes);
        let magic = fields.u32().unwrap_or(0);
        let extended = framing == Framing::Extended;
        let right = match extended {
            true => spec::EXTENDED_REQUEST_MAGIC,
            false => spec::REQUEST_MAGIC,
        };
        if magic != right {
            return Err(magic);
        }
        let mut read = || {
            Some(Header {
                flags: fields.u16()?,
                command: fields.u16()?,
                cookie: fields.u64()?,
                offset: fields.u64()?,
                len: match extended {
                    true => fields.u64()?,
                    false => u64::from(fields.u32()?),
                },
            })
        };
        Ok(read().expect("a request header of full length"))
    }

    /// How many bytes of data follow the header. A command that is not known is known to have
    /// none, unless the extended header says so.
    pub fn payload(&self, framing: Framing) -> u64 {
        let announced = match framing {
            Framing::Extended => self.flags & command_flag::PAYLOAD_LEN != 0,
            _ => self.command == command::WRITE,
        };
        if announced { self.len } else { 0 }
    }
}

/// What a connection agreed on, as far as a request has to keep to it.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub framing: Framing,
    /// Of the export, in bytes.
    pub size: u64,
    pub read_only: bool,
    /// Whether `base:allocation` was selected.
    pub allocation: bool,
    pub payload_bytes: u32,
}

/// What is to become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Run(RequestKind, Zeroing),
    /// There is nothing to do: success.
    Done,
    Refuse(Failure),
    Disconnect,
}

impl Terms {
    pub fn judge(&self, header: &Header) -> Verdict {
        if header.command == command::DISC {
            return Verdict::Disconnect;
        }
        self.admit(header).unwrap_or_else(Verdict::Refuse)
    }

    fn admit(&self, header: &Header) -> Result<Verdict, Failure> {
        let kind = match header.command {
            command::READ => RequestKind::Read,
            command::WRITE => RequestKind::Write,
            command::FLUSH => RequestKind::Flush,
            command::TRIM => RequestKind::Discard,
            // A hint. Reads come from the medium whatever was asked before, so once it is checked
            // as a read would be, there is nothing left to do.
            command::CACHE => RequestKind::Read,
            command::WRITE_ZEROES => RequestKind::WriteZeroes,
            command::BLOCK_STATUS => RequestKind::Map,
            _ => return Err(Failure::invalid("unknown command")),
        };
        self.check_flags(header)?;
        self.check_permission(kind)?;
        if kind == RequestKind::Flush {
            return match (header.offset, header.len) {
                (0, 0) => Ok(Verdict::Run(kind, Zeroing::MayPunch)),
                _ => Err(Failure::invalid("a flush has no offset and no length")),
            };
        }
        let moves_data = matches!(header.command, command::READ | command::WRITE);
        if moves_data && header.len > u64::from(self.payload_bytes) {
            return Err(Failure::invalid("longer than the largest payload"));
        }
        self.check_range(kind, header)?;
        if header.command == command::CACHE || header.len == 0 {
            return Ok(Verdict::Done);
        }
        let zeroing = match header.flags & command_flag::NO_HOLE {
            0 => Zeroing::MayPunch,
            _ => Zeroing::KeepAllocated,
        };
        Ok(Verdict::Run(kind, zeroing))
    }

    fn check_flags(&self, header: &Header) -> Result<(), Failure> {
        use command_flag::{DF, FAST_ZERO, FUA, NO_HOLE, PAYLOAD_LEN, REQ_ONE};
        // FUA is good with every command, and holds without being looked at: what is acknowledged
        // is durable.
        let allowed = FUA
            | match header.command {
                command::READ if self.framing >= Framing::Structured => DF,
                command::WRITE if self.framing == Framing::Extended => PAYLOAD_LEN,
                command::WRITE_ZEROES => NO_HOLE | FAST_ZERO,
                command::BLOCK_STATUS => REQ_ONE,
                _ => 0,
            };
        if header.flags & !allowed != 0 {
            return Err(Failure::invalid("a flag that this command does not have"));
        }
        let has_payload = header.flags & PAYLOAD_LEN != 0;
        if header.command == command::WRITE && self.framing == Framing::Extended && !has_payload {
            return Err(Failure::invalid("a write without a payload"));
        }
        if header.flags & (NO_HOLE | FAST_ZERO) == NO_HOLE | FAST_ZERO {
            // Zeroes that keep their space are written out, which is no faster than a write.
            let (errno, text) = (errno::ENOTSUP, "zeroes without a hole are not fast");
            return Err(Failure { errno, text });
        }
        Ok(())
    }

    fn check_permission(&self, kind: RequestKind) -> Result<(), Failure> {
        use RequestKind::{Discard, Map, Write, WriteZeroes};
        if self.read_only && matches!(kind, Write | WriteZeroes | Discard) {
            let (errno, text) = (errno::EPERM, "the export is read-only");
            return Err(Failure { errno, text });
        }
        if kind == Map && !self.allocation {
            return Err(Failure::invalid("no metadata context was selected"));
        }
        Ok(())
    }

    fn check_range(&self, kind: RequestKind, header: &Header) -> Result<(), Failure> {
        let end = header.offset.checked_add(header.len);
        if end.is_none_or(|end| end > self.size) {
            let (errno, text) = (past_the_end(kind), "past the end of the export");
            return Err(Failure { errno, text });
        }
        if kind == RequestKind::Map && header.len == 0 {
            return Err(Failure::invalid("the status of no bytes"));
        }
        Ok(())
    }
}
