//! A raw image that is read: a file with holes, a block device, or a stream. What is a hole, and what is zero
//! in aligned pieces of 64 KiB, is told and not read or sent.
//!
//! The checksum of everything read so far, holes included, goes along, so that both ends can compare.

use super::PIECE;
use crate::api::StreamCrc;
use crate::api::model::DATA_BYTES_MAX;
use hyper::body::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// How much is read at once, in bytes.
const WINDOW: u64 = DATA_BYTES_MAX;

/// Bytes of the image that are not all zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub offset: u64,
    pub bytes: Bytes,
}

/// What one window of the image holds.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// In rising order; what lies between is zero.
    pub pieces: Vec<Piece>,
    /// Where the window ends in the image.
    pub end: u64,
}

enum Input {
    File { file: File, len: u64, sparse: bool },
    Stream(Box<dyn Read + Send>),
}

/// An image that is read from its beginning.
pub(super) struct Source {
    input: Input,
    crc: StreamCrc,
}

impl Source {
    /// The file or block device at `path`; `-` is standard input.
    pub fn open(path: &Path) -> io::Result<Source> {
        if path == Path::new("-") {
            return Ok(Source::stream(Box::new(io::stdin())));
        }
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        match file.seek(SeekFrom::End(0)) {
            Ok(len) => Ok(Source {
                input: Input::File {
                    file,
                    len,
                    sparse: true,
                },
                crc: StreamCrc::default(),
            }),
            Err(error) if error.raw_os_error() == Some(libc::ESPIPE) => {
                Ok(Source::stream(Box::new(file)))
            }
            Err(error) => Err(error),
        }
    }

    pub fn stream(input: Box<dyn Read + Send>) -> Source {
        Source {
            input: Input::Stream(input),
            crc: StreamCrc::default(),
        }
    }

    /// How long the image is, where that is known before its end.
    pub fn len(&self) -> Option<u64> {
        match &self.input {
            Input::File { len, .. } => Some(*len),
            Input::Stream(_) => None,
        }
    }

    /// What was read so far.
    pub fn crc(&self) -> StreamCrc {
        self.crc
    }

    /// The next window, which does not reach beyond `limit`; `None` at the end of the image.
    pub fn next(&mut self, limit: u64) -> io::Result<Option<Window>> {
        let from = self.crc.len();
        let end = limit.min((from / WINDOW + 1) * WINDOW);
        let data = match &mut self.input {
            Input::Stream(input) => read_up_to(input, end - from)?,
            Input::File { file, len, sparse } => {
                let len = *len;
                if from >= len {
                    return Ok(None);
                }
                let data_at = if *sparse {
                    find(file, from, Whence::SeekData, sparse)?
                } else {
                    from
                };
                if data_at > from {
                    let end = data_at.min(len).min(limit);
                    self.crc.push_zeroes(end - from);
                    return Ok(Some(Window {
                        pieces: Vec::new(),
                        end,
                    }));
                }
                let hole_at = if *sparse {
                    find(file, from, Whence::SeekHole, sparse)?
                } else {
                    len
                };
                let mut data = vec![0; (hole_at.min(end).min(len) - from) as usize];
                file.read_exact_at(&mut data, from)?;
                data
            }
        };
        if data.is_empty() {
            return Ok(None);
        }
        self.crc.push(&data);
        let pieces = pieces(from, data.into());
        Ok(Some(Window {
            pieces,
            end: self.crc.len(),
        }))
    }
}

