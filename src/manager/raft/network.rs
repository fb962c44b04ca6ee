//! What openraft sends, as letters of the manager's transport.
//!
//! A snapshot goes in parts, of which each letter has one: the length of the head (4 bytes, little endian), the head as JSON, the part.

use super::{SnapshotMeta, Types, Vote, node};
use crate::base::NodeId;
use crate::manager::consensus::Letter;
use crate::manager::message::{self, json};
use crate::manager::transport::{SNAPSHOT_BYTES_MAX, Transport, Unreachable};
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{AnyError, EmptyNode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long a member that does not answer is left alone. openraft's own 500 ms would be longer than an election takes, so a member that
/// comes back would stand for one before it hears the leader.
const LEFT_ALONE: Duration = Duration::from_millis(50);

type Failed<E = openraft::error::Infallible> = RPCError<u64, EmptyNode, RaftError<u64, E>>;
pub(super) type Appended = Result<AppendEntriesResponse<u64>, RaftError<u64>>;
pub(super) type Voted = Result<VoteResponse<u64>, RaftError<u64>>;
pub(super) type Installed =
    Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>;

/// What is said of a part of a snapshot.
#[derive(Serialize, Deserialize)]
struct Head {
    vote: Vote,
    meta: SnapshotMeta,
    offset: u64,
    done: bool,
}

pub(super) fn pack_part(part: InstallSnapshotRequest<Types>) -> Vec<u8> {
    let head = json(&Head {
        vote: part.vote,
        meta: part.meta,
        offset: part.offset,
        done: part.done,
    });
    let length = (head.len() as u32).to_le_bytes();
    [&length[..], &head, &part.data].concat()
}

pub(super) fn unpack_part(body: &[u8]) -> Result<InstallSnapshotRequest<Types>, String> {
    let (length, rest) = body
        .split_first_chunk::<4>()
        .ok_or("a part of a snapshot has no head")?;
    let (head, data) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or("the head of a part of a snapshot is cut off")?;
    let head: Head = serde_json::from_slice(head)
        .map_err(|error| format!("the head of a part of a snapshot: {error}"))?;
    if head.offset.saturating_add(data.len() as u64) > SNAPSHOT_BYTES_MAX {
        return Err(format!(
            "a snapshot of more than {SNAPSHOT_BYTES_MAX} bytes is not taken"
        ));
    }
    Ok(InstallSnapshotRequest {
        vote: head.vote,
        meta: head.meta,
        offset: head.offset,
        data: data.to_vec(),
        done: head.done,
    })
}

/// Makes a [`Peer`] of each member.
pub(super) struct Network {
    pub transport: Arc<dyn Transport>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer {
            to: node(target),
            transport: Arc::clone(&self.transport),
        }
    }
}

/// One other member.
pub(super) struct Peer {
    to: NodeId,
    transport: Arc<dyn Transport>,
}

impl Peer {
    async fn ask<T: DeserializeOwned>(
        &self,
        letter: Letter,
        body: Vec<u8>,
        option: &RPCOption,
    ) -> Result<T, Unreachable> {
        let body = message::letter(letter, &body);
        let answer = self
            .transport
            .call(self.to, body, option.hard_ttl())
            .await?;
        let answer = message::read_reply(&answer);
        let unclear = |why: String| Unreachable::NoAnswer(format!("node {}: {why}", self.to));
        let answer = answer.map_err(|why| unclear(why.to_string()))?;
        serde_json::from_slice(answer).map_err(|error| unclear(error.to_string()))
    }
}

fn unreachable<E: std::error::Error>(error: Unreachable) -> Failed<E> {
    RPCError::Unreachable(openraft::error::Unreachable::from(AnyError::new(&error)))
}

/// A member that has stopped is as good as one that is not there: it is asked again in a while.
fn stopped(error: RaftError<u64>) -> Failed {
    RPCError::Unreachable(openraft::error::Unreachable::from(AnyError::new(&error)))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Failed> {
        let answer = self.ask::<Appended>(Letter::Append, json(&rpc), &option);
        answer.await.map_err(unreachable)?.map_err(stopped)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Failed<InstallSnapshotError>> {
        let answer = self.ask::<Installed>(Letter::Snapshot, pack_part(rpc), &option);
        let answer = answer.await.map_err(unreachable)?;
        let to = u64::from(self.to.0);
        answer.map_err(|error| RPCError::RemoteError(RemoteError::new(to, error)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, Failed> {
        let answer = self.ask::<Voted>(Letter::Vote, json(&rpc), &option);
        answer.await.map_err(unreachable)?.map_err(stopped)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(LEFT_ALONE))
    }
}
