//! Attachments: what is refused, how an incoming one takes over, and what older builds wrote.

use super::*;
use crate::protocol::membership::{LeaseNumber, Term};

const V1: VolumeId = VolumeId(1);
const V2: VolumeId = VolumeId(2);

fn guest(socket: &str) -> FrontEnd {
    FrontEnd::VhostUser {
        socket: socket.into(),
        queues: 2,
        incoming: false,
    }
}

fn incoming(socket: &str) -> FrontEnd {
    FrontEnd::VhostUser {
        socket: socket.into(),
        queues: 2,
        incoming: true,
    }
}

fn ublk(queues: u16) -> FrontEnd {
    let device = None;
    FrontEnd::Ublk { device, queues }
}

fn attach(volume: VolumeId, front_end: FrontEnd) -> Command {
    let node = NodeId(1);
    Command::Attach {
        volume,
        node,
        front_end,
    }
}

fn detach(volume: VolumeId) -> Command {
    Command::Detach { volume, key: None }
}

fn two_volumes() -> Catalog {
    let mut catalog = host();
    catalog.apply(&create("a", GIB)).unwrap();
    catalog.apply(&create("b", GIB)).unwrap();
    catalog
}

#[test]
fn a_volume_is_attached_once_and_its_key_never_returns() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    let again = refused(&mut catalog, &attach(V1, ublk(1)));
    assert_eq!((again.code, again.field.as_str()), (Code::Conflict, "name"));
    assert!(again.reason.contains("/run/a"), "{again}");
    let again = refused(&mut catalog, &attach(V1, guest("/run/other")));
    assert!(again.hint.contains("--incoming"), "{again}");
    catalog.apply(&detach(V1)).unwrap();
    assert_eq!(refused(&mut catalog, &detach(V1)).code, Code::NotFound);
    catalog.apply(&attach(V1, ublk(1))).unwrap();
    let keys: Vec<_> = catalog.attachments().map(|one| one.key.0).collect();
    assert_eq!(keys, [2]);
}

#[test]
fn a_volume_that_another_node_has_is_refused_with_the_node() {
    let mut catalog = two_volumes();
    let name = "host-2".into();
    catalog.apply(&Command::AddNode { name }).unwrap();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    for front_end in [guest("/run/b"), ublk(1)] {
        let elsewhere = Command::Attach {
            volume: V1,
            node: NodeId(2),
            front_end,
        };
        let refusal = refused(&mut catalog, &elsewhere);
        assert!(refusal.reason.contains("node 1"), "{refusal}");
    }
    // Another node has sockets of its own.
    let same_path = Command::Attach {
        volume: V2,
        node: NodeId(2),
        front_end: guest("/run/a"),
    };
    catalog.apply(&same_path).unwrap();
}

#[test]
fn a_socket_serves_one_attachment() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    let refusal = refused(&mut catalog, &attach(V2, guest("/run/a")));
    assert_eq!(
        (refusal.code, refusal.field.as_str()),
        (Code::Exists, "socket")
    );
    assert!(refusal.reason.contains("of a already"), "{refusal}");
    assert_eq!(
        refused(&mut catalog, &attach(V1, incoming("/run/a"))).field,
        "socket"
    );
    catalog.apply(&attach(V2, guest("fd:a"))).unwrap();
}

#[test]
fn what_is_no_socket_and_what_is_no_number_of_queues_is_refused() {
    let mut catalog = two_volumes();
    let long = format!("/{}", "s".repeat(107));
    let long_name = format!("fd:{}", "n".repeat(256));
    for socket in [
        "",
        "run/a",
        "/",
        "/run/../a",
        "/run//a",
        "/run/a/",
        "/run/./a",
        "/run/a\n",
        &long,
        "fd:",
        "fd:a:b",
        "fd:ä",
        &long_name,
    ] {
        let refusal = refused(&mut catalog, &attach(V1, guest(socket)));
        assert_eq!(
            (refusal.code, refusal.field.as_str()),
            (Code::Invalid, "socket"),
            "{socket}"
        );
    }
    for queues in [0, 129, u16::MAX] {
        assert_eq!(
            refused(&mut catalog, &attach(V1, ublk(queues))).field,
            "queues"
        );
    }
    catalog.apply(&attach(V1, ublk(128))).unwrap();
    catalog.apply(&attach(V2, guest(&long[..107]))).unwrap();
}

