//! openraft's handle, as the manager's [`Consensus`].

use super::log::LogStore;
use super::machine::Machine;
use super::network::{Appended, Installed, Network, Voted, unpack_part};
use super::stand::stand;
use super::store::{Found, OpenError, Source, Store};
use super::{Answer, Types, node};
use crate::base::NodeId;
use crate::manager::Times;
use crate::manager::board::{Board, Role};
use crate::manager::consensus::{Consensus, Lag, Letter, Outcome, Standing};
use crate::manager::message::json;
use crate::manager::transport::{PART_BYTES, Transport};
use crate::manager::watch::Index;
use crate::protocol::catalog::{Catalog, Command};
use crate::protocol::membership::Term;
use openraft::error::{CheckIsLeaderError, ClientWriteError, Fatal, RaftError};
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use openraft::{ChangeMembers, EmptyNode, LogId, Raft, ServerState, SnapshotPolicy};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// How many entries the log gets at least before they become a snapshot, and how many are kept behind it for members that are late.
pub(in crate::manager) const COMPACT_EVERY: u64 = 256;
/// A snapshot is not made before the log has this part of its size, or a big site (58 MB: `docs/scale.md`) would write it for each 256
/// evictions of some 100 bytes.
const COMPACT_PART: u64 = 4;
/// But made where the log has this many bytes of JSON, because all of it is in memory,
const COMPACT_BYTES_MAX: u64 = 16 << 20;
/// or this many entries, because a member that starts carries them out: half a second, at 0.03 ms each.
const COMPACT_ENTRIES_MAX: u64 = 16_384;
/// How many proposals may be on their way. A leader that a majority does not hear takes that many and no more.
const PROPOSALS_MAX: usize = 256;
/// A leader takes nothing once a majority has been silent for this long.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// How long the members may take over one part of a snapshot, the last of which is made durable and read.
const PART_TIME: Duration = Duration::from_secs(20);
/// How long a lone member may take to lead itself.
const ALONE_TIME: Duration = Duration::from_secs(20);
/// Between two looks at what does not tell by itself.
const LOOK: Duration = Duration::from_millis(5);

type Core = Raft<Types>;

/// What a group is opened with.
pub struct Opening {
    pub source: Source,
    /// Whose file it has to be, where it is said.
    pub node: Option<NodeId>,
    /// Whether a new file becomes a group of one.
    pub may_found: bool,
    pub transport: Arc<dyn Transport>,
    pub times: Times,
}

/// This node's part in the group.
pub struct Group {
    me: NodeId,
    core: Core,
    store: Arc<Store>,
    /// When a leader was last heard.
    heard: Arc<Mutex<Option<Instant>>>,
    places: Arc<Semaphore>,
    stands: Arc<AtomicBool>,
    times: Times,
    tasks: [AbortHandle; 3],
}

impl Group {
    /// Opens the file and takes part. A lone member leads when this returns, and the board has everything.
    pub async fn open(opening: Opening) -> Result<(Group, Arc<Board>), OpenError> {
        let path = opening.source.path().to_owned();
        let wrong = |reason: String| OpenError {
            path: path.clone(),
            reason,
        };
        let (source, wanted) = (opening.source, opening.node);
        let opened = tokio::task::spawn_blocking(move || Store::open(source, wanted)).await;
        let (store, mut found) =
            opened.map_err(|stopped| wrong(format!("opening it was stopped: {stopped}")))??;
        let store = Arc::new(store);
        let me = found.node;
        let (board, machine) = machine(&store, &mut found);
        let log = LogStore::new(Arc::clone(&store), found);
        let network = Network {
            transport: opening.transport,
        };
        let config = config(&opening.times).map_err(wrong)?;
        let id = u64::from(me.0);
        let core = Core::new(id, Arc::new(config), network, log.clone(), machine).await;
        let core = core.map_err(|error| wrong(error.to_string()))?;
        let begun = begin(&core, id, opening.may_found);
        if let Err(reason) = begun.await {
            let _ = core.shutdown().await;
            store.close();
            return Err(wrong(reason));
        }
        let roles = tokio::spawn(tell_roles(core.clone(), Arc::clone(&board), me));
        let compact = tokio::spawn(compact(core.clone(), log, Arc::clone(&store)));
        let (heard, stands) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let standing = stand(
            core.clone(),
            (id, opening.times.election_max),
            Arc::clone(&heard),
            Arc::clone(&stands),
        );
        let standing = tokio::spawn(standing);
        let group = Group {
            me,
            core,
            store,
            heard,
            places: Arc::new(Semaphore::new(PROPOSALS_MAX)),
            stands,
            times: opening.times,
            tasks: [
                roles.abort_handle(),
                compact.abort_handle(),
                standing.abort_handle(),
            ],
        };
        Ok((group, board))
    }

