//! Pools over the API: what is refused, and that a refusal or a dry run changes nothing.

use super::*;

fn create(name: &str, copies: u32, min_copies: u32) -> PoolCreate {
    PoolCreate {
        name: name.into(),
        copies,
        min_copies,
        level: Level::Node,
        dry_run: false,
    }
}

fn named(error: &ErrorBody) -> (ErrorCode, &str) {
    (error.code, error.field.as_str())
}

#[test]
fn copies_that_cannot_be_are_refused_by_field_and_with_what_to_do() {
    world("pool-copies", async |world| {
        let mut client = world.client();
        for (copies, min_copies, field, says) in [
            (0, 1, "copies", "1 to 3"),
            (4, 1, "copies", "1 to 3"),
            (1, 2, "min_copies", "1 to 1"),
            (1, 0, "min_copies", "1 to 1"),
        ] {
            let made = refused(
                client
                    .create_pool(&create("fast", copies, min_copies))
                    .await,
            );
            let set = PoolSet {
                copies: Some(copies),
                min_copies: Some(min_copies),
                ..PoolSet::default()
            };
            let set = refused(client.set_pool("default", &set).await);
            for error in [made, set] {
                assert_eq!(named(&error), (ErrorCode::Invalid, field), "{error}");
                assert!(error.message.contains(says), "{error}");
                assert!(!error.hint.is_empty(), "{error}");
            }
        }
        let alone = refused(client.create_pool(&create("fast", 2, 1)).await);
        assert_eq!(named(&alone), (ErrorCode::Conflict, "copies"));
        let twice = refused(client.create_pool(&create("default", 1, 1)).await);
        assert_eq!(named(&twice), (ErrorCode::Exists, "name"));
        let odd = refused(client.create_pool(&create("../a", 1, 1)).await);
        assert_eq!(named(&odd), (ErrorCode::Invalid, "name"));
        assert_eq!(client.pools().await.unwrap().pools.len(), 1);
    });
}

#[test]
fn a_change_that_is_refused_in_part_is_not_made_at_all() {
    world("pool-part", async |world| {
        let mut client = world.client();
        let before = client.pool("default").await.unwrap();
        let set = PoolSet {
            level: Some(Level::Rack),
            overcommit_percent: Some(5),
            ..PoolSet::default()
        };
        let error = refused(client.set_pool("default", &set).await);
        assert_eq!(named(&error), (ErrorCode::Invalid, "overcommit_percent"));
        assert_eq!(client.pool("default").await.unwrap(), before);
        let unknown = refused(client.set_pool("fast", &set).await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
        assert!(unknown.hint.contains("sarsen pool list"), "{unknown}");
        for (body, field) in [
            (r#"{"copies":1,"colour":"red"}"#, "colour"),
            (r#"{"level":"shelf"}"#, "body"),
        ] {
            let (status, error) = world.error("PATCH", "/v1/pools/default", "", body).await;
            assert_eq!((status, error.field.as_str()), (400, field), "{error}");
        }
    });
}

#[test]
fn a_dry_run_answers_how_it_would_be_and_changes_nothing() {
    world("pool-dry", async |world| {
        let mut client = world.client();
        let set = PoolSet {
            overcommit_percent: Some(150),
            dry_run: true,
            ..PoolSet::default()
        };
        let would = client.set_pool("default", &set).await.unwrap();
        assert_eq!(would.overcommit_percent, 150);
        let is = client.pool("default").await.unwrap();
        assert_eq!(is.overcommit_percent, 2_000);
        let dry = PoolCreate {
            dry_run: true,
            ..create("fast", 1, 1)
        };
        let would = client.create_pool(&dry).await.unwrap();
        assert_eq!(
            (would.name.as_str(), would.disks, would.pgs.all),
            ("fast", 0, 0)
        );
        assert_eq!(refused(client.pool("fast").await).code, ErrorCode::NotFound);
        client.create_pool(&create("fast", 1, 1)).await.unwrap();
        assert_eq!(client.pool("fast").await.unwrap().copies, 1);
    });
}

#[test]
fn volumes_and_disks_name_their_pool() {
    world("pool-named", async |world| {
        let mut client = world.client();
        let volume = VolumeCreate {
            name: "a".into(),
            size_bytes: 1 << 20,
            block_size_bytes: 4096,
            purpose: VolumeCreatePurpose::Use,
            pool: Some("fast".into()),
            locality: Locality::Spread,
        };
        let unknown = refused(client.create_volume(&volume).await);
        assert_eq!(named(&unknown), (ErrorCode::NotFound, "pool"));
        let path = world.folder.join("disk1");
        let disk = DiskAdd {
            path: path.display().to_string(),
            size_bytes: Some(64 << 20),
            pool: Some("fast".into()),
            dry_run: false,
        };
        let unknown = refused(client.add_disk(&disk).await);
        assert_eq!(named(&unknown), (ErrorCode::NotFound, "pool"));
        assert!(!path.exists());
        client.create_pool(&create("fast", 1, 1)).await.unwrap();
        let empty = refused(client.create_volume(&volume).await);
        assert!(
            empty.message.contains("the pool fast has no disk"),
            "{empty}"
        );
        assert_eq!(client.add_disk(&disk).await.unwrap().pool, "fast");
        let made = client.create_volume(&volume).await.unwrap();
        assert_eq!((made.pool.as_str(), made.pg_states), ("fast", None));
        let local = VolumeCreate {
            name: "b".into(),
            locality: Locality::Local,
            ..volume
        };
        assert_eq!(client.create_volume(&local).await.unwrap().pool, "fast");
    });
}

#[test]
fn a_node_alone_is_whole_and_its_metrics_say_so() {
    world("pool-alone", async |world| {
        let mut client = world.client();
        let status = client.status().await.unwrap();
        assert_eq!((status.degraded_pools, status.alerts), (vec![], vec![]));
        assert_eq!(status.degraded_volumes, 0);
        let pool = client.pool("default").await.unwrap();
        assert_eq!((pool.pgs.whole, pool.reason.as_str()), (32, ""));
        assert_eq!((pool.since_unix_seconds, pool.lacking_bytes_max), (None, 0));
        let metrics = client.metrics().await.unwrap();
        for (state, count) in [("whole", 32), ("degraded", 0), ("lost", 0)] {
            let line = format!("sarsen_pool_pgs{{pool=\"default\",state=\"{state}\"}} {count}\n");
            assert!(metrics.contains(&line), "{metrics}");
        }
    });
}
