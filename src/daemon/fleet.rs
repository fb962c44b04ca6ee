//! What a daemon of a cluster has besides: the pilot over its shards, and links to the shards of other nodes.
//!
//! Here the rooms meet that know nothing of one another: `runtime` speaks of shards, `pilot` of machines, `cluster` of nodes.

use super::links;
use super::start::StartError;
use crate::api::host::Host;
use crate::base::{ClusterId, DiskId, NodeId};
use crate::calls::Calls;
use crate::cluster::Cluster;
use crate::io::clock;
use crate::manager::Manager;
use crate::pilot::{self, Parts, Pilot};
use crate::protocol::membership::{self, Incarnation};
use crate::protocol::steward;
use crate::runtime::{Handle, Runtime, SaidReceiver};
use crate::shard::fabric::Order;
use crate::shard::{Control, ControlError, Said, What};
use crate::store::{Openings, VolumeMeta};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What shards have said and the pilot has not looked at; behind that the shards keep it themselves.
const SAID_MAX: usize = 64;

/// A node of a cluster, in this start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub incarnation: Incarnation,
}

/// The number of this start, kept durably; nothing where the node is alone.
pub(super) fn next_start(
    data_dir: &Path,
    cluster: &Cluster,
    manager: &Manager,
) -> Result<Option<(Start, Calls)>, StartError> {
    let (Some(node), Some((cluster, calls))) = (cluster.node(), cluster.calls()) else {
        return Ok(None);
    };
    let known = manager.catalog().node(node).map(|node| node.incarnation);
    let next = pilot::next_start(&data_dir.join("cluster"), known.unwrap_or_default());
    let incarnation = next.map_err(|error| StartError::new("cluster", error))?;
    let start = Start {
        cluster,
        node,
        incarnation,
    };
    Ok(Some((start, calls)))
}

/// What is between the shards and the pilot until the host is there.
pub(super) struct Fleet {
    pub pilot: Arc<Pilot>,
    start: Start,
    calls: Calls,
    handle: Handle,
    said: SaidReceiver,
    says: mpsc::Sender<Said>,
}

impl Fleet {
    /// Starts the pilot.
    pub fn start(
        (start, calls): (Start, Calls),
        manager: Manager,
        shards: &mut Runtime,
    ) -> Result<Fleet, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::new("pilot", error);
        let handle = shards.handle();
        let Some(said) = shards.said() else {
            return Err(failed(&"what the shards say is taken already"));
        };
        let (says, hears) = mpsc::channel(SAID_MAX);
        let pilot = Pilot::start(Parts {
            manager,
            calls: calls.clone(),
            incarnation: start.incarnation,
            shards: Shards(handle.clone()),
            said: hears,
            clock: Arc::new(clock::now),
            leases: membership::Parameters::DEFAULT,
            steward: steward::Parameters::DEFAULT,
        });
        let pilot = pilot.map_err(|error| failed(&error))?;
        Ok(Fleet {
            pilot: Arc::new(pilot),
            start,
            calls,
            handle,
            said,
            says,
        })
    }

    /// Begins to speak: what shards say goes to the pilot, or to the host, and links are made.
    pub fn begin(self, host: &Host) {
        let Fleet {
            start,
            calls,
            handle,
            said,
            says,
            ..
        } = self;
        host.tell_places();
        tokio::spawn(pass_on(said, says, host.clone()));
        let serving = host.clone();
        tokio::spawn(async move { serving.serve_volumes().await });
        let keeping = host.clone();
        tokio::spawn(async move { keeping.let_go_of_volumes().await });
        let cluster = host.cluster().clone();
        tokio::spawn(links::keep(cluster, calls, handle, start));
    }
}

/// Brings what shards say to whom it concerns, until they have ended.
async fn pass_on(mut said: SaidReceiver, says: mpsc::Sender<Said>, host: Host) {
    while let Some(said) = said.recv().await {
        if let What::Wanted { volume } = said.what {
            host.wanted(volume);
        } else if says.send(said).await.is_err() {
            return; // the pilot has ended
        }
    }
}

/// The shards, as the pilot asks them.
struct Shards(Handle);

impl pilot::Shards for Shards {
    fn count(&self) -> u16 {
        self.0.shards() as u16 // at most 64
    }

    fn order(&self, number: u64, order: Order) {
        self.0.order(number, order);
    }

    async fn put_volume(&self, meta: VolumeMeta) -> Result<(), String> {
        let put = self.0.control(Control::PutVolume { meta }).await;
        put.map_err(|error| in_words(&error))
    }

    async fn put_openings(&self, disk: DiskId, openings: Openings) -> Result<(), String> {
        let put = self
            .0
            .control(Control::PutOpenings { disk, openings })
            .await;
        put.map_err(|error| in_words(&error))
    }
}

fn in_words(error: &ControlError) -> String {
    format!("{error:?}")
}
