//! Disks over the API: what a dry run answers, and that it changes nothing.

use super::*;

#[test]
fn a_dry_run_of_an_addition_answers_the_disk_as_it_would_be_and_makes_nothing() {
    world("disk-dry-add", async |world| {
        let mut client = world.client();
        let path = world.folder.join("disk1");
        let mut add = DiskAdd {
            path: path.display().to_string(),
            size_bytes: Some(1 << 30),
            pool: None,
            dry_run: true,
        };
        let would = client.add_disk(&add).await.unwrap();
        assert_eq!((would.id, would.pgs, would.store.as_str()), (2, 32, ""));
        let arrival = would.arrival.unwrap();
        assert_eq!((arrival.copies, arrival.pool_size_bytes), (0, 2 << 30));
        assert!(arrival.capacity_bytes < 1 << 30, "{arrival:?}");
        assert!(arrival.reason.contains("one copy"), "{arrival:?}");
        assert!(!path.exists());
        assert_eq!(client.disks().await.unwrap().disks.len(), 1);
        add.size_bytes = None;
        let nothing = refused(client.add_disk(&add).await);
        assert_eq!(nothing.code, ErrorCode::NotFound);
        add.path = "/nonexistent/disk0".into();
        let known = refused(client.add_disk(&add).await);
        assert_eq!(known.code, ErrorCode::Exists);
        add.path = "disk1".into();
        assert_eq!(refused(client.add_disk(&add).await).field, "path");
    });
}

#[test]
fn a_removal_that_could_not_be_is_refused_with_the_reason_and_asking_changes_nothing() {
    world("disk-dry-remove", async |world| {
        let mut client = world.client();
        let alone = refused(client.may_remove_disk(1).await);
        assert_eq!(alone.code, ErrorCode::Conflict);
        assert!(alone.message.contains("alone"), "{alone}");
        let unknown = refused(client.may_remove_disk(9).await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
        assert_eq!(client.disks().await.unwrap().disks.len(), 1);
    });
}

#[test]
fn a_replacement_of_a_disk_that_cannot_be_emptied_adds_nothing() {
    world("disk-replace", async |world| {
        let mut client = world.client();
        let path = world.folder.join("disk1");
        let replace = DiskReplace {
            path: path.display().to_string(),
            size_bytes: Some(1 << 30),
            dry_run: false,
        };
        let alone = refused(client.replace_disk(1, &replace).await);
        assert!(alone.message.contains("alone"), "{alone}");
        let unknown = refused(client.replace_disk(9, &replace).await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
        assert_eq!(unknown.field, "disk");
        assert!(!path.exists());
        assert_eq!(client.disks().await.unwrap().disks.len(), 1);
    });
}
