//! Nodes of a cluster in one process, over real connections.

use super::*;
use crate::base::NodeId;
use crate::manager::Manager;
use crate::protocol::catalog::Command;
use crate::trust::{Clock, Identity, Role, UserName};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A folder of a test, which goes with it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sarsen-cluster-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind in the temporary folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Far more than anything here needs.
const SOON: Duration = Duration::from_secs(60);

/// A node of a test: what a daemon has of it.
struct Node {
    cluster: Cluster,
    manager: Manager,
}

fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        protection: Protection::MutualTls,
        file: "/etc/sarsen/sarsen.toml".into(),
    }
}

/// Starts a node as a daemon does, with what is in its folder.
async fn start(folder: &Folder) -> Node {
    let cluster = Cluster::open(Some(settings()), folder.path(), Clock::system()).unwrap();
    let manager = Manager::open_with(cluster.options()).await.unwrap();
    cluster.start(manager.clone()).await.unwrap();
    Node { cluster, manager }
}

impl Node {
    async fn stop(self) {
        self.cluster.stop();
        self.manager.end().await;
    }

    async fn view_when(&self, holds: impl Fn(&View) -> bool) -> View {
        let looked = async {
            loop {
                match self.cluster.view().filter(&holds) {
                    Some(view) => return view,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let seen = tokio::time::timeout(SOON, looked).await;
        seen.unwrap_or_else(|_| panic!("it does not come to that: {:?}", self.cluster.view()))
    }
}

fn run(story: impl Future<Output = ()>) {
    let tokio = tokio::runtime::Builder::new_current_thread();
    let tokio = { tokio }.enable_all().build().unwrap();
    tokio.block_on(story);
}

#[test]
fn a_cluster_is_founded_once_and_found_again_at_the_next_start() {
    run(async {
        let folder = Folder::new("found");
        let node = start(&folder).await;
        assert!(node.cluster.view().is_none());
        assert!(matches!(node.cluster.token(SOON), Err(ClusterError::Alone)));
        let name = "a".into();
        node.manager
            .propose(Command::AddNode { name })
            .await
            .unwrap();
        let Founded::Now { cluster, at } = node.cluster.found().await.unwrap() else {
            panic!("there was none before");
        };
        let before = Founded::Before { cluster, at };
        assert_eq!(node.cluster.found().await.unwrap(), before);
        node.stop().await;

        let node = start(&folder).await;
        assert_eq!(
            node.cluster.found().await.unwrap(),
            before,
            "also the port is the same"
        );
        let view = node.cluster.view().unwrap();
        assert_eq!((view.this, view.leader), (NodeId(1), Some(NodeId(1))));
        node.stop().await;

        let refused = Cluster::open(None, folder.path(), Clock::system())
            .err()
            .unwrap();
        assert!(
            refused.to_string().contains("no section [cluster]"),
            "{refused}"
        );
    });
}

#[test]
fn a_founding_that_was_cut_short_goes_on_with_the_authority_that_there_is() {
    run(async {
        let folder = Folder::new("cut");
        let node = start(&folder).await;
        node.manager
            .propose(Command::AddNode { name: "a".into() })
            .await
            .unwrap();
        let Founded::Now { cluster, .. } = node.cluster.found().await.unwrap() else {
            panic!("there was none before");
        };
        node.stop().await;
        // As it was before the last step.
        std::fs::remove_file(folder.path().join("cluster/cluster.json")).unwrap();
        let node = start(&folder).await;
        assert!(node.cluster.view().is_none());
        let again = node.cluster.found().await.unwrap();
        assert!(matches!(again, Founded::Now { cluster: now, .. } if now == cluster));
        node.stop().await;
    });
}

#[test]
fn a_node_joins_follows_and_is_missed_when_it_goes() {
    run(async {
        let (of_a, of_b) = (Folder::new("a"), Folder::new("b"));
        let a = start(&of_a).await;
        a.manager
            .propose(Command::AddNode { name: "a".into() })
            .await
            .unwrap();
        a.cluster.found().await.unwrap();
        let token = a.cluster.token(Duration::from_secs(600)).unwrap();
        let join = Join {
            address: &token.address,
            token: &token.token,
            name: "b",
        };
        let b = start(&of_b).await;
        assert_eq!(b.cluster.join(join).await.unwrap(), NodeId(2));
        b.stop().await;

        let b = start(&of_b).await;
        assert_eq!(b.cluster.node(), Some(NodeId(2)));
        assert!(b.cluster.has_catalog(SOON).await);
        assert!(matches!(
            b.cluster.join(join).await,
            Err(ClusterError::Member(_))
        ));
        let follower = b.cluster.token(SOON).unwrap_err().to_string();
        assert!(follower.contains("members: a"), "{follower}");
        // A change that is asked for at the follower is seen at both.
        let rack = Some("r1".to_owned());
        let node = NodeId(2);
        b.manager
            .propose(Command::SetRack { node, rack })
            .await
            .unwrap();
        assert!(a.manager.catalog().node(node).unwrap().rack.is_some());
        let reached = |view: &View| {
            let b = view.nodes.iter().find(|node| node.name == "b");
            b.is_some_and(|b| matches!(b.presence, Presence::Reachable { .. }))
        };
        let view = a.view_when(reached).await;
        assert_eq!(view.nodes[1].place, Place::Follower);
        b.stop().await;
        let missed = |view: &View| matches!(view.nodes[1].presence, Presence::Unreachable { .. });
        a.view_when(missed).await;
        let unknown = a.cluster.set_members(&["z".into()]).await.unwrap_err();
        assert!(unknown.to_string().contains("no node \"z\""), "{unknown}");
        a.stop().await;
    });
}

#[test]
fn a_client_counts_while_its_name_does_and_up_to_its_role() {
    run(async {
        let folder = Folder::new("clients");
        let node = start(&folder).await;
        let alice = UserName::new("alice").unwrap();
        let is = |name: &UserName, role| Identity::User {
            name: name.clone(),
            role,
        };
        let issue = |role| node.cluster.issue_token(&alice, role, SOON);
        assert!(matches!(
            issue(Role::Reader).await,
            Err(ClusterError::Alone)
        ));
        let name = "a".into();
        node.manager
            .propose(Command::AddNode { name })
            .await
            .unwrap();
        node.cluster.found().await.unwrap();
        // Nobody has admitted the name yet, whatever proves it.
        let admit = |role| node.cluster.admit(&is(&alice, role));
        assert_eq!(admit(Role::Admin), Err(NotAdmitted::Unknown(alice.clone())));
        let token = issue(Role::Operator).await.unwrap().token;
        let operator = Ok((alice.clone(), Role::Operator));
        assert_eq!(node.cluster.admit_token(&token), operator);
        assert_eq!(admit(Role::Admin), operator, "the lesser role counts");
        assert_eq!(admit(Role::Reader), Ok((alice.clone(), Role::Reader)));
        let node_itself = node.cluster.admit(&Identity::Node(NodeId(1)));
        assert_eq!(node_itself, Err(NotAdmitted::Node));
        let join = node.cluster.token(SOON).unwrap().token;
        for odd in [join.as_str(), "sarsen1.x", ""] {
            let refused = node.cluster.admit_token(odd);
            assert!(matches!(refused, Err(NotAdmitted::Token(_))), "{odd}");
        }
        node.cluster.revoke_client("alice").await.unwrap();
        let revoked = Err(NotAdmitted::Revoked(alice.clone()));
        assert_eq!(node.cluster.admit_token(&token), revoked);
        assert_eq!(admit(Role::Reader), revoked);
        let again = issue(Role::Reader).await.unwrap_err();
        assert!(again.to_string().contains("revoked"), "{again}");
        node.stop().await;
    });
}
