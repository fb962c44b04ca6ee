//! The door: opening and ending, what is to be read, and what arrives from other managers.

use super::board::{Board, Since};
use super::consensus::{Consensus, Standing};
use super::follow;
use super::levels::Levels;
use super::message::{self, Follow, Followed, Further, Part, Question, Ticket};
use super::propose::Tickets;
use super::raft::{Group, OpenError, Opening, Source};
use super::transport::{Nobody, PART_BYTES, Transport};
use super::watch::{Index, Watch};
use crate::base::NodeId;
use crate::protocol::catalog::Catalog;
use crate::protocol::membership::Term;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// How much of the log one answer carries, in bytes of JSON.
const ANSWER_BYTES: usize = 512 << 10;
/// How many nodes may wait here for news at once: all of a site.
const FOLLOWERS_MAX: usize = crate::protocol::catalog::NODES_MAX;
/// How long one of them waits at most.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How long a node may take to say that it is there.
const PING: Duration = Duration::from_secs(1);

/// How long things take. The values of design.md, or slower ones for tests on a slow machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A leader speaks at least this often.
    pub heartbeat: Duration,
    /// A member stands for election at latest this long after the leader's last word, and a heartbeat; at earliest at four fifths of it.
    pub election_max: Duration,
    /// How long a proposal is tried.
    pub propose: Duration,
    /// How long a node that is no member waits for news in one call.
    pub follow: Duration,
}

impl Times {
    /// All of them longer.
    pub fn slower(self, factor: u32) -> Times {
        Times {
            heartbeat: self.heartbeat * factor,
            election_max: self.election_max * factor,
            propose: self.propose * factor,
            follow: self.follow * factor,
        }
    }
}

impl Default for Times {
    fn default() -> Times {
        Times {
            heartbeat: Duration::from_millis(50),
            election_max: Duration::from_millis(250),
            propose: Duration::from_secs(5),
            follow: Duration::from_secs(2),
        }
    }
}

/// What a new file becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The file of a group of one, which this node founds. A file that is there already stays what it is.
    Found,
    /// That of a node of a cluster there is. It follows the members, and becomes one where an operator wants it.
    Join { node: NodeId },
}

/// What a manager is opened with.
pub struct Options {
    pub path: PathBuf,
    pub start: Start,
    pub transport: Arc<dyn Transport>,
    /// Nodes that may be members, for a node that has heard of none.
    pub seeds: BTreeSet<NodeId>,
    pub times: Times,
}

impl Options {
    /// For a node that is alone.
    pub fn alone(path: PathBuf) -> Options {
        Options {
            path,
            start: Start::Found,
            transport: Arc::new(Nobody),
            seeds: BTreeSet::new(),
            times: Times::default(),
        }
    }
}

/// The keeper of the catalog on this node. Clones are the same keeper; with the last one it ends.
#[derive(Clone)]
pub struct Manager {
    pub(super) shared: Arc<Shared>,
    /// Ends with the last clone.
    tasks: Arc<Tasks>,
}

/// What the room's tasks work on.
pub(super) struct Shared {
    pub group: Group,
    pub board: Arc<Board>,
    pub transport: Arc<dyn Transport>,
    pub times: Times,
    known: Mutex<Known>,
    levels: Mutex<Levels>,
    tickets: Mutex<Tickets>,
    /// Tells this life's tickets from those of others.
    life: u64,
    number: AtomicU64,
    followers: Semaphore,
    /// Held over the making of an image.
    imaging: Arc<tokio::sync::Mutex<()>>,
}

/// Who the members are, as far as this node has heard.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// The entry that says so.
    pub at: u64,
    pub leader: Option<NodeId>,
    /// To be asked where nobody else is known.
    pub seeds: BTreeSet<NodeId>,
}

struct Tasks {
    shared: Arc<Shared>,
    following: AbortHandle,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.following.abort();
        self.shared.group.let_go();
    }
}

/// Who keeps the catalog, and who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    pub voters: BTreeSet<NodeId>,
    /// Who is being taken in.
    pub learners: BTreeSet<NodeId>,
    pub leader: Option<NodeId>,
}

/// This node does not lead, or not in that term, or no majority says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotConfirmed(pub String);

impl std::fmt::Display for NotConfirmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "it is not confirmed that this node leads: {}", self.0)
    }
}

impl std::error::Error for NotConfirmed {}

