//! Golden JSON: what is on the wire today is what old clients read tomorrow.

use super::*;
use serde::{Serialize, de::DeserializeOwned};

/// `value` is written as `text`, and `text` is read as `value`.
fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, text: &str) {
    let written = serde_json::to_value(value).unwrap();
    let expected: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(written, expected);
    assert_eq!(&serde_json::from_str::<T>(text).unwrap(), value);
}

fn volume() -> Volume {
    Volume {
        id: 7,
        name: "root".into(),
        node: "a".into(),
        pool: "default".into(),
        size_bytes: 1 << 30,
        block_size_bytes: 4096,
        state: VolumeState::Ready,
        reason: String::new(),
        connections: 2,
        bench: false,
        shared: false,
        io_timeout_seconds: None,
        clients: None,
        pgs: 32,
        pg_states: None,
        layers: vec![Layer {
            id: 9,
            parent: None,
            state: "writable".into(),
        }],
        import: None,
        attachments: Vec::new(),
        uri: "nbd+unix:///root?socket=/run/sarsen/nbd.sock".into(),
    }
}

#[test]
fn a_volume_is_written_as_ever() {
    golden(
        &volume(),
        r#"{"id":7,"name":"root","node":"a","pool":"default","size_bytes":1073741824,"block_size_bytes":4096,
            "state":"ready","reason":"","connections":2,"bench":false,"pgs":32,
            "layers":[{"id":9,"parent":null,"state":"writable"}],
            "uri":"nbd+unix:///root?socket=/run/sarsen/nbd.sock"}"#,
    );
    let degraded = Volume {
        state: VolumeState::Degraded,
        reason: "why".into(),
        ..volume()
    };
    let written = serde_json::to_value(&degraded).unwrap();
    assert_eq!(
        (&written["state"], &written["reason"]),
        (&"degraded".into(), &"why".into())
    );
    let importing = Volume {
        state: VolumeState::Importing,
        import: Some(ImportState {
            through_bytes: 4096,
            crc32c: crc_text(0xe306_9283),
        }),
        ..volume()
    };
    let written = serde_json::to_value(&importing).unwrap();
    assert_eq!(written["state"], "importing");
    assert_eq!(written["import"]["through_bytes"], 4096);
    assert_eq!(written["import"]["crc32c"], "e3069283");
}

#[test]
fn a_volume_request_has_defaults_and_refuses_unknown_fields() {
    let short: VolumeCreate = serde_json::from_str(r#"{"name":"a","size_bytes":4096}"#).unwrap();
    assert_eq!(
        (short.block_size_bytes, short.purpose),
        (4096, VolumeCreatePurpose::Use)
    );
    assert_eq!((short.pool, short.locality), (None, Locality::Spread));
    let odd = r#"{"name":"a","size_bytes":4096,"colour":"red"}"#;
    let error = serde_json::from_str::<VolumeCreate>(odd)
        .unwrap_err()
        .to_string();
    assert!(error.contains("colour"), "{error}");
}

#[test]
fn a_disk_is_written_as_ever() {
    golden(
        &Disk {
            id: 1,
            node: "a".into(),
            pool: "default".into(),
            path: "/dev/vdb".into(),
            store: "00".repeat(16),
            size_bytes: 1 << 34,
            state: "serving".into(),
            reason: String::new(),
            pgs: 32,
            moves: None,
            arrival: None,
        },
        r#"{"id":1,"node":"a","pool":"default","path":"/dev/vdb",
            "store":"00000000000000000000000000000000","size_bytes":17179869184,
            "state":"serving","reason":"","pgs":32}"#,
    );
}

