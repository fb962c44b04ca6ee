//! The API over its socket: what is refused, and in which words.

mod disks;
mod nodes;
mod pools;

use super::client::{Client, ClientError};
use super::host::{FrontEnds, HandedOver, Host, KernelDevices, Parts, Sockets};
use super::model::*;
use crate::base::{StoreId, crc};
use crate::cluster::Cluster;
use crate::manager::Manager;
use crate::protocol::catalog::{Command, Purpose, StoreName};
use crate::runtime::{Config, Runtime};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

/// A served API in a folder of its own, over a catalog with one disk that nothing serves.
struct World {
    folder: PathBuf,
    manager: Manager,
}

impl World {
    fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    fn client(&self) -> Client {
        Client::new(&self.socket())
    }

    /// Sends bytes as they are; the status line and body of the answer.
    async fn raw(&self, request: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    }

    async fn error(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, ErrorBody) {
        let len = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             content-length: {len}\r\n{headers}\r\n{body}"
        );
        let (status, body) = self.raw(&request).await;
        (
            status,
            serde_json::from_str(&body).unwrap_or_else(|e| panic!("{body}: {e}")),
        )
    }
}

fn world<F: Future<Output = ()>>(name: &str, story: impl FnOnce(Arc<World>) -> F) {
    let folder = std::env::temp_dir().join(format!("sarsen-api-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = Manager::open(folder.join("catalog")).await.unwrap();
        manager
            .propose(Command::AddNode { name: "a".into() })
            .await
            .unwrap();
        let node = manager.catalog().nodes().next().unwrap().id;
        let disk = Command::AddDisk {
            node,
            path: "/nonexistent/disk0".into(),
            store: StoreName(StoreId([1; 16])),
            size: 1 << 30,
            pool: None,
            incarnation: crate::protocol::membership::Incarnation(0),
        };
        manager.propose(disk).await.unwrap();
        let registry = Arc::default();
        // A ring that ends leaves its memory mapped, and all tests are one process.
        let config = Config {
            buffer_bytes: 64 << 20,
            ..Config::default()
        };
        let shards = Runtime::start(config, Arc::clone(&registry)).unwrap();
        let host = Host::new(Parts {
            manager: manager.clone(),
            pilot: None,
            cluster: Cluster::open(None, &folder, crate::trust::Clock::system()).unwrap(),
            name: "a".into(),
            runtime: shards.handle(),
            registry,
            node,
            nbd_socket: "/run/sarsen/nbd.sock".into(),
            overlay_bytes: 16 << 20,
            front_ends: FrontEnds {
                guests: Arc::new(shards.handle()),
                devices: Arc::new(KernelDevices::new(shards.handle(), &folder)),
                sockets: Sockets::new(&folder, 0o600, None, Vec::new()),
                handed: HandedOver::default(),
            },
        });
        let world = Arc::new(World {
            folder: folder.clone(),
            manager,
        });
        let listener = UnixListener::bind(world.socket()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(super::serve(listener, host, async {
            let _ = stopped.await;
        }));
        story(world).await;
        stop.send(()).unwrap();
        serving.await.unwrap().unwrap();
        shards.stop();
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorBody {
    match result.unwrap_err() {
        ClientError::Refused(error) => error,
        other => panic!("{other}"),
    }
}

async fn put_volume(world: &World, name: &str, purpose: Purpose) {
    let create = Command::CreateVolume {
        name: name.into(),
        size: 1 << 20,
        block_size: 4096,
        purpose,
        pool: None,
        locality: crate::protocol::catalog::Locality::Spread,
    };
    world.manager.propose(create).await.unwrap();
}

#[test]
fn what_is_not_there_is_not_found() {
    world("missing", async |world| {
        let mut client = world.client();
        let error = refused(client.volume("ghost").await);
        assert_eq!(
            (error.code, error.field.as_str()),
            (ErrorCode::NotFound, "name")
        );
        assert_eq!(refused(client.disk(7).await).code, ErrorCode::NotFound);
        assert_eq!(
            refused(client.delete_volume("ghost").await).code,
            ErrorCode::NotFound
        );
        let (status, error) = world.error("GET", "/v2/status", "", "").await;
        assert_eq!((status, error.code), (404, ErrorCode::NotFound));
        let (status, _) = world.error("PATCH", "/v1/status", "", "").await;
        assert_eq!(status, 400);
    });
}

#[test]
fn a_disk_that_is_not_there_does_not_grow() {
    world("grow", async |world| {
        let mut client = world.client();
        let grow = DiskGrow {
            size_bytes: Some(2 << 30),
        };
        assert_eq!(
            refused(client.grow_disk(7, &grow).await).code,
            ErrorCode::NotFound
        );
        let error = refused(client.grow_disk(1, &grow).await);
        assert_eq!(error.code, ErrorCode::Io);
        assert!(error.message.contains("/nonexistent/disk0"), "{error}");
        let (status, error) = world
            .error("POST", "/v1/disks/1/grow", "", r#"{"size":1}"#)
            .await;
        assert_eq!((status, error.field.as_str()), (400, "size"));
        assert_eq!(
            world.manager.catalog().disks().next().unwrap().size,
            1 << 30
        );
    });
}

#[test]
fn a_body_that_is_nonsense_is_refused_with_its_field() {
    world("nonsense", async |world| {
        for (body, field) in [
            ("", "body"),
            ("{", "body"),
            ("[]", "body"),
            (r#"{"name":"a"}"#, "size_bytes"),
            (r#"{"name":"a","size_bytes":4096,"colour":1}"#, "colour"),
            (r#"{"name":"a","size_bytes":-1}"#, "body"),
            (r#"{"name":"a","size_bytes":4095}"#, "size"),
            (r#"{"name":"../a","size_bytes":4096}"#, "name"),
            (
                r#"{"name":"a","size_bytes":4096,"block_size_bytes":7}"#,
                "block_size",
            ),
        ] {
            let (status, error) = world.error("POST", "/v1/volumes", "", body).await;
            assert_eq!((status, error.field.as_str()), (400, field), "{body}");
        }
        let large = " ".repeat(100 << 10);
        let (status, error) = world.error("POST", "/v1/volumes", "", &large).await;
        assert_eq!((status, error.code), (413, ErrorCode::TooLarge));
        assert_eq!(world.manager.catalog().volumes().count(), 0);
    });
}

#[test]
fn a_volume_that_cannot_be_served_is_not_created() {
    world("unserved", async |world| {
        let create = VolumeCreate {
            name: "a".into(),
            size_bytes: 1 << 20,
            block_size_bytes: 4096,
            purpose: VolumeCreatePurpose::Use,
            pool: None,
            locality: Locality::Spread,
        };
        let error = refused(world.client().create_volume(&create).await);
        assert!(error.message.contains("volume a"), "{error}");
        if let Ok(volume) = world.client().volume("a").await {
            assert_eq!(volume.state, VolumeState::Deleting);
        }
        let create = VolumeCreate {
            name: "b".into(),
            ..create
        };
        let large = VolumeCreate {
            size_bytes: 1 << 40,
            ..create
        };
        let error = refused(world.client().create_volume(&large).await);
        assert_eq!(error.code, ErrorCode::Exhausted);
    });
}

#[test]
fn data_is_checked_before_anything_is_written() {
    world("data", async |world| {
        put_volume(&world, "whole", Purpose::Use).await;
        put_volume(&world, "filling", Purpose::Import).await;
        let put = |path: &'static str, headers: String| {
            let world = Arc::clone(&world);
            async move { world.error("PUT", path, &headers, "data").await }
        };
        let right = format!("{CRC_HEADER}: {}\r\n", crc_text(crc::of(b"data")));
        let (_, error) = put("/v1/volumes/filling/data?offset=0", String::new()).await;
        assert_eq!(error.field, CRC_HEADER);
        let odd = format!("{CRC_HEADER}: 1234\r\n");
        let (_, error) = put("/v1/volumes/filling/data?offset=0", odd).await;
        assert_eq!(error.field, CRC_HEADER);
        let wrong = format!("{CRC_HEADER}: 00000000\r\n");
        let (status, error) = put("/v1/volumes/filling/data?offset=0", wrong).await;
        assert_eq!((status, error.code), (422, ErrorCode::Checksum));
        for path in [
            "/v1/volumes/filling/data?offset=1048573",
            "/v1/volumes/filling/data?offset=18446744073709551615",
        ] {
            let (_, error) = put(path, right.clone()).await;
            assert_eq!(error.field, "offset", "{path}");
        }
        for query in [
            "",
            "?offset=-1",
            "?offset=a",
            "?offset=0&len=3",
            "?offset=1&offset=2",
        ] {
            let path = format!("/v1/volumes/filling/data{query}");
            let (_, error) = world.error("PUT", &path, &right, "data").await;
            assert_eq!(error.field, "query", "{query}");
        }
        let (status, error) = put("/v1/volumes/whole/data?offset=0", right).await;
        assert_eq!((status, error.code), (409, ErrorCode::Conflict));
        let mut client = world.client();
        assert_eq!(
            refused(client.data("filling", 0, 4096).await).code,
            ErrorCode::Conflict
        );
        assert_eq!(refused(client.data("whole", 0, 8 << 20).await).field, "len");
        assert_eq!(
            refused(client.data("whole", 1 << 20, 1).await).field,
            "offset"
        );
        assert_eq!(refused(client.map("whole", 0, 0).await).field, "offset");
    });
}

#[test]
fn an_import_ends_only_with_the_right_checksum() {
    world("finish", async |world| {
        put_volume(&world, "filling", Purpose::Import).await;
        let mut client = world.client();
        let finish = |source_bytes, crc32c: &str| ImportFinish {
            source_bytes,
            crc32c: crc32c.into(),
        };
        let error = refused(
            client
                .finish_import("filling", &finish(4096, "00000000"))
                .await,
        );
        assert_eq!(error.code, ErrorCode::Checksum);
        let error = refused(
            client
                .finish_import("filling", &finish(2 << 20, "00000000"))
                .await,
        );
        assert_eq!(error.field, "source_bytes");
        let volume = client.volume("filling").await.unwrap();
        assert_eq!(volume.state, VolumeState::Importing);
        assert_eq!(volume.import.unwrap().through_bytes, 0);
    });
}

#[test]
fn a_measurement_does_not_write_over_data_unasked() {
    world("bench", async |world| {
        put_volume(&world, "mine", Purpose::Use).await;
        put_volume(&world, "filling", Purpose::Import).await;
        let bench = BenchRequest {
            volume: "mine".into(),
            rw: Workload::RandWrite,
            block_bytes: 4096,
            depth: 1,
            seconds: 1.0,
            overwrite: false,
        };
        let mut client = world.client();
        let error = refused(client.bench(&bench).await);
        assert_eq!(
            (error.code, error.field.as_str()),
            (ErrorCode::Conflict, "volume")
        );
        let odd = BenchRequest {
            block_bytes: 100,
            ..bench.clone()
        };
        assert_eq!(refused(client.bench(&odd).await).field, "block_bytes");
        let odd = BenchRequest {
            depth: 0,
            ..bench.clone()
        };
        assert_eq!(refused(client.bench(&odd).await).field, "depth");
        let odd = BenchRequest {
            seconds: 0.0,
            ..bench.clone()
        };
        assert_eq!(refused(client.bench(&odd).await).field, "seconds");
        let filling = BenchRequest {
            volume: "filling".into(),
            overwrite: true,
            ..bench
        };
        assert_eq!(
            refused(client.bench(&filling).await).code,
            ErrorCode::Conflict
        );
    });
}

#[test]
fn status_lists_and_metrics_tell_what_is_in_the_catalog() {
    world("status", async |world| {
        put_volume(&world, "b", Purpose::Use).await;
        put_volume(&world, "a", Purpose::Use).await;
        let mut client = world.client();
        let status = client.status().await.unwrap();
        assert_eq!(
            (status.nodes.len(), status.disks, status.volumes),
            (1, 1, 2)
        );
        assert_eq!(status.nodes[0].pid, std::process::id());
        assert_eq!(
            (status.capacity_bytes, status.promised_bytes),
            (1 << 30, 2 << 20)
        );
        let names: Vec<String> = client
            .volumes()
            .await
            .unwrap()
            .volumes
            .into_iter()
            .map(|v| v.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(client.disks().await.unwrap().disks[0].pgs, 32);
        assert_eq!(client.alerts().await.unwrap().alerts, []);
        let metrics = client.metrics().await.unwrap();
        assert!(metrics.contains("sarsen_volumes 2\n"), "{metrics}");
        assert!(
            metrics.contains("sarsen_volume_size_bytes{volume=\"a\"} 1048576\n"),
            "{metrics}"
        );
        assert!(metrics.ends_with("# EOF\n"));
    });
}

#[test]
fn a_node_alone_says_so_and_refuses_volumes_of_copies_that_it_would_not_hold() {
    world("alone", |world| async move {
        let mut client = world.client();
        assert_eq!(client.status().await.unwrap().cluster, None);
        let alone = refused(client.cluster().await);
        assert_eq!(alone.code, ErrorCode::Conflict);
        assert!(alone.hint.contains("sarsen cluster init"), "{alone}");
        let unlistening = refused(client.found_cluster().await);
        assert!(unlistening.hint.contains("[cluster]"), "{unlistening}");
        let short = ClusterTokenMake { expires_seconds: 1 };
        let short = refused(client.cluster_token(&short).await);
        assert_eq!(short.field, "expires_seconds");
        let join = ClusterJoin {
            address: "127.0.0.1:1".into(),
            token: "x".into(),
        };
        let full = refused(client.join_cluster(&join).await);
        assert!(full.message.contains("/nonexistent/disk0"), "{full}");
    });
}

#[test]
fn pools_are_shown_and_changed_and_a_lone_node_has_one_copy() {
    world("pools", |world| async move {
        let mut client = world.client();
        let pools = client.pools().await.unwrap().pools;
        let [pool] = pools.as_slice() else {
            panic!("{pools:?}");
        };
        assert_eq!((pool.name.as_str(), pool.copies), ("default", 1));
        assert_eq!((pool.reason.as_str(), pool.pgs.whole), ("", pool.pgs.all));
        let set = |copies| PoolSet {
            copies: Some(copies),
            ..PoolSet::default()
        };
        let alone = refused(client.set_pool("default", &set(2)).await);
        assert_eq!(
            (alone.code, alone.field.as_str()),
            (ErrorCode::Conflict, "copies")
        );
        assert!(alone.hint.contains("sarsen cluster init"), "{alone}");
        let none = refused(client.set_pool("default", &set(0)).await);
        assert_eq!(
            (none.code, none.field.as_str()),
            (ErrorCode::Invalid, "copies")
        );
        let more = PoolSet {
            overcommit_percent: Some(150),
            ..PoolSet::default()
        };
        let unknown = refused(client.set_pool("fast", &more).await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
        let changed = client.set_pool("default", &more).await.unwrap();
        assert_eq!((changed.overcommit_percent, changed.copies), (150, 1));
        // A disk of a lone node has nowhere to go.
        let drain = refused(client.drain_disk(1, &DiskDrain::default()).await);
        assert!(drain.message.contains("alone"), "{drain}");
    });
}