impl Shared {
    pub fn tickets(&self) -> MutexGuard<'_, Tickets> {
        self.tickets.lock().expect("no holder panics")
    }

    pub fn levels(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().expect("no holder panics")
    }

    pub fn ticket(&self) -> Ticket {
        Ticket {
            life: self.life,
            number: self.number.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// What is known of the members: by this member's own log, or by what it was told.
    pub fn known(&self) -> Known {
        let mut known = self.known.lock().expect("no holder panics").clone();
        let Standing {
            voters,
            learners,
            members_at,
            leader,
            is_current,
            ..
        } = self.group.standing();
        if !voters.is_empty() && members_at >= known.at {
            known = Known {
                voters,
                learners,
                at: members_at,
                leader: known.leader,
                seeds: known.seeds,
            };
        }
        if is_current {
            known.leader = leader;
        }
        known
    }

    pub fn learn(&self, told: Known) {
        let mut known = self.known.lock().expect("no holder panics");
        known.leader = told.leader;
        if told.at >= known.at && !told.voters.is_empty() {
            known.voters = told.voters;
            known.learners = told.learners;
            known.at = told.at;
        }
    }

    /// Whether it is the one member that there is.
    pub fn is_alone(&self) -> bool {
        self.known().voters == BTreeSet::from([self.group.me()])
    }

    /// The nodes to ask what there is to know, without this one.
    pub fn to_ask(&self) -> Vec<NodeId> {
        let known = self.known();
        let mut all: Vec<NodeId> = known.voters.iter().copied().collect();
        if all.iter().all(|node| *node == self.group.me()) {
            all.extend(&known.seeds);
        }
        all.retain(|node| *node != self.group.me());
        all.dedup();
        all
    }

    /// Whom to bring what is for the leader: the hint, the leader as far as is known, or the members in turn.
    pub fn leader_to_ask(&self, hint: Option<NodeId>, turn: usize) -> Option<ToAsk> {
        let others = self.to_ask();
        let believed = self.known().leader.filter(|_| turn == 0);
        let first = hint.or(believed).filter(|node| *node != self.group.me());
        let next = others.get(turn % others.len().max(1)).copied();
        first.map(ToAsk::Leader).or(next.map(ToAsk::Anybody))
    }

    /// Whether a node answers at all.
    pub async fn answers(&self, node: NodeId) -> bool {
        if node == self.group.me() {
            return true;
        }
        let answer = self.transport.call(node, message::ping(), PING).await;
        answer.is_ok_and(|answer| message::read_reply(&answer).is_ok())
    }
}

/// Who is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToAsk {
    /// It was said to lead.
    Leader(NodeId),
    /// It may know who leads. It may be dead as well, so it is looked first whether it is there: a proposal that is sent and not answered
    /// cannot be brought to another.
    Anybody(NodeId),
}

impl Manager {
    /// Opens the catalog in the file at `path`, which is created where there is none: a node that is alone.
    pub async fn open(path: PathBuf) -> Result<Manager, OpenError> {
        Manager::open_with(Options::alone(path)).await
    }

    /// Opens the catalog of a node. Where it is the only member it leads when this returns. Else the catalog may be as it was some time
    /// ago, until a leader or a member is heard.
    pub async fn open_with(options: Options) -> Result<Manager, OpenError> {
        let source = Source::File(options.path.clone());
        Manager::open_source(source, options).await
    }

    pub(super) async fn open_source(
        source: Source,
        options: Options,
    ) -> Result<Manager, OpenError> {
        let (node, may_found) = match options.start {
            Start::Found => (None, true),
            Start::Join { node } => (Some(node), false),
        };
        let opening = Opening {
            source,
            node,
            may_found,
            transport: Arc::clone(&options.transport),
            times: options.times,
        };
        let (group, board) = Group::open(opening).await?;
        let seeds = options.seeds;
        let shared = Arc::new(Shared {
            group,
            board,
            transport: options.transport,
            times: options.times,
            known: Mutex::new(Known {
                seeds,
                ..Known::default()
            }),
            levels: Mutex::default(),
            tickets: Mutex::default(),
            life: life(),
            number: AtomicU64::new(0),
            followers: Semaphore::new(FOLLOWERS_MAX),
            imaging: Arc::default(),
        });
        let following = tokio::spawn(follow::follow(Arc::clone(&shared)));
        let tasks = Arc::new(Tasks {
            shared: Arc::clone(&shared),
            following: following.abort_handle(),
        });
        Ok(Manager { shared, tasks })
    }

    /// The node whose manager it is.
    pub fn node(&self) -> NodeId {
        self.shared.group.me()
    }

