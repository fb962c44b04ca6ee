//! Joining with a token, over real connections: once, again after an interruption, and in every way that is refused.

use super::*;
use crate::trust::tests::{DAY, Folder};
use crate::trust::{Credential, Token};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A cluster of one node that takes in others: by key, as an owner does it in its catalog.
struct Cluster {
    site: Site,
    one: Node,
    joined: Arc<Mutex<Vec<Joiner>>>,
}

impl Cluster {
    async fn start() -> Cluster {
        let site = Site::new();
        let one = Node::of(&site, 1).await;
        Cluster::with(site, one)
    }

    fn with(site: Site, one: Node) -> Cluster {
        let joined: Arc<Mutex<Vec<Joiner>>> = Arc::default();
        let (seen, nodes) = (joined.clone(), Arc::new(Mutex::new(BTreeMap::new())));
        let members = vec![Member {
            node: ONE,
            addresses: vec![one.address()],
        }];
        one.calls
            .serve_joins(site.authority.clone(), move |joiner| {
                let mut nodes = nodes.lock().unwrap();
                let next = NodeId(nodes.len() as u32 + 7);
                let node = *nodes.entry(joiner.key).or_insert(next);
                let refused = joiner.name == "bad";
                seen.lock().unwrap().push(joiner);
                let members = members.clone();
                async move {
                    match refused {
                        true => Err("a node of that name is there already".to_owned()),
                        false => Ok(Admitted { node, members }),
                    }
                }
            });
        Cluster { site, one, joined }
    }

    fn token(&self) -> Token {
        self.site.join_token(&[self.one.address().to_string()], DAY)
    }
}

struct Machine {
    folder: Folder,
    name: &'static str,
    plain: bool,
}

impl Machine {
    fn new(name: &'static str) -> Machine {
        Machine {
            folder: Folder::new("join"),
            name,
            plain: false,
        }
    }

    async fn joins(&self, cluster: &Cluster, token: &Token) -> Result<Joined, JoinError> {
        self.tries(&cluster.site, token, &[]).await
    }

    async fn tries(
        &self,
        site: &Site,
        token: &Token,
        also: &[String],
    ) -> Result<Joined, JoinError> {
        let how = Joining {
            token,
            also,
            name: self.name,
            hosts: &["node7.lan".to_owned()],
            addresses: &["127.0.0.1:7400".parse().unwrap()],
            folder: self.folder.path(),
            plain: self.plain,
            clock: site.hands.clock(),
            within: SOON,
        };
        join(&how).await
    }
}

#[test]
fn a_machine_with_a_token_becomes_a_node_that_others_know() {
    run(async {
        let cluster = Cluster::start().await;
        let machine = Machine::new("seven");
        let joined = machine.joins(&cluster, &cluster.token()).await.unwrap();
        assert_eq!(
            (joined.node, joined.cluster),
            (NodeId(7), cluster.one.calls.cluster())
        );
        assert_eq!(joined.members[0].addresses, [cluster.one.address()]);
        let seen = cluster.joined.lock().unwrap()[0].clone();
        assert_eq!((&*seen.name, seen.addresses[0].port()), ("seven", 7400));
        let names: Vec<_> = std::fs::read_dir(machine.folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "only node.pem stays: {names:?}");

        cluster
            .one
            .calls
            .handle(Service::Manager, |caller, _| async move {
                Ok(format!("{:?}", caller.node).into_bytes())
            });
        let seven = Calls::new(Security::MutualTls(joined.keeper), Limits::default()).unwrap();
        seven
            .set_addresses(ONE, &joined.members[0].addresses)
            .unwrap();
        let known = seven
            .call(ONE, Service::Manager, Vec::new(), SOON)
            .await
            .unwrap();
        assert_eq!(known, b"Some(NodeId(7))");
    });
}

#[test]
fn a_join_may_be_repeated_with_its_token_and_no_other_machine_may_use_that() {
    run(async {
        let cluster = Cluster::start().await;
        let (token, machine) = (cluster.token(), Machine::new("seven"));
        // Interrupted after the member answered: nothing is kept but the key.
        let first = machine.joins(&cluster, &token).await.unwrap();
        let kept = Credential::path(machine.folder.path());
        let key = std::fs::read(&kept).unwrap();
        let key_only = key.split_inclusive(|byte| *byte == b'\n').take(5);
        let key_only: Vec<u8> = key_only.flatten().copied().collect();
        std::fs::remove_file(&kept).unwrap();
        let before = machine.folder.path().join("joining.pem");
        std::fs::write(&before, key_only).unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&before, permissions).unwrap();
        let second = machine.joins(&cluster, &token).await.unwrap();
        assert_eq!(first.node, second.node);
        // And again when all was done already.
        let third = machine.joins(&cluster, &token).await.unwrap();
        assert_eq!(first.node, third.node);
        let keys: Vec<_> = cluster
            .joined
            .lock()
            .unwrap()
            .iter()
            .map(|joiner| joiner.key)
            .collect();
        assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]));

        let other = Machine::new("eight");
        let refused = other.joins(&cluster, &token).await.unwrap_err();
        assert_says(
            refused,
            &["refused", "the token was used already, by another machine"],
        );
        assert!(!Credential::path(other.folder.path()).exists());
        // With one of its own it gets in, with the key that it has.
        let eight = other.joins(&cluster, &cluster.token()).await.unwrap();
        assert_eq!(eight.node, NodeId(8));
    });
}

