//! The first start of several nodes, in the calls that a person makes with `sarsen cluster init`, `cluster token`, `join`, `disk add` and
//! `pool set`.
//!
//! Each step is done only where it is not done yet, so that a first start that was cut short goes on where it was, and more nodes come to
//! those that are there. The pool gets its copies while there is no disk: everything is made with them, and what a person sets later
//! stays.

use super::nodes::Nodes;
use super::place::Place;
use super::process::answers;
use crate::api::client::{Client, ClientError};
use crate::api::model::{
    ClusterJoin, ClusterStatus, ClusterTokenMake, DiskAdd, ErrorBody, ErrorCode, PoolSet,
};
use crate::api::size::human;
use crate::cli::Failure;
use crate::cli::output::say;
use crate::cli::upgrade::next_serves;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long one step may take. All of them take seconds; a machine may be far slower.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How long it is tried again what a daemon cannot do at the moment: while members are chosen, for example.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);
/// As many members as there are at three nodes and more.
const MEMBERS: usize = 3;
/// How long a token is good for, which is used at once.
const TOKEN_SECONDS: u64 = 600;
/// How many copies there are of everything.
pub(super) const COPIES: u32 = 2;
/// What to do about any failure of the start.
pub(super) const NEXT: &str = "see to that, and start again: what was done so far is found";
const POOL: &str = "default";

/// A node that is asked.
struct Node<'a> {
    place: &'a Place,
    client: Client,
}

/// Waits until all daemons serve, makes them a cluster where they are none yet, and waits until each has heard of every other.
pub(super) async fn set_up(nodes: &Nodes, places: &[Place]) -> Result<(), Failure> {
    for place in places {
        step(place, "serves", all_serve(place)).await?;
    }
    let mut asked: Vec<Node<'_>> = places.iter().map(Node::new).collect();
    let Some((first, others)) = asked.split_first_mut() else {
        return Ok(());
    };
    let place = first.place;
    step(place, "founds the cluster", first.found()).await?;
    for other in &mut *others {
        let place = other.place;
        step(place, "joins", other.join(first)).await?;
    }
    // What the first says of disks may be old until it hears the others, so it is not asked.
    let is_new = !places.iter().any(Place::has_disk);
    // Whom a person made a member later is one, or is none.
    let members = match is_new && places.len() >= MEMBERS {
        true => MEMBERS,
        false => 1,
    };
    for node in std::iter::once(&mut *first).chain(&mut *others) {
        let place = node.place;
        step(
            place,
            "hears the others",
            node.settled(places.len(), members),
        )
        .await?;
    }
    if is_new {
        step(first.place, "sets the pool's copies", first.set_copies()).await?;
    }
    for node in std::iter::once(&mut *first).chain(others) {
        let place = node.place;
        step(place, "adds its disk", node.add_disk(nodes.size)).await?;
    }
    if is_new {
        // Before that no volume can be made.
        step(first.place, "lays the pool out", first.laid_out()).await?;
    }
    Ok(())
}

/// Does a step of a node's; what goes wrong names the node.
async fn step<T>(
    place: &Place,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(STEP_MAX, work).await;
    let late = || {
        let message = format!(
            "it is waited in vain for that it {what}, for {} s",
            STEP_MAX.as_secs()
        );
        Err(Failure::Refused(ErrorBody::unavailable(message, "")))
    };
    done.unwrap_or_else(|_| late())
        .map_err(|failure| named(place, failure))
}

/// The same failure with the node's name before it, and the end of its log below.
fn named(place: &Place, failure: Failure) -> Failure {
    let mut body = match failure {
        Failure::Refused(body) => body,
        Failure::CannotReach(message) => ErrorBody::unavailable(message, ""),
        other => return other,
    };
    let (field, hint) = (std::mem::take(&mut body.field), body.hint);
    let what = [&place.name, &field, &body.message];
    body.message = join(&what.map(String::as_str), ": ");
    body.hint = join(&[&hint, NEXT, &place.log_end()], "\n  ");
    Failure::Refused(body)
}

fn join(parts: &[&str], between: &str) -> String {
    let there = parts.iter().filter(|part| !part.is_empty());
    there.copied().collect::<Vec<_>>().join(between)
}

/// Tells how far it is. Where nobody reads it, it goes on.
fn tell(place: &Place, what: &str) {
    let _ = say(&format!("{}  {what}", place.name));
}