#[test]
fn a_growth_names_a_size_or_none() {
    let to = DiskGrow {
        size_bytes: Some(1 << 31),
    };
    golden(&to, r#"{"size_bytes":2147483648}"#);
    golden(&DiskGrow { size_bytes: None }, "{}");
    let odd = serde_json::from_str::<DiskGrow>(r#"{"size":1}"#).unwrap_err();
    assert!(odd.to_string().contains("size"), "{odd}");
}

#[test]
fn a_node_is_written_as_in_the_clusters_status_and_with_what_it_holds() {
    let seen = ClusterNode {
        id: 2,
        name: "b".into(),
        addresses: vec!["10.0.0.2:7400".into()],
        role: "follower".into(),
        leads: false,
        state: "reachable".into(),
        since_unix_seconds: Some(7),
        reason: String::new(),
        lag: Some(0),
        version: Some("0.1.0".into()),
        maintenance: Some(Maintenance {
            until_unix_seconds: Some(9),
        }),
    };
    golden(
        &Node {
            seen,
            rack: Some("r1".into()),
            disks: vec![3, 4],
            size_bytes: 10,
            pgs: 5,
            data: NodeData::Leaving,
            volumes: vec!["v".into()],
            moves: None,
        },
        r#"{"id":2,"name":"b","addresses":["10.0.0.2:7400"],"role":"follower","leads":false,
            "state":"reachable","since_unix_seconds":7,"reason":"","lag":0,"version":"0.1.0",
            "maintenance":{"until_unix_seconds":9},"rack":"r1","disks":[3,4],"size_bytes":10,
            "pgs":5,"data":"leaving","volumes":["v"]}"#,
    );
    let on = NodeMaintenance {
        maintenance: Switch::On,
        for_seconds: Some(60),
        dry_run: false,
    };
    let text = r#"{"maintenance":"on","for_seconds":60,"dry_run":false}"#;
    golden(&on, text);
    let removed = NodeRemoved {
        name: "b".into(),
        removed: false,
        pgs: 5,
    };
    golden(&removed, r#"{"name":"b","removed":false,"pgs":5}"#);
}

#[test]
fn status_and_alerts_are_written_as_ever() {
    golden(
        &Status {
            instance: "1f".into(),
            nodes: vec![NodeStatus {
                name: "a".into(),
                pid: 42,
                state: "serving".into(),
                version: "0.1.0".into(),
                uptime_seconds: 5,
                shards: 2,
            }],
            disks: 1,
            failed_disks: 1,
            volumes: 3,
            degraded_volumes: 2,
            connections: 2,
            attachments: 5,
            failed_attachments: 4,
            capacity_bytes: 10,
            promised_bytes: 20,
            taken_bytes: 40,
            cluster: None,
            degraded_pools: Vec::new(),
            moving_pools: Vec::new(),
            nbd_socket: "/n".into(),
            alerts: vec![Alert {
                name: "disk-failed".into(),
                subject: "disk 1".into(),
                since_unix_seconds: 1,
                reason: "r".into(),
                cure: "c".into(),
                count: 1,
            }],
        },
        r#"{"instance":"1f","nodes":[{"name":"a","pid":42,"state":"serving","version":"0.1.0","uptime_seconds":5,
            "shards":2}],"disks":1,"failed_disks":1,"volumes":3,"degraded_volumes":2,"connections":2,"attachments":5,"failed_attachments":4,"capacity_bytes":10,
            "promised_bytes":20,"taken_bytes":40,"nbd_socket":"/n","alerts":[{"name":"disk-failed",
            "subject":"disk 1","since_unix_seconds":1,"reason":"r","cure":"c","count":1}]}"#,
    );
}

#[test]
fn an_attachment_is_written_as_ever() {
    let guest = Attachment {
        key: 3,
        volume: "root".into(),
        node: "a".into(),
        front_end: FrontEnd::VhostUser,
        queues: 2,
        socket: Some("fd:vm1".into()),
        path: Some("/run/vm1.sock".into()),
        incoming: false,
        state: AttachmentState::Connected,
        reason: String::new(),
    };
    let text = r#"{"key":3,"volume":"root","node":"a","front_end":"vhost_user","queues":2,
        "socket":"fd:vm1","path":"/run/vm1.sock","incoming":false,"state":"connected","reason":""}"#;
    golden(&guest, text);
    let device = Attachment {
        front_end: FrontEnd::Ublk,
        socket: None,
        path: None,
        state: AttachmentState::Failed,
        reason: "why".into(),
        ..guest.clone()
    };
    let text = r#"{"key":3,"volume":"root","node":"a","front_end":"ublk","queues":2,
        "incoming":false,"state":"failed","reason":"why"}"#;
    golden(&device, text);
    let volume = Volume {
        attachments: vec![guest],
        ..volume()
    };
    let written = serde_json::to_value(&volume).unwrap();
    assert_eq!(written["attachments"][0]["key"], 3);
}

