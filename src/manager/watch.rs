//! What the machines of a node are told: every change in its order, and whether this node leads.

use super::board::{Board, Verdict};
use crate::base::NodeId;
use crate::protocol::catalog::{Catalog, Command};
use crate::protocol::membership::Term;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

/// The place of an entry in the manager's log. Not [`Catalog::applied`], which counts the commands that were accepted: refused
/// commands, the first entry of each leader and changes of members have an index too.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Index(pub u64);

/// What a watcher is told, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum News {
    /// Go on from this catalog. The first that is told, and again whenever entries were missed: because the watcher was too slow, or the
    /// node was. The role is told again after it.
    Snapshot { index: Index, catalog: Arc<Catalog> },
    /// A command, and what came of it. A watcher that needs the catalog as of this entry carries the command out on its own copy;
    /// [`Manager::catalog`](super::Manager::catalog) may be further.
    Applied {
        index: Index,
        command: Arc<Command>,
        result: Arc<Verdict>,
    },
    /// This node leads, and all that earlier leaders committed was told before. No two terms of a manager are the same, not those
    /// of two lives of a process either.
    Leads { term: Term },
    /// It does not, or not any more.
    Follows { leader: Option<NodeId> },
}

/// A stream of [`News`]. It takes bounded memory, however slowly it is read.
pub struct Watch {
    board: Arc<Board>,
    id: u64,
    wake: Arc<Notify>,
}

impl Watch {
    pub(super) fn new(board: &Arc<Board>) -> Watch {
        let (id, wake) = board.add_watcher();
        Watch {
            board: Arc::clone(board),
            id,
            wake,
        }
    }

    /// The next news; waits for some. Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.try_next() {
                return news;
            }
            self.wake.notified().await;
        }
    }

    /// The next news, if there is any now.
    pub fn try_next(&mut self) -> Option<News> {
        self.board.next_of(self.id)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.board.drop_watcher(self.id);
    }
}