async fn all_serve(place: &Place) -> Result<(), Failure> {
    while !answers(place).await {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Asks until the answer is another one than that it cannot be done now.
async fn patiently<T>(
    mut ask: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(ClientError::Refused(body))
                if body.code == ErrorCode::Unavailable && begun.elapsed() < UNAVAILABLE_MAX => {}
            Err(ClientError::CannotReach { .. }) if begun.elapsed() < UNAVAILABLE_MAX => {}
            answer => return answer,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl<'a> Node<'a> {
    fn new(place: &'a Place) -> Node<'a> {
        Node {
            place,
            client: Client::new(&place.api()),
        }
    }

    async fn is_of_a_cluster(&mut self) -> Result<bool, Failure> {
        Ok(self.client.status().await?.cluster.is_some())
    }

    async fn found(&mut self) -> Result<(), Failure> {
        if self.is_of_a_cluster().await? {
            return Ok(());
        }
        let instance = self.client.status().await?.instance;
        let founded = self.client.found_cluster().await?;
        next_serves(&mut self.client, &instance).await?;
        let at = founded.address;
        tell(
            self.place,
            &format!("has founded the cluster, others reach it at {at}"),
        );
        Ok(())
    }

    /// Joins the cluster of the founder, who alone makes tokens where nothing is encrypted.
    async fn join(&mut self, founder: &mut Node<'_>) -> Result<(), Failure> {
        if self.is_of_a_cluster().await? {
            return Ok(());
        }
        let instance = self.client.status().await?.instance;
        let make = ClusterTokenMake {
            expires_seconds: TOKEN_SECONDS,
        };
        let token = patiently(async || founder.client.cluster_token(&make).await).await?;
        let join = ClusterJoin {
            address: token.address,
            token: token.token,
        };
        patiently(async || self.client.join_cluster(&join).await).await?;
        next_serves(&mut self.client, &instance).await?;
        tell(self.place, "has joined");
        Ok(())
    }

    /// Waits until somebody leads, every node is heard, and as many are members.
    async fn settled(&mut self, nodes: usize, members: usize) -> Result<(), Failure> {
        loop {
            let seen = patiently(async || self.client.cluster().await).await?;
            if has_settled(&seen, nodes, members) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Makes the node's disk, where it has not got one before: what a person took out stays out.
    async fn add_disk(&mut self, size: u64) -> Result<(), Failure> {
        let (path, place) = (self.place.disk(), self.place);
        if place.has_disk() {
            return Ok(());
        }
        // An answer may get lost while a leader is chosen, and the disk be there all the same: looked for before each try.
        patiently(async || {
            let disks = self.client.disks().await?.disks;
            if disks.iter().any(|disk| disk.node == place.name) {
                return Ok(());
            }
            let add = DiskAdd {
                path: path.display().to_string(),
                // A file that is there was made by a try that was cut short, and has its size.
                size_bytes: is_to_be_made(&path).then_some(size),
                pool: None,
                dry_run: false,
            };
            self.client.add_disk(&add).await.map(|_| ())
        })
        .await?;
        place.note_disk()?;
        let what = format!("has a disk of {}, {}", human(size), path.display());
        tell(place, &what);
        Ok(())
    }

    /// Waits until the pool is spread over the disks, and whole.
    async fn laid_out(&mut self) -> Result<(), Failure> {
        loop {
            let pool = patiently(async || self.client.pool(POOL).await).await?;
            if pool.pgs.all > 0 && pool.reason.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn set_copies(&mut self) -> Result<(), Failure> {
        let set = PoolSet {
            copies: Some(COPIES),
            ..PoolSet::default()
        };
        patiently(async || self.client.set_pool(POOL, &set).await).await?;
        Ok(())
    }
}

fn is_to_be_made(disk: &Path) -> bool {
    std::fs::metadata(disk).map_or(true, |found| found.len() == 0)
}

fn has_settled(seen: &ClusterStatus, nodes: usize, members: usize) -> bool {
    let hears = |state: &str| matches!(state, "this" | "reachable");
    let heard = seen.nodes.iter().filter(|node| hears(&node.state));
    let of_those = heard.clone().filter(|node| node.role == "member");
    seen.leader.is_some() && heard.count() >= nodes && of_those.count() >= members
}