    /// The catalog as it is now here. It does not change under the caller, who should not keep it for long: while it is held, the next
    /// change copies it.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.shared.board.catalog()
    }

    /// What the machines of this node are told, from now on; first the catalog as it is.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.shared.board)
    }

    /// Who the members are, as far as this node knows.
    pub fn members(&self) -> Members {
        let known = self.shared.known();
        Members {
            voters: known.voters,
            learners: known.learners,
            leader: known.leader,
        }
    }

    /// Whether this node hears the leader, or leads and hears a majority, or follows a member that does: then [`Members::leader`] is no
    /// memory.
    pub fn hears_leader(&self) -> bool {
        let (known, me) = (self.shared.known(), self.node());
        // Not by its own log alone: a member that was removed while it was away still has itself there.
        match known.voters.contains(&me) || known.learners.contains(&me) {
            true => self.shared.group.standing().is_current,
            false => known.leader.is_some(),
        }
    }

    /// The last entry of the log that this node's catalog has.
    pub fn index(&self) -> Index {
        Index(self.shared.board.index())
    }

    /// Has a majority of the members say, after this question, that this node still leads in this term.
    pub async fn confirm(&self, term: Term) -> Result<(), NotConfirmed> {
        let within = self.shared.times.election_max;
        let confirmed = self.shared.group.confirm(term, within).await;
        confirmed.map_err(NotConfirmed)
    }

    /// Ends in good order. (What is dropped ends as well, as if it was killed.)
    pub async fn end(self) {
        self.tasks.following.abort();
        self.shared.group.end().await;
    }

    /// Answers what another node's manager asks. `from` is who it is by its certificate.
    pub async fn serve(&self, from: NodeId, body: &[u8]) -> Vec<u8> {
        let question = match message::read_question(body) {
            Ok(question) => question,
            Err(why) => return message::reply(Err(why)),
        };
        match question {
            Question::Letter(letter, body) => {
                message::reply(self.shared.group.take(from, letter, body).await)
            }
            Question::Propose(asked) => {
                message::reply_json(Ok(self.take_proposal(from, *asked).await))
            }
            Question::Follow(asked) => message::reply_json(self.take_follower(&asked).await),
            Question::Part(asked) => message::reply(self.take_part(&asked)),
            Question::SetVoters(asked) => {
                message::reply_json(Ok(self.take_set_voters(from, asked).await))
            }
            Question::Ping => message::reply(match self.shared.group.standing().stopped {
                None => Ok(Vec::new()),
                Some(why) => Err(why),
            }),
        }
    }

    async fn take_follower(&self, asked: &Follow) -> Result<Followed, String> {
        let board = &self.shared.board;
        let place = self.shared.followers.try_acquire();
        let _place = place.map_err(|_| "too many nodes wait for news here")?;
        let wait = Duration::from_millis(asked.wait_ms).min(WAIT_MAX);
        let mut shown = board.watch_index();
        // At the end of the time there is an answer without news.
        let _ = timeout(wait, shown.wait_for(|shown| *shown > asked.after)).await;
        let news = match board.since(asked.after, ANSWER_BYTES) {
            Since::Entries(entries) => Further::Entries(
                entries
                    .into_iter()
                    .map(|(index, command)| (index, command.map(|it| it.as_ref().clone())))
                    .collect(),
            ),
            Since::Gone => {
                // One after the other: all nodes of a site may start at once, and whoever waited here gets the image that was made
                // meanwhile. The guard goes along, because making it does not end where nobody waits for it any more.
                let one_makes = Arc::clone(&self.shared.imaging).lock_owned().await;
                let board = Arc::clone(board);
                let image = tokio::task::spawn_blocking(move || {
                    let image = board.image();
                    drop(one_makes);
                    image
                })
                .await;
                let image = image.map_err(|error| error.to_string())?;
                Further::Snapshot {
                    index: image.index,
                    bytes: image.bytes.len() as u64,
                }
            }
        };
        let known = self.shared.known();
        Ok(Followed {
            leader: known.leader,
            is_current: self.shared.group.standing().is_current,
            voters: known.voters,
            learners: known.learners,
            members_at: known.at,
            news,
        })
    }

    fn take_part(&self, asked: &Part) -> Result<Vec<u8>, String> {
        let image = self.shared.board.image_of(asked.index);
        let image = image.ok_or("that snapshot is gone; ask again")?;
        let from = usize::try_from(asked.offset).unwrap_or(usize::MAX);
        let from = from.min(image.bytes.len());
        let to = image.bytes.len().min(from + PART_BYTES);
        Ok(image.bytes[from..to].to_vec())
    }
}

/// A number that no other life of a process has: the time of its start in nanoseconds, and its id.
fn life() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos() as u64);
    crate::base::mix64(nanos ^ u64::from(std::process::id()) << 48)
}
