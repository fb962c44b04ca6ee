//! Disks and volumes: opened, attached, taken over; nodes that fall silent and come back.

use super::shelf::Works;
use super::*;
use crate::protocol::catalog::Sharing;
use crate::protocol::report::Report;
use crate::shard::What;
use crate::shard::fabric::Order;

/// The role of a disk in every PG that has it, as a node was told.
fn roles(site: &Site, id: u32, disk: DiskId) -> Vec<ReplicaRole> {
    let all = site.shards(id).configurations();
    all.values().filter_map(|of| of.role(disk)).collect()
}

fn is_out(role: &ReplicaRole) -> bool {
    matches!(role, ReplicaRole::Out { .. })
}

#[test]
fn a_volume_is_open_at_the_node_where_it_is_attached_and_nowhere_else() {
    run(async {
        let site = Site::new("attach").await;
        site.disks().await;
        let volume = site.create("v").await;
        let kept = |site: &Site| (1..=3).all(|id| site.shards(id).has_kept(volume));
        site.eventually("all stores know the volume", kept).await;
        site.attach(volume, 2).await;
        let open = |site: &Site| site.shards(2).epoch(volume).is_some();
        site.eventually("it is open", open).await;
        let first = site.shards(2).epoch(volume);
        assert_eq!(site.view(2).volumes.get(&volume).copied().flatten(), first);
        let released = |site: &Site| {
            let orders = site.shards(2).orders();
            let is =
                |order: &Order| matches!(order, Order::Release { volume: of } if *of == volume);
            orders.iter().any(is)
        };
        site.eventually("it is settled by both shards, and goes on", released)
            .await;

        // A snapshot is cut by both shards, and recorded.
        let (name, snapshot) = ("v".to_owned(), "s".to_owned());
        site.propose(Command::SnapshotVolume { name, snapshot })
            .await;
        let taken = |site: &Site| {
            let catalog = site.node(1).manager.catalog();
            let of = catalog.volume(volume).unwrap();
            of.layers.len() == 2 && of.cutting().is_none()
        };
        site.eventually("the snapshot is taken", taken).await;

        site.detach(volume).await;
        let given = |site: &Site| {
            let catalog = site.node(1).manager.catalog();
            let is_free = catalog
                .range(volume)
                .is_some_and(|range| range.owner.is_none());
            is_free && site.shards(2).epoch(volume).is_none()
        };
        site.eventually("it is drained by both shards, given and closed", given)
            .await;
        site.attach(volume, 1).await;
        let open = |site: &Site| site.shards(1).epoch(volume).is_some();
        site.eventually("it is open at the other", open).await;
        assert!(site.shards(1).epoch(volume) > first, "under a higher epoch");
        assert_eq!(site.shards(3).epoch(volume), None);
        assert_eq!(site.shards(2).epoch(volume), None);
    });
}

#[test]
fn what_a_silent_node_had_is_taken_over_and_it_joins_when_it_comes_back() {
    run(async {
        let mut site = Site::new("silent").await;
        let disks = site.disks().await;
        let volume = site.create("v").await;
        let leader = site.leader().await;
        let dead = (1..=3).rev().find(|id| *id != leader).unwrap();
        let heir = (1..=3).find(|id| ![leader, dead].contains(id)).unwrap();
        let disk = disks[dead as usize - 1];
        site.attach(volume, dead).await;
        let open = |site: &Site| site.shards(dead).epoch(volume).is_some();
        site.eventually("it is open", open).await;
        let first = site.shards(dead).epoch(volume);
        let told = |site: &Site| !roles(site, heir, disk).is_empty();
        site.eventually("the others know the placement groups", told)
            .await;
        let versions = |site: &Site| {
            let all = site.shards(heir).configurations();
            let of_disk = all.into_iter().filter(|(_, of)| of.role(disk).is_some());
            of_disk
                .map(|(pg, of)| (pg, of.version()))
                .collect::<BTreeMap<_, _>>()
        };
        let before = versions(&site);

        let silent = Instant::now();
        site.kill(dead).await;
        let out = |site: &Site| {
            [leader, heir]
                .iter()
                .all(|&id| roles(site, id, disk).iter().all(is_out))
        };
        site.eventually("its disk is out of its placement groups", out)
            .await;
        eprintln!("out after {:?}", silent.elapsed());
        let after = versions(&site);
        for (pg, version) in &before {
            assert!(after[pg] > *version, "{pg}");
        }

        // Another node has it attached by a command, and gets it as the lease is over.
        site.detach(volume).await;
        site.attach(volume, heir).await;
        let open = |site: &Site| site.shards(heir).epoch(volume).is_some();
        site.eventually("it is open at the other", open).await;
        assert!(
            site.shards(heir).epoch(volume) > first,
            "under a higher epoch"
        );

        site.begin(dead).await;
        site.pilot(dead);
        site.all_leased().await;
        site.found(dead, disk).await;
        let serves = |site: &Site| site.shards(dead).serves(disk);
        site.eventually("its disk is opened again", serves).await;
        let joins = |site: &Site| {
            let joins = |role: &ReplicaRole| matches!(role, ReplicaRole::Joining { .. });
            roles(site, heir, disk).iter().all(joins)
        };
        site.eventually("it joins", joins).await;
        for (pg, of) in site.shards(dead).configurations() {
            if let Some(ReplicaRole::Joining { session, .. }) = of.role(disk) {
                let report = Report::Filled { pg, disk, session };
                site.shards(dead).say(What::Report(report)).await;
            }
        }
        let in_sync = |site: &Site| {
            roles(site, heir, disk)
                .iter()
                .all(|role| *role == ReplicaRole::InSync)
        };
        site.eventually("it is in sync", in_sync).await;
        assert_eq!(site.shards(dead).epoch(volume), None, "it is the other's");
    });
}

