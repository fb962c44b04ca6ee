//! What the cases stand on.
//!
//! ```text
//!   case ── Room (a folder) ── Daemon (the real binary) ── unix sockets
//!     │                                                        │
//!     └── load ── model, sector ── nbd ────────────────────────┘
//!     └── power (a disk that loses what was not flushed, by FUSE)
//!     └── network (hosts with namespaces of their own, at a switch that loses and delays)
//! ```

pub mod daemon;
pub mod kills;
pub mod load;
pub mod metrics;
pub mod model;
pub mod nbd;
pub mod network;
pub mod power;
pub mod registers;
pub mod sector;
pub mod service_manager;
pub mod tools;

use std::error::Error;
use std::path::{Path, PathBuf};

/// How a case ended: what is worth telling where it went well, or why it failed.
pub type Outcome = Result<String, Box<dyn Error>>;
/// The same of a step.
pub type Step<T> = Result<T, Box<dyn Error>>;

/// One case.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Room) -> Outcome,
    /// Only with `--full`.
    pub full_only: bool,
    pub place: Place,
}

/// Where a case happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Host,
    /// In a guest under QEMU.
    Guest,
}

impl Case {
    pub fn new(name: &'static str, run: fn(&Room) -> Outcome) -> Case {
        Case {
            name,
            run,
            full_only: false,
            place: Place::Host,
        }
    }

    pub fn only_in_full(mut self) -> Case {
        self.full_only = true;
        self
    }
}

/// Fails the case where something does not hold.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+).into());
        }
    };
}
pub(crate) use ensure;

/// The longest path of a folder, so that sockets in it stay below the 107 bytes of `sun_path`.
const FOLDER_MAX: usize = 60;

/// The folder of one case, which goes with it.
pub struct Room {
    path: PathBuf,
}

impl Room {
    pub fn new(case: &str) -> std::io::Result<Room> {
        let number = case
            .bytes()
            .fold(0u32, |sum, b| sum.wrapping_mul(31) + u32::from(b));
        let name = format!("{}-{:x}", std::process::id(), number & 0xfffff);
        let near = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let path = match near.as_os_str().len() <= FOLDER_MAX {
            true => near,
            false => std::env::temp_dir().join(format!("sarsen-{name}")),
        };
        std::fs::create_dir_all(&path)?;
        Ok(Room { path })
    }

    /// A name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Prints the end of every log.
    pub fn tell_logs(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return;
        };
        let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
        logs.sort();
        for log in logs {
            println!("--- the end of {}", log.display());
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(40)..] {
                println!("    {line}");
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("{} was not removed: {error}", self.path.display());
        }
    }
}