    pub fn me(&self) -> NodeId {
        self.me
    }

    /// Whether it stands for election where it hears no leader.
    #[cfg(test)]
    pub fn does_stand(&self) -> bool {
        self.stands.load(Ordering::Relaxed)
    }

    fn has_heard(&self) -> bool {
        let heard = *self.heard.lock().expect("no holder panics");
        heard.is_some_and(|at| at.elapsed() < 2 * self.times.election_max)
    }

    /// Lets the file go at once. What would still be written fails, as with a process that is killed.
    pub fn let_go(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.store.close();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let core = self.core.clone();
            runtime.spawn(async move { core.shutdown().await });
        }
    }

    async fn change(&self, change: ChangeMembers<u64, EmptyNode>) -> Result<(), String> {
        let done = self.core.change_membership(change, false).await;
        done.map(|_| ()).map_err(|error| error.to_string())
    }
}

/// The board and the machine that carries entries out on it.
fn machine(store: &Arc<Store>, found: &mut Found) -> (Arc<Board>, Machine) {
    let snapshot = found.snapshot.take();
    let (meta, catalog) = match snapshot {
        Some((meta, catalog)) => (Some(meta), catalog),
        None => (None, Catalog::default()),
    };
    let last = meta.as_ref().and_then(|meta| meta.last_log_id);
    let board = Arc::new(Board::new(last.map_or(0, |last| last.index), catalog));
    let machine = Machine::new(Arc::clone(store), Arc::clone(&board), meta.as_ref());
    (board, machine)
}

/// openraft's clocks. Its followers wait out a lease of `election_timeout_max` after the leader's last word, and then a time between
/// its two election timeouts, and look at the clock every 1.5 heartbeats, which is also when a leader sends one.
fn config(times: &Times) -> Result<openraft::Config, String> {
    let ms = |time: Duration| time.as_millis() as u64;
    let config = openraft::Config {
        cluster_name: "manager".into(),
        heartbeat_interval: ms(times.heartbeat * 2 / 3),
        election_timeout_min: ms(times.election_max * 3 / 10),
        election_timeout_max: ms(times.election_max / 2),
        install_snapshot_timeout: ms(PART_TIME),
        max_payload_entries: COMPACT_EVERY,
        replication_lag_threshold: 2 * COMPACT_EVERY,
        snapshot_policy: SnapshotPolicy::Never,
        snapshot_max_chunk_size: PART_BYTES as u64,
        max_in_snapshot_log_to_keep: COMPACT_EVERY,
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| error.to_string())
}