#[test]
fn a_node_whose_certificate_ran_out_comes_back_with_a_new_token_as_who_it_was() {
    run(async {
        let cluster = Cluster::start().await;
        let machine = Machine::new("seven");
        machine.joins(&cluster, &cluster.token()).await.unwrap();
        cluster.site.hands.move_on(40 * DAY);
        // The member renewed its own in time.
        let one = Node::start(Security::MutualTls(cluster.site.node(1)), Limits::default()).await;
        let cluster = Cluster::with(cluster.site, one);
        let joined = machine.joins(&cluster, &cluster.token()).await.unwrap();
        assert_eq!(joined.node, NodeId(7));
        assert!(
            joined
                .keeper
                .current()
                .check(cluster.site.hands.now())
                .is_ok()
        );
    });
}

#[test]
fn each_wrong_token_is_refused_by_the_member_in_its_own_words() {
    run(async {
        let cluster = Cluster::start().await;
        let machine = Machine::new("seven");
        let token = cluster.token();
        cluster.site.hands.move_on(DAY);
        let refused = machine.joins(&cluster, &token).await.unwrap_err();
        assert_says(refused, &["the token ended at", "sarsen cluster token"]);

        let name = crate::trust::UserName::new("ci").unwrap();
        let role = crate::trust::Role::Admin;
        let grant = crate::trust::Grant::Use { name, role };
        let at = [cluster.one.address().to_string()];
        let token = cluster.site.authority.token(grant, &at, DAY).unwrap();
        let refused = machine.joins(&cluster, &token).await.unwrap_err();
        assert_says(refused, &["the token is not for joining"]);

        let bad = Machine::new("bad");
        let refused = bad.joins(&cluster, &cluster.token()).await.unwrap_err();
        assert_says(refused, &["a node of that name is there already"]);
        let nameless = Machine::new("");
        let refused = nameless
            .joins(&cluster, &cluster.token())
            .await
            .unwrap_err();
        assert_says(refused, &["name has 1 to 255 bytes"]);
    });
}

#[test]
fn a_member_of_another_cluster_never_sees_the_token() {
    run(async {
        let (ours, theirs) = (Cluster::start().await, Cluster::start().await);
        let token = ours
            .site
            .join_token(&[theirs.one.address().to_string()], DAY);
        let machine = Machine::new("seven");
        let refused = machine.joins(&ours, &token).await.unwrap_err();
        assert_says(
            refused,
            &["no member", "not the one that the token was made for"],
        );
        assert!(theirs.joined.lock().unwrap().is_empty());
        eventually("it was counted", || {
            theirs.one.calls.counts().tls_failed == 1
        })
        .await;
        assert_eq!(theirs.one.calls.counts().calls, 0, "nothing was asked");
    });
}

#[test]
fn members_are_tried_until_one_can_do_it() {
    run(async {
        let cluster = Cluster::start().await;
        // One that does not hold the authority, and one that is not there.
        let two = Node::of(&cluster.site, 2).await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = closed.local_addr().unwrap().to_string();
        drop(closed);
        let addresses = [gone.clone(), two.address().to_string()];
        let token = cluster.site.join_token(&addresses, DAY);
        let machine = Machine::new("seven");
        let refused = machine.joins(&cluster, &token).await.unwrap_err();
        assert_says(
            &refused,
            &[&gone, "refused", &addresses[1], "does not serve Join"],
        );
        let also = [cluster.one.address().to_string()];
        let joined = machine.tries(&cluster.site, &token, &also).await.unwrap();
        assert_eq!(joined.node, NodeId(7));
    });
}

#[test]
fn a_node_of_one_cluster_does_not_join_another() {
    run(async {
        let (first, second) = (Cluster::start().await, Cluster::start().await);
        let machine = Machine::new("seven");
        machine.joins(&first, &first.token()).await.unwrap();
        let refused = machine.joins(&second, &second.token()).await.unwrap_err();
        assert_says(refused, &["is of cluster", "already", "node.pem"]);
        assert!(second.joined.lock().unwrap().is_empty());
    });
}

#[test]
fn a_plain_cluster_takes_in_nodes_too() {
    run(async {
        let site = Site::new();
        let security = Security::PlainLoopback {
            cluster: site.authority.root().cluster(),
            node: ONE,
        };
        let one = Node::start(security, Limits::default()).await;
        let cluster = Cluster::with(site, one);
        let mut machine = Machine::new("seven");
        let refused = machine.joins(&cluster, &cluster.token()).await.unwrap_err();
        assert_says(refused, &["this node's connections are plain"]);
        machine.plain = true;
        let joined = machine.joins(&cluster, &cluster.token()).await.unwrap();
        assert_eq!(joined.node, NodeId(7));
    });
}