#[test]
fn an_attachment_is_asked_for_with_defaults_and_refuses_unknown_fields() {
    let whole = Attach {
        front_end: FrontEnd::VhostUser,
        socket: Some("/run/a".into()),
        queues: Some(4),
        incoming: true,
        take_over: false,
    };
    let text = r#"{"front_end":"vhost_user","socket":"/run/a","queues":4,"incoming":true}"#;
    golden(&whole, text);
    let short = serde_json::from_str::<Attach>(r#"{"front_end":"device"}"#).unwrap();
    let expected = Attach {
        front_end: FrontEnd::Device,
        socket: None,
        queues: None,
        incoming: false,
        take_over: false,
    };
    assert_eq!(short, expected);
    let odd = serde_json::from_str::<Attach>(r#"{"front_end":"floppy"}"#).unwrap_err();
    assert!(odd.to_string().contains("floppy"), "{odd}");
    let odd = serde_json::from_str::<Attach>(r#"{"front_end":"nbd","queue":1}"#).unwrap_err();
    assert!(odd.to_string().contains("queue"), "{odd}");
}

#[test]
fn a_measurement_is_written_as_ever() {
    golden(
        &BenchResult {
            volume: "b".into(),
            rw: Workload::RandWrite,
            block_bytes: 4096,
            depth: 32,
            seconds: 10.0,
            requests: 1000,
            longest_gap_us: 4.0,
            iops: 100.0,
            bytes_per_second: 409600.0,
            mean_us: 1.5,
            p50_us: 1.0,
            p99_us: 2.0,
            max_us: 3.0,
            cpu_us_per_io: 0.5,
        },
        r#"{"volume":"b","rw":"randwrite","block_bytes":4096,"depth":32,"seconds":10.0,
            "requests":1000,"longest_gap_us":4.0,"iops":100.0,"bytes_per_second":409600.0,"mean_us":1.5,
            "p50_us":1.0,"p99_us":2.0,"max_us":3.0,"cpu_us_per_io":0.5}"#,
    );
}

#[test]
fn an_error_is_written_as_ever() {
    golden(
        &ErrorBody::new(ErrorCode::NotFound, "name", "no volume", "list them"),
        r#"{"code":"not_found","message":"no volume","field":"name","hint":"list them"}"#,
    );
}

#[test]
fn a_checksum_reads_back_and_others_do_not() {
    assert_eq!(crc_of_text(&crc_text(7)), Some(7));
    for odd in ["", "7", "+0000007", "0000000g", "000000070"] {
        assert_eq!(crc_of_text(odd), None, "{odd}");
    }
}

#[test]
fn a_client_is_written_as_ever() {
    golden(
        &ClusterClientMake {
            name: "otto".into(),
            role: ClientRole::Operator,
            expires_seconds: 60,
        },
        r#"{"name":"otto","role":"operator","expires_seconds":60}"#,
    );
    golden(
        &ClusterClient {
            name: "otto".into(),
            role: ClientRole::Admin,
            until_unix_seconds: 5,
            revoked: false,
        },
        r#"{"name":"otto","role":"admin","until_unix_seconds":5,"revoked":false}"#,
    );
}

#[test]
fn who_may_use_a_volume_is_written_as_ever() {
    golden(&NbdClients::None, r#""none""#);
    golden(&NbdClients::Any, r#""any""#);
    let only = NbdClients::Only(vec!["a".into(), "b".into()]);
    golden(&only, r#"{"only":["a","b"]}"#);
}