/// Founds a group where that is asked for and there is none, and has a lone member lead.
async fn begin(core: &Core, me: u64, may_found: bool) -> Result<(), String> {
    let initialized = core.is_initialized().await;
    let is_new = !initialized.map_err(|error| error.to_string())?;
    if is_new {
        if !may_found {
            return Ok(());
        }
        let alone = BTreeMap::from([(me, EmptyNode {})]);
        let founded = core.initialize(alone).await;
        founded.map_err(|error| error.to_string())?;
    }
    let voters = core.with_raft_state(|state| -> BTreeSet<u64> {
        state.membership_state.effective().voter_ids().collect()
    });
    if voters.await.map_err(|error| error.to_string())? != BTreeSet::from([me]) {
        return Ok(());
    }
    if !is_new {
        // It would do so by itself, at the next look at the clock.
        let elect = core.trigger().elect().await;
        elect.map_err(|error| error.to_string())?;
    }
    let leads = async {
        loop {
            match core.ensure_linearizable().await {
                Ok(_) => return Ok(()),
                Err(RaftError::Fatal(error)) => return Err(error.to_string()),
                Err(RaftError::APIError(_)) => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    let late = |_| format!("its one member does not lead within {ALONE_TIME:?}");
    timeout(ALONE_TIME, leads).await.map_err(late)?
}

/// Says on the board whether this node leads. That it does is said only when all that earlier leaders committed is there.
async fn tell_roles(core: Core, board: Arc<Board>, me: NodeId) {
    let mut metrics = core.server_metrics();
    loop {
        let (state, term, leader) = {
            let now = metrics.borrow_and_update();
            (now.state, now.vote.leader_id().term, now.current_leader)
        };
        let leads = Role::Leads(Term(term));
        if state == ServerState::Leader && board.role() != leads {
            board.set_role(Role::Follows(None));
            let has_all = timeout(SILENT_MAX, core.ensure_linearizable()).await;
            match has_all {
                Ok(Err(RaftError::Fatal(_))) => break,
                // It may have been deposed and elected again meanwhile, and then the metrics say so.
                Ok(Ok(_)) if !metrics.has_changed().unwrap_or(true) => {
                    tracing::info!(node = %me, term, "this node leads the manager");
                    board.set_role(leads);
                }
                _ => {
                    sleep(LOOK).await;
                    continue;
                }
            }
        }
        if state != ServerState::Leader {
            if matches!(board.role(), Role::Leads(_)) {
                tracing::info!(node = %me, term, "this node does not lead the manager any more");
            }
            let other = leader.map(node).filter(|leader| *leader != me);
            board.set_role(Role::Follows(other));
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    board.set_role(Role::Follows(None));
    match &core.metrics().borrow().running_state {
        Ok(()) | Err(Fatal::Stopped) => {}
        Err(why) => tracing::error!(node = %me, %why, "this node's part in the manager has ended"),
    }
}

/// Whether a log that has grown by so many entries and bytes becomes a snapshot, where the last one has `snapshot` bytes.
pub(super) fn is_snapshot_due((entries, bytes): (u64, u64), snapshot: u64) -> bool {
    let enough = (snapshot / COMPACT_PART).min(COMPACT_BYTES_MAX);
    entries >= COMPACT_ENTRIES_MAX || entries >= COMPACT_EVERY && bytes >= enough
}

/// Has a snapshot made whenever the log has grown enough.
async fn compact(core: Core, log: LogStore, store: Arc<Store>) {
    let mut metrics = core.data_metrics();
    let mut looked = 0;
    loop {
        let (applied, snapshot) = {
            let now = metrics.borrow_and_update();
            let index = |at: Option<super::LogId>| at.map_or(0, |at| at.index);
            (index(now.last_applied), index(now.snapshot))
        };
        if applied >= looked.max(snapshot) + COMPACT_EVERY {
            looked = applied;
            let grown = (applied - snapshot, log.bytes_after(snapshot));
            // Where openraft has ended there is nothing to compact.
            if is_snapshot_due(grown, store.snapshot_bytes())
                && core.trigger().snapshot().await.is_err()
            {
                return;
            }
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("{what}: {error}"))
}

impl Consensus for Group {
    fn standing(&self) -> Standing {
        let metrics = self.core.metrics();
        let now = metrics.borrow();
        let membership = now.membership_config.membership();
        let does_lead = now.state == ServerState::Leader;
        let silent = now.millis_since_quorum_ack;
        let has_majority = silent.is_some_and(|ms| Duration::from_millis(ms) < SILENT_MAX);
        Standing {
            term: Term(now.current_term),
            does_lead,
            leader: now.current_leader.map(node),
            is_current: match does_lead {
                true => has_majority,
                false => self.has_heard(),
            },
            voters: membership.voter_ids().map(node).collect(),
            learners: membership.learner_ids().map(node).collect(),
            members_at: now.membership_config.log_id().map_or(0, |at| at.index),
            stopped: match &now.running_state {
                Ok(()) => None,
                Err(Fatal::Stopped) => Some("it has ended".into()),
                Err(error) => Some(error.to_string()),
            },
        }
    }

    async fn propose(&self, command: Command, within: Duration) -> Outcome {
        let lost = |why: &str| Outcome::Lost { why: why.into() };
        let standing = self.standing();
        if let Some(why) = standing.stopped {
            return Outcome::Lost {
                why: format!("{why}; restart the daemon when the cause is gone"),
            };
        }
        if !standing.does_lead {
            return lost("this node does not lead");
        }
        let silent = self.core.metrics().borrow().millis_since_quorum_ack;
        if silent.is_some_and(|ms| Duration::from_millis(ms) > SILENT_MAX) {
            return lost("most members of the manager do not answer its leader");
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return lost("too many changes are on their way");
        };
        let core = self.core.clone();
        // In a task of its own: the place is taken until openraft knows what came of it, whoever still waits.
        let writing = tokio::spawn(async move {
            let done = core.client_write(command).await;
            drop(place);
            done
        });
        let unknown = |why: String| Outcome::Unknown { why };
        match timeout(within, writing).await {
            Err(_) => unknown(format!(
                "no majority of the manager took it within {within:?}"
            )),
            Ok(Err(stopped)) => unknown(format!("it was stopped: {stopped}")),
            Ok(Ok(Ok(response))) => match response.data {
                Answer::Result(result) => Outcome::Committed {
                    index: Index(response.log_id.index),
                    result,
                },
                Answer::Nothing => unknown("the log has no command at its place".into()),
            },
            Ok(Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))))) => {
                lost("another node leads by now")
            }
            Ok(Ok(Err(RaftError::APIError(error)))) => lost(&error.to_string()),
            Ok(Ok(Err(RaftError::Fatal(error)))) => unknown(format!(
                "{error}; restart the daemon when the cause is gone"
            )),
        }
    }

    async fn confirm(&self, term: Term, within: Duration) -> Result<(), String> {
        let me = u64::from(self.me.0);
        let asked = async {
            loop {
                match self.core.get_read_log_id().await {
                    // A leader's read index is an entry of its own at the least (Raft, section 6.4): it names who was confirmed, and when.
                    Ok((Some(LogId { leader_id, .. }), _))
                        if (leader_id.term, leader_id.node_id) == (term.0, me) =>
                    {
                        return Ok(());
                    }
                    Ok(_) => return Err("another term has begun".to_owned()),
                    Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_))) => {
                        sleep(LOOK).await;
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        timeout(within, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no majority answered within {within:?}")))
    }

    async fn add_learner(&self, node: NodeId) -> Result<(), String> {
        let learner = BTreeMap::from([(u64::from(node.0), EmptyNode {})]);
        let done = self
            .core
            .change_membership(ChangeMembers::AddNodes(learner), true);
        done.await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn drop_learner(&self, node: NodeId) -> Result<(), String> {
        let gone = BTreeSet::from([u64::from(node.0)]);
        self.change(ChangeMembers::RemoveNodes(gone)).await
    }

    fn lag(&self, node: NodeId) -> Lag {
        let metrics = self.core.metrics();
        let now = metrics.borrow();
        let matched = now
            .replication
            .as_ref()
            .and_then(|all| all.get(&u64::from(node.0)));
        let matched = matched.copied().flatten().map(|matched| matched.index);
        Lag {
            entries: matched.map(|matched| now.last_log_index.unwrap_or(0).saturating_sub(matched)),
        }
    }

    async fn set_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), String> {
        let voters = voters.iter().map(|node| u64::from(node.0)).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    fn stand_no_more(&self) {
        if self.stands.swap(false, Ordering::Relaxed) {
            tracing::info!(node = %self.me, "this node is no member of the manager any more");
            self.core.runtime_config().elect(false);
        }
    }

    async fn take(&self, from: NodeId, letter: Letter, body: &[u8]) -> Result<Vec<u8>, String> {
        let is_from = |id: u64| match id == u64::from(from.0) {
            true => Ok(()),
            false => Err(format!("node {from} speaks for node {id}")),
        };
        match letter {
            Letter::Append => {
                let rpc: AppendEntriesRequest<Types> = read(body, "what a leader appends")?;
                is_from(rpc.vote.leader_id().node_id)?;
                let done: Appended = self.core.append_entries(rpc).await;
                if matches!(
                    done,
                    Ok(openraft::raft::AppendEntriesResponse::Success
                        | openraft::raft::AppendEntriesResponse::Conflict)
                ) {
                    *self.heard.lock().expect("no holder panics") = Some(Instant::now());
                    if !self.stands.swap(true, Ordering::Relaxed) {
                        // A leader has it in the group again.
                        self.core.runtime_config().elect(true);
                    }
                }
                Ok(json(&done))
            }
            Letter::Vote => {
                let rpc: VoteRequest<u64> = read(body, "what a candidate asks")?;
                is_from(rpc.vote.leader_id().node_id)?;
                let done: Voted = self.core.vote(rpc).await;
                Ok(json(&done))
            }
            Letter::Snapshot => {
                let rpc = unpack_part(body)?;
                let vote = rpc.vote;
                is_from(vote.leader_id().node_id)?;
                let done: Installed = self.core.install_snapshot(rpc).await;
                // One that led an earlier term is told a higher vote, and is not heard.
                if done.as_ref().is_ok_and(|done| done.vote <= vote) {
                    *self.heard.lock().expect("no holder panics") = Some(Instant::now());
                }
                Ok(json(&done))
            }
        }
    }

    async fn end(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let _ = self.core.shutdown().await;
        let store = Arc::clone(&self.store);
        // It syncs the file. Where that is stopped, the next start repairs it.
        let _ = tokio::task::spawn_blocking(move || store.close()).await;
    }
}