#[test]
fn leases_do_not_wait_for_a_store_and_what_follows_its_words_does() {
    run(async {
        let site = Site::new("full").await;
        site.disks().await;
        let shards = site.shards(2);
        shards.stores(Works::Not);
        let volume = site.create("v").await;
        site.attach(volume, 2).await;
        let fails = |site: &Site| site.view(2).store_fails.as_deref() == Some("the disk is full");
        site.eventually("the store says why", fails).await;
        let taken = |site: &Site| site.node(1).manager.catalog().range(volume).is_some();
        site.eventually("the node has the volume", taken).await;
        let now = clock::now();
        let later = |site: &Site| site.view(2).lease.is_held(now + 3 * leases().lease);
        site.eventually("its lease goes on", later).await;
        let told = shards.orders().into_iter().any(
            |order| matches!(order, Order::Extended { until } if until > now + 2 * leases().lease),
        );
        assert!(told, "the shards know it");
        assert_eq!(shards.epoch(volume), None, "it is not open");
        assert!(site.view(2).orders_waiting > 0);
        shards.stores(Works::Well);
        let open = |site: &Site| site.shards(2).epoch(volume).is_some();
        site.eventually("it is open", open).await;
        site.eventually("nothing waits", |site| site.view(2).orders_waiting == 0)
            .await;
        assert_eq!(site.view(2).store_fails, None);
    });
}

#[test]
fn a_disk_that_fails_is_out_of_its_placement_groups_while_its_node_lives() {
    run(async {
        let site = Site::new("disk").await;
        let disks = site.disks().await;
        let disk = disks[1];
        let told = |site: &Site| !roles(site, 1, disk).is_empty();
        site.eventually("the others know the placement groups", told)
            .await;
        site.shards(2).say(What::DiskFailed { disk }).await;
        let out = |site: &Site| roles(site, 1, disk).iter().all(is_out);
        site.eventually("its disk is out of its placement groups", out)
            .await;
        assert!(site.is_leased(2));
    });
}

#[test]
fn a_shared_volume_goes_to_the_node_that_waits_for_its_turn() {
    run(async {
        let site = Site::new("shared").await;
        site.disks().await;
        let volume = site.create("v").await;
        let (name, sharing) = ("v".into(), Sharing::Shared);
        site.propose(Command::SetSharing { name, sharing }).await;
        for id in [1, 2] {
            site.attach(volume, id).await;
        }
        let mut last = None;
        // There and back: the owner hears each time of the other from itself, and drains.
        for id in [1, 2, 1] {
            let offered = |site: &Site| {
                let orders = site.shards(id).orders();
                let is = |order: &Order| matches!(order, Order::Offer(open) if open.id == volume);
                orders.iter().any(is)
            };
            site.eventually("requests are taken", offered).await;
            site.shards(id).say(What::Waits { volume }).await;
            let open = |site: &Site| site.shards(id).epoch(volume).is_some();
            site.eventually("it is its turn", open).await;
            let epoch = site.shards(id).epoch(volume);
            assert!(epoch > last, "{epoch:?} after {last:?}");
            last = epoch;
            let other = 3 - id;
            let over = |site: &Site| site.shards(other).epoch(volume).is_none();
            site.eventually("the other's turn is over", over).await;
        }
        let drained = site.shards(1).orders();
        let is = |order: &Order| matches!(order, Order::Pause { volume: of } if *of == volume);
        assert!(drained.iter().any(is), "it was handed over, not waited out");
    });
}

#[test]
fn a_volume_goes_along_with_a_guest_that_moves_to_another_node() {
    run(async {
        let site = Site::new("moves").await;
        site.disks().await;
        let volume = site.create("v").await;
        let socket = |node, incoming| Command::Attach {
            volume,
            node: NodeId(node),
            front_end: FrontEnd::VhostUser {
                socket: "/run/v".into(),
                queues: 1,
                incoming,
            },
        };
        site.propose(socket(1, false)).await;
        let open = |site: &Site, id: u32| site.shards(id).epoch(volume).is_some();
        site.eventually("it is open", |site| open(site, 1)).await;
        let first = site.shards(1).epoch(volume);
        site.propose(socket(2, true)).await;
        let offered = |site: &Site| {
            let orders = site.shards(2).orders();
            let is = |order: &Order| matches!(order, Order::Offer(open) if open.id == volume);
            orders.iter().any(is)
        };
        site.eventually("requests wait there", offered).await;
        assert_eq!(site.shards(1).epoch(volume), first, "it stays until asked");
        // The guest's first request there.
        site.shards(2).say(What::Waits { volume }).await;
        site.eventually("it has moved", |site| open(site, 2) && !open(site, 1))
            .await;
        let then = site.shards(2).epoch(volume);
        assert!(then > first);
        site.detach(volume).await;
        let alone = |site: &Site| {
            let catalog = site.node(2).manager.catalog();
            catalog
                .attachments_of(volume)
                .0
                .is_some_and(|of| of.node == NodeId(2))
        };
        site.eventually("the node where it was is out of it", alone)
            .await;
        assert_eq!(site.shards(2).epoch(volume), then, "nothing was broken");
    });
}
