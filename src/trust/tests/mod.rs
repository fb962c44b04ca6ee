//! The room as a whole: authorities, handshakes in memory, files, tokens.

mod files;
mod fuzz;
mod handshake;
mod token;

use super::*;
use crate::base::NodeId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

/// A clock that a test moves.
#[derive(Clone)]
pub(crate) struct Hands(Arc<AtomicU64>);

impl Hands {
    pub fn new() -> Hands {
        Hands(Arc::new(AtomicU64::new(1_800_000_000)))
    }

    pub fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::of(move || hands.now())
    }

    pub fn now(&self) -> WallTime {
        WallTime(self.0.load(Ordering::Relaxed))
    }

    pub fn move_on(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }

    pub fn step_back(&self, by: Duration) {
        self.0.fetch_sub(by.as_secs(), Ordering::Relaxed);
    }
}

/// A cluster that lies in no file.
pub(crate) struct Site {
    pub hands: Hands,
    pub authority: Arc<Authority>,
}

impl Site {
    pub fn new() -> Site {
        Site::of(&Hands::new())
    }

    pub fn of(hands: &Hands) -> Site {
        let cluster = crate::base::ClusterId(authority::random());
        let authority = Authority::new(cluster, hands.clock());
        Site {
            hands: hands.clone(),
            authority: Arc::new(authority),
        }
    }

    pub fn credential(&self, identity: &Identity) -> Credential {
        let hosts = ["localhost".to_owned(), "127.0.0.1".into()];
        self.authority
            .credential(identity, &hosts, NODE_LIFE)
            .unwrap()
    }

    /// What a node of this cluster shows.
    pub fn node(&self, node: u32) -> Arc<Keeper> {
        self.keeper(&Identity::Node(NodeId(node)))
    }

    pub fn user(&self, name: &str, role: Role) -> Arc<Keeper> {
        let name = UserName::new(name).unwrap();
        self.keeper(&Identity::User { name, role })
    }

    fn keeper(&self, identity: &Identity) -> Arc<Keeper> {
        let clock = self.hands.clock();
        let credential = self.credential(identity);
        Keeper::new(credential, None, &["localhost".into()], clock)
    }

    pub fn join_token(&self, addresses: &[String], life: Duration) -> Token {
        self.authority.token(Grant::Join, addresses, life).unwrap()
    }
}

/// A folder of a test's own, gone after it.
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        let unique: [u8; 8] = authority::random();
        let name = format!("sarsen-{name}-{:016x}", u64::from_le_bytes(unique));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}