/// Where the next data or hole begins, from `from` on; the end of the file where there is none.
fn find(file: &File, from: u64, what: Whence, sparse: &mut bool) -> io::Result<u64> {
    let end = || file.metadata().map(|found| found.len());
    let from_signed = i64::try_from(from).map_err(|_| io::ErrorKind::FileTooLarge)?;
    match lseek(file.as_fd(), from_signed, what) {
        Ok(at) => Ok(at as u64),
        Err(Errno::ENXIO) => end().map(|end| end.max(from)),
        // Block devices and some file systems know no holes: everything is data.
        Err(Errno::EINVAL | Errno::EOPNOTSUPP) => {
            *sparse = false;
            Ok(if matches!(what, Whence::SeekData) {
                from
            } else {
                u64::MAX
            })
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads `count` bytes, or less at the end of the stream.
fn read_up_to(input: &mut dyn Read, count: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(count as usize);
    input.take(count).read_to_end(&mut data)?;
    Ok(data)
}

/// The runs of `data`, which lies at `from`, that are not zero in whole aligned pieces.
fn pieces(from: u64, data: Bytes) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut run: Option<usize> = None;
    let mut at = 0;
    let mut end_run = |run: &mut Option<usize>, at: usize| {
        if let Some(start) = run.take() {
            pieces.push(Piece {
                offset: from + start as u64,
                bytes: data.slice(start..at),
            });
        }
    };
    while at < data.len() {
        let in_piece = ((from + at as u64) % PIECE as u64) as usize;
        let end = (at + PIECE - in_piece).min(data.len());
        if is_zero(&data[at..end]) {
            end_run(&mut run, at);
        } else if run.is_none() {
            run = Some(at);
        }
        at = end;
    }
    end_run(&mut run, data.len());
    pieces
}

fn is_zero(bytes: &[u8]) -> bool {
    static ZEROES: [u8; PIECE] = [0; PIECE];
    // A comparison with zeroes is one memcmp, which is many times faster than a loop over bytes.
    bytes == &ZEROES[..bytes.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc;

    fn all(source: &mut Source, limit: u64) -> (Vec<Piece>, u64) {
        let (mut pieces, mut end) = (Vec::new(), 0);
        while end < limit
            && let Some(window) = source.next(limit).unwrap()
        {
            assert!(window.end > end, "a window moves on");
            end = window.end;
            pieces.extend(window.pieces);
        }
        (pieces, end)
    }

    fn rebuilt(pieces: &[Piece], len: usize) -> Vec<u8> {
        let mut image = vec![0; len];
        for piece in pieces {
            let at = piece.offset as usize;
            image[at..at + piece.bytes.len()].copy_from_slice(&piece.bytes);
        }
        image
    }

    fn image() -> Vec<u8> {
        let mut image = vec![0u8; 9 << 20];
        image[5] = 1;
        image[PIECE * 3..PIECE * 5].fill(2);
        image[(4 << 20) - 1] = 3;
        image[4 << 20] = 4;
        image.extend([5; 700]);
        image
    }

    #[test]
    fn a_stream_is_told_without_its_zero_pieces() {
        let image = image();
        let mut source = Source::stream(Box::new(io::Cursor::new(image.clone())));
        let (pieces, end) = all(&mut source, u64::MAX);
        assert_eq!(end, image.len() as u64);
        assert_eq!(rebuilt(&pieces, image.len()), image);
        assert_eq!(source.crc().crc(), crc::of(&image));
        let told: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert_eq!(told, 5 * PIECE + 700);
    }

    #[test]
    fn a_file_with_holes_is_read_as_it_is() {
        let path = std::env::temp_dir().join(format!("sarsen-source-{}", std::process::id()));
        let image = image();
        let file = File::create(&path).unwrap();
        file.set_len(image.len() as u64).unwrap();
        for (offset, len) in [(0, 4096), (PIECE * 3, PIECE * 2), ((4 << 20) - 4096, 8192)] {
            file.write_all_at(&image[offset..offset + len], offset as u64)
                .unwrap();
        }
        file.write_all_at(&image[9 << 20..], 9 << 20).unwrap();
        let mut source = Source::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.len(), Some(image.len() as u64));
        let (pieces, end) = all(&mut source, u64::MAX);
        assert_eq!(end, image.len() as u64);
        assert_eq!(rebuilt(&pieces, image.len()), image);
        assert_eq!(source.crc().crc(), crc::of(&image));
    }

    #[test]
    fn a_limit_is_never_read_across() {
        let image = image();
        let mut source = Source::stream(Box::new(io::Cursor::new(image.clone())));
        let limit = 3 * PIECE as u64 + 100;
        let (_, end) = all(&mut source, limit);
        assert_eq!(end, limit);
        assert_eq!(source.crc().crc(), crc::of(&image[..limit as usize]));
        let (_, end) = all(&mut source, u64::MAX);
        assert_eq!(end, image.len() as u64);
        assert_eq!(source.crc().crc(), crc::of(&image));
    }
}