#[test]
fn the_incoming_one_takes_over_when_the_first_is_detached() {
    let mut catalog = two_volumes();
    let early = refused(&mut catalog, &attach(V1, incoming("/run/b")));
    assert_eq!(early.field, "incoming");
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    catalog.apply(&attach(V1, incoming("/run/b"))).unwrap();
    let third = refused(&mut catalog, &attach(V1, incoming("/run/c")));
    assert!(third.reason.contains("/run/b"), "{third}");
    let events = catalog.apply(&detach(V1)).unwrap();
    assert_eq!(events.len(), 2, "one left and one took its place");
    let (first, second) = catalog.attachments_of(V1);
    assert_eq!(first.unwrap().front_end, guest("/run/b"));
    assert_eq!((first.unwrap().key, second), (AttachmentKey(2), None));
    catalog.apply(&attach(V1, incoming("/run/a"))).unwrap();
}

#[test]
fn a_migration_that_is_given_up_leaves_the_first_as_it_was() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    catalog.apply(&attach(V1, incoming("/run/b"))).unwrap();
    let by_key = |key| Command::Detach {
        volume: V1,
        key: Some(AttachmentKey(key)),
    };
    assert_eq!(refused(&mut catalog, &by_key(9)).code, Code::NotFound);
    catalog.apply(&by_key(2)).unwrap();
    let (first, second) = catalog.attachments_of(V1);
    assert_eq!(
        (&first.unwrap().front_end, second),
        (&guest("/run/a"), None)
    );
    assert_eq!(refused(&mut catalog, &by_key(2)).code, Code::NotFound);
}

#[test]
fn only_a_guest_s_disk_migrates() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, ublk(1))).unwrap();
    assert_eq!(
        refused(&mut catalog, &attach(V1, incoming("/run/b"))).field,
        "incoming"
    );
}

#[test]
fn a_device_s_number_is_remembered_and_only_a_device_s() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, ublk(4))).unwrap();
    catalog.apply(&attach(V2, guest("/run/b"))).unwrap();
    let record = |key| Command::RecordDevice {
        key: AttachmentKey(key),
        device: 3,
    };
    catalog.apply(&record(1)).unwrap();
    let (first, _) = catalog.attachments_of(V1);
    let expected = FrontEnd::Ublk {
        device: Some(3),
        queues: 4,
    };
    assert_eq!(first.unwrap().front_end, expected);
    for key in [2, 7] {
        assert_eq!(refused(&mut catalog, &record(key)).code, Code::NotFound);
    }
}

#[test]
fn a_volume_on_its_way_out_is_not_attached() {
    let mut catalog = two_volumes();
    catalog.apply(&delete("a", 0)).unwrap();
    let refusal = refused(&mut catalog, &attach(V1, guest("/run/a")));
    assert!(refusal.reason.contains("deleted"), "{refusal}");
    assert_eq!(
        refused(&mut catalog, &attach(VolumeId(9), ublk(1))).code,
        Code::NotFound
    );
}

#[test]
fn an_attached_volume_is_neither_deleted_nor_shrunk_and_grows() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    let refusal = refused(&mut catalog, &delete("a", 0));
    assert!(refusal.reason.contains("/run/a"), "{refusal}");
    assert_eq!(refused(&mut catalog, &resize("a", GIB / 2)).field, "size");
    catalog.apply(&resize("a", 2 * GIB)).unwrap();
}

