//! A raw image that is written: a file with holes, or a stream.
//!
//! Invariant *whole-or-nothing*: a file gets its name when all of it is written and durable. Until then it is
//! `NAME.partial`, which is removed where the export fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is written to a stream at once where there is nothing, in bytes.
const ZEROES: usize = 1 << 20;

pub(super) enum Sink {
    File {
        file: File,
        partial: PathBuf,
        path: PathBuf,
        whole: bool,
    },
    Stream {
        out: Box<dyn Write>,
        at: u64,
    },
}

impl Sink {
    /// A file at `path`, which must not exist unless `overwrite`; `-` is standard output.
    pub fn create(path: &Path, overwrite: bool) -> io::Result<Sink> {
        if path == Path::new("-") {
            let out = Box::new(io::stdout());
            return Ok(Sink::Stream { out, at: 0 });
        }
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() => {
                let what = "it is not a regular file; export to - and pipe it there";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Ok(_) if !overwrite => {
                let what = "it exists already; say --overwrite";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            _ => {}
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&partial)?;
        Ok(Sink::File {
            file,
            partial,
            path: path.into(),
            whole: false,
        })
    }

    /// Whether this is standard output, which then must carry nothing else.
    pub fn is_stream(&self) -> bool {
        matches!(self, Sink::Stream { .. })
    }

    /// Writes `bytes` at `offset`, which is not before the end of what was written; what lies between is zero.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sink::File { file, .. } => file.write_all_at(bytes, offset),
            Sink::Stream { out, at } => {
                pad(out, offset - *at)?;
                *at = offset + bytes.len() as u64;
                out.write_all(bytes)
            }
        }
    }

    /// Ends the image at `len` bytes.
    pub fn finish(&mut self, len: u64) -> io::Result<()> {
        match self {
            Sink::Stream { out, at } => {
                pad(out, len - *at)?;
                out.flush()
            }
            Sink::File {
                file,
                partial,
                path,
                whole,
            } => {
                file.set_len(len)?;
                file.sync_all()?;
                std::fs::rename(partial, path)?;
                *whole = true;
                Ok(())
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Sink::File {
            partial,
            whole: false,
            ..
        } = self
        {
            // Where even this fails, the name says what the file is.
            let _ = std::fs::remove_file(partial);
        }
    }
}

fn pad(out: &mut dyn Write, mut count: u64) -> io::Result<()> {
    static NOTHING: [u8; ZEROES] = [0; ZEROES];
    while count > 0 {
        let part = count.min(ZEROES as u64);
        out.write_all(&NOTHING[..part as usize])?;
        count -= part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sarsen-sink-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_file_is_sparse_and_has_its_name_only_when_it_is_whole() {
        let path = path("whole");
        let mut sink = Sink::create(&path, false).unwrap();
        sink.write(8 << 20, b"data").unwrap();
        assert!(!path.exists());
        sink.finish(16 << 20).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.len(), 16 << 20);
        assert!(found.blocks() * 512 < 1 << 20);
        assert!(Sink::create(&path, false).is_err());
        assert!(Sink::create(&path, true).is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_export_that_fails_leaves_nothing() {
        let path = path("failed");
        let mut sink = Sink::create(&path, false).unwrap();
        sink.write(0, b"data").unwrap();
        drop(sink);
        assert!(!path.exists());
        assert!(!path.with_extension("partial").exists());
    }

    #[test]
    fn a_stream_gets_its_zeroes() {
        use std::sync::{Arc, Mutex};
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let shared = Shared::default();
        let out = Box::new(shared.clone());
        let mut sink = Sink::Stream { out, at: 0 };
        sink.write(3, b"ab").unwrap();
        sink.finish(8).unwrap();
        assert_eq!(*shared.0.lock().unwrap(), b"\0\0\0ab\0\0\0");
    }
}