#[test]
fn what_the_first_builds_wrote_is_read_as_an_attachment_without_a_front_end() {
    let command: Command =
        serde_json::from_str(r#"{"command":"attach","volume":1,"node":1}"#).unwrap();
    assert_eq!(command, attach(V1, FrontEnd::None));
    let command: Command = serde_json::from_str(r#"{"command":"detach","volume":1}"#).unwrap();
    assert_eq!(command, detach(V1));
    let mut replayed = two_volumes();
    replayed.apply(&attach(V1, FrontEnd::None)).unwrap();
    replayed.apply(&attach(V1, FrontEnd::None)).unwrap();
    assert_eq!(replayed.attachments().count(), 1);

    let mut snapshot: serde_json::Value =
        serde_json::from_slice(&two_volumes().snapshot()).unwrap();
    let catalog = snapshot["catalog"].as_object_mut().unwrap();
    catalog.remove("incoming");
    catalog["next"]
        .as_object_mut()
        .unwrap()
        .remove("attachment");
    catalog["attachments"] = serde_json::json!({
        "1": {"volume": 1, "node": 1}, "2": {"volume": 2, "node": 1},
    });
    let mut restored = Catalog::restore(&serde_json::to_vec(&snapshot).unwrap()).unwrap();
    assert_eq!(restored.attachments().count(), 2);
    restored.apply(&detach(V1)).unwrap();
    restored.apply(&attach(V1, ublk(1))).unwrap();
    assert_eq!(restored.attachments_of(V1).0.unwrap().key, AttachmentKey(1));
}

#[test]
fn a_front_end_reads_back_as_it_was_written() {
    let text = r#"{"command":"attach","volume":1,"node":1,"front_end":{"kind":"vhost_user","socket":"/run/b","queues":2,"incoming":true}}"#;
    let command: Command = serde_json::from_str(text).unwrap();
    assert_eq!(command, attach(V1, incoming("/run/b")));
    assert_eq!(serde_json::to_string(&command).unwrap(), text);
    let text = r#"{"command":"attach","volume":1,"node":1,"front_end":{"kind":"nbd","queues":4}}"#;
    let command: Command = serde_json::from_str(text).unwrap();
    let device = None;
    assert_eq!(command, attach(V1, FrontEnd::Nbd { device, queues: 4 }));
    assert_eq!(serde_json::to_string(&command).unwrap(), text);
}

#[test]
fn a_snapshot_with_attachments_that_contradict_one_another_is_refused() {
    let mut catalog = two_volumes();
    catalog.apply(&attach(V1, guest("/run/a"))).unwrap();
    catalog.apply(&attach(V1, incoming("/run/b"))).unwrap();
    catalog.apply(&attach(V2, guest("/run/c"))).unwrap();
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
    let inconsistent = |catalog: &Catalog| Catalog::restore(&catalog.snapshot()).unwrap_err();

    let mut broken = catalog.clone();
    broken.attachments.get_mut(&V2).unwrap().front_end = guest("/run/a");
    let same_socket = RestoreError::Inconsistent("one-socket-one-attachment");
    assert_eq!(inconsistent(&broken), same_socket);
    let mut broken = catalog.clone();
    broken.attachments.get_mut(&V2).unwrap().key = AttachmentKey(1);
    assert_eq!(inconsistent(&broken), same_socket);
    let mut broken = catalog.clone();
    broken.attachments.remove(&V1);
    assert_eq!(
        inconsistent(&broken),
        RestoreError::Inconsistent("incoming-follows")
    );
    let mut broken = catalog;
    broken.next.attachment = 3;
    assert_eq!(
        inconsistent(&broken),
        RestoreError::Inconsistent("ids-never-return")
    );
}

#[test]
fn a_guest_moves_to_another_node_with_a_volume_that_is_not_shared() {
    let mut catalog = two_volumes();
    for name in ["n2", "n3"] {
        let name = name.into();
        catalog.apply(&Command::AddNode { name }).unwrap();
    }
    let at = |node, front_end| Command::Attach {
        volume: V1,
        node: NodeId(node),
        front_end,
    };
    let taken = |node| Command::TakeRange {
        volume: V1,
        node: NodeId(node),
        lease: LeaseNumber {
            term: Term(1),
            count: 1,
        },
        after: None,
        why: crate::protocol::catalog::TakeWhy::Free,
    };
    // A device cannot move, nor what nobody has.
    assert_eq!(
        refused(&mut catalog, &at(2, incoming("/run/b"))).field,
        "incoming"
    );
    let mut of_device = catalog.clone();
    of_device.apply(&at(1, ublk(1))).unwrap();
    assert_eq!(
        refused(&mut of_device, &at(2, incoming("/run/b"))).field,
        "incoming"
    );
    catalog.apply(&at(1, guest("/run/a"))).unwrap();
    assert_eq!(refused(&mut catalog, &at(2, guest("/run/b"))).field, "name");
    assert_eq!(refused(&mut catalog, &taken(2)).field, "node");
    catalog.apply(&at(2, incoming("/run/b"))).unwrap();
    assert!(catalog.is_shared(catalog.volume(V1).unwrap()));
    assert!(catalog.clone().apply(&taken(2)).is_ok());
    catalog.check().unwrap();
    // One move at a time, and no socket more at either node.
    for (node, socket) in [(3, "/run/c"), (1, "/run/c"), (2, "/run/c")] {
        refused(&mut catalog, &at(node, incoming(socket)));
    }
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
    // Given up.
    let key = Some(catalog.attached_at(V1, NodeId(2)).unwrap().key);
    let mut given_up = catalog.clone();
    given_up
        .apply(&Command::Detach { volume: V1, key })
        .unwrap();
    assert!(!given_up.is_shared(given_up.volume(V1).unwrap()));
    assert_eq!(
        given_up.attachments_of(V1).0.unwrap().front_end,
        guest("/run/a")
    );
    // There.
    catalog.apply(&detach(V1)).unwrap();
    let first = catalog.attachments_of(V1).0.unwrap();
    assert_eq!(
        (first.node, &first.front_end),
        (NodeId(2), &guest("/run/b"))
    );
    assert!(!catalog.is_shared(catalog.volume(V1).unwrap()));
    catalog.check().unwrap();
}

#[test]
fn a_shared_volume_is_attached_at_several_nodes_and_at_each_of_them_once() {
    let mut catalog = two_volumes();
    for name in ["n2", "n3"] {
        let name = name.into();
        catalog.apply(&Command::AddNode { name }).unwrap();
    }
    let at = |node, front_end| Command::Attach {
        volume: V1,
        node: NodeId(node),
        front_end,
    };
    let mut exclusive = catalog.clone();
    exclusive.apply(&at(1, ublk(1))).unwrap();
    assert_eq!(refused(&mut exclusive, &at(2, ublk(1))).field, "name");
    let sharing = Sharing::Shared;
    let name = "a".into();
    catalog
        .apply(&Command::SetSharing { name, sharing })
        .unwrap();
    for node in 1..=3 {
        catalog.apply(&at(node, ublk(1))).unwrap();
        assert_eq!(refused(&mut catalog, &at(node, ublk(1))).field, "name");
    }
    assert_eq!(
        refused(&mut catalog, &at(2, incoming("/run/b"))).field,
        "name"
    );
    let key = |catalog: &Catalog, node| catalog.attached_at(V1, NodeId(node)).unwrap().key;
    let device = Command::RecordDevice {
        key: key(&catalog, 3),
        device: 7,
    };
    catalog.apply(&device).unwrap();
    assert_eq!(catalog.attachments().count(), 3);
    assert_eq!(Catalog::restore(&catalog.snapshot()), Ok(catalog.clone()));
    let key = Some(key(&catalog, 2));
    catalog.apply(&Command::Detach { volume: V1, key }).unwrap();
    assert_eq!(
        refused(&mut catalog, &Command::Detach { volume: V1, key }).code,
        Code::NotFound
    );
    // The first goes, and the one at node 3 is the first.
    catalog.apply(&detach(V1)).unwrap();
    let first = catalog.attachments_of(V1).0.unwrap();
    assert_eq!(first.node, NodeId(3));
    assert_eq!(catalog.shared_at(V1).count(), 0);
    catalog.apply(&detach(V1)).unwrap();
    assert_eq!(catalog.attachments().count(), 0);
    catalog.check().unwrap();
}
