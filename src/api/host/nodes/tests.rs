//! What is refused of a node that holds something, and in which words.

use super::maintenance::{may_be_away, short_without};
use super::remove::{is_let_go_of, may_be_given_up};
use super::{meant, names, view, volumes_over};
use crate::api::model::{ErrorBody, NodeData};
use crate::base::{DiskId, NodeId, PgId, StoreId};
use crate::protocol::catalog::{
    Batch, Catalog, Command, DiskState, FrontEnd, Locality, Maintenance, Purpose, StoreName,
};
use crate::protocol::membership::Incarnation;
use crate::protocol::placement::Level;
use crate::protocol::replication::Reconfigure;

fn apply(catalog: &mut Catalog, command: Command) {
    catalog.apply(&command).unwrap();
}

/// Three nodes with a disk each of the same number, two copies, and PGs on disks 1 and 2, and 2 and 3; one volume `v` over both.
fn site(min_copies: u32) -> Catalog {
    let mut catalog = Catalog::default();
    let set = Command::SetPool {
        pool: "default".into(),
        copies: 2,
        min_copies,
        level: Level::Node,
    };
    for n in 1..=3_u8 {
        let name = format!("n{n}");
        apply(&mut catalog, Command::AddNode { name });
    }
    apply(&mut catalog, set);
    for n in 1..=3_u8 {
        let add = Command::AddDisk {
            node: NodeId(n.into()),
            path: format!("/d{n}"),
            store: StoreName(StoreId([n; 16])),
            size: 1 << 30,
            pool: None,
            incarnation: Incarnation(0),
        };
        apply(&mut catalog, add);
    }
    let create = Command::CreatePgs {
        pool: catalog.pools().next().unwrap().id,
        first: PgId(1),
        replicas: vec![vec![DiskId(1), DiskId(2)], vec![DiskId(2), DiskId(3)]],
        batch: Batch::Last,
    };
    apply(&mut catalog, create);
    let volume = Command::CreateVolume {
        name: "v".into(),
        size: 16 << 20,
        block_size: 4096,
        purpose: Purpose::Use,
        pool: None,
        locality: Locality::Spread,
    };
    apply(&mut catalog, volume);
    catalog
}

fn leave_out(catalog: &mut Catalog, pg: u32, disk: u32) {
    let pg = PgId(pg);
    let version = catalog.pg(pg).unwrap().version();
    let change = Reconfigure::Evict { disk: DiskId(disk) };
    apply(
        catalog,
        Command::Reconfigure {
            pg,
            version,
            change,
        },
    );
}

fn says(refused: Result<(), ErrorBody>, words: &[&str]) {
    let text = refused.unwrap_err().to_string();
    for one in words {
        assert!(text.contains(one), "{one:?} in {text:?}");
    }
}

fn away(catalog: &Catalog, node: &str, silent: &[u32]) -> Result<(), ErrorBody> {
    let silent = silent.iter().map(|&node| NodeId(node)).collect();
    may_be_away(catalog, meant(catalog, node).unwrap(), &silent)
}

#[test]
fn maintenance_is_refused_where_the_last_copy_that_is_up_would_go() {
    let mut catalog = site(1);
    away(&catalog, "n1", &[]).unwrap();
    away(&catalog, "2", &[]).unwrap();
    // The others in sync are of a node that does not answer.
    says(
        away(&catalog, "n1", &[2]),
        &["1 placement groups", "last copy that is up", "pool show"],
    );
    away(&catalog, "n1", &[3]).unwrap();
    // Or of one that is worked at.
    let set = Command::SetMaintenance {
        node: NodeId(2),
        maintenance: Maintenance::On,
        until: Some(1),
    };
    apply(&mut catalog, set);
    says(away(&catalog, "n3", &[]), &["last copy that is up"]);
    // One that is away already, and left out, takes nothing with it.
    let mut catalog = site(1);
    leave_out(&mut catalog, 1, 1);
    away(&catalog, "n1", &[1]).unwrap();
    says(
        away(&catalog, "n2", &[1]),
        &["without node n2", "last copy"],
    );
    says(
        away(&site(2), "n1", &[]),
        &["fewer copies than min_copies", "writes there would wait"],
    );
}

#[test]
fn what_would_wait_without_a_node_is_named() {
    let catalog = site(1);
    let short = |silent: &[u32]| {
        let silent = silent.iter().map(|&node| NodeId(node)).collect();
        short_without(&catalog, meant(&catalog, "n1").unwrap(), &silent)
    };
    assert!(short(&[]).is_empty());
    let alone: Vec<PgId> = short(&[2]).into_keys().collect();
    assert_eq!(alone, [PgId(1)]);
    assert_eq!(names(&catalog, volumes_over(&catalog, &alone)), ["v"]);
    assert!(volumes_over(&catalog, &[]).is_empty());
}

fn let_go(catalog: &Catalog, node: &str, is_silent: bool) -> Result<(), ErrorBody> {
    is_let_go_of(catalog, meant(catalog, node).unwrap(), is_silent)
}

fn given_up(catalog: &Catalog, node: &str, is_silent: bool) -> Result<(), ErrorBody> {
    may_be_given_up(catalog, meant(catalog, node).unwrap(), is_silent)
}

#[test]
fn a_node_that_holds_or_serves_anything_is_not_let_go_of() {
    let mut catalog = site(1);
    says(
        let_go(&catalog, "n1", false),
        &["1 copies", "sarsen node drain NODE --wait"],
    );
    says(let_go(&catalog, "n1", true), &["ten minutes", "--force"]);
    leave_out(&mut catalog, 1, 2);
    says(
        let_go(&catalog, "n1", false),
        &["the only copy of 1 placement groups", "of volumes v"],
    );
    // A node with nothing, but a volume.
    let name = "n4".to_string();
    apply(&mut catalog, Command::AddNode { name });
    let_go(&catalog, "n4", false).unwrap();
    let attach = Command::Attach {
        volume: catalog.volume_named("v").unwrap().id,
        node: NodeId(4),
        front_end: FrontEnd::None,
    };
    apply(&mut catalog, attach);
    says(
        let_go(&catalog, "n4", false),
        &["1 volume(s) attached", ": v", "detach"],
    );
    says(let_go(&catalog, "n4", true), &["--force"]);
}

#[test]
fn a_disk_that_takes_data_is_drained_first_though_nothing_is_on_it_yet() {
    let mut catalog = site(1);
    let name = "n4".to_string();
    apply(&mut catalog, Command::AddNode { name });
    let add = Command::AddDisk {
        node: NodeId(4),
        path: "/d4".into(),
        store: StoreName(StoreId([4; 16])),
        size: 1 << 30,
        pool: None,
        incarnation: Incarnation(0),
    };
    apply(&mut catalog, add);
    let data = |catalog: &Catalog| {
        let node = meant(catalog, "n4").unwrap();
        view(catalog, node, super::alone(catalog, node)).data
    };
    assert_eq!(data(&catalog), NodeData::Taking);
    says(
        let_go(&catalog, "n4", false),
        &["disk 4 of node n4 takes data", "drain"],
    );
    let drain = Command::SetDiskState {
        disk: DiskId(4),
        state: DiskState::Draining,
    };
    apply(&mut catalog, drain);
    let_go(&catalog, "n4", false).unwrap();
    assert_eq!(data(&catalog), NodeData::Left);
}

#[test]
fn a_node_is_given_up_only_where_it_is_silent_and_nothing_is_lost() {
    let mut catalog = site(1);
    says(
        given_up(&catalog, "n1", false),
        &["answers", "without --force"],
    );
    given_up(&catalog, "n1", true).unwrap();
    leave_out(&mut catalog, 2, 2);
    says(
        given_up(&catalog, "n3", true),
        &[
            "the only copy of 1 placement groups, of volumes v",
            "gives up no data",
        ],
    );
    // Two nodes are no place for two copies where one of them goes.
    let state = DiskState::OutOfService;
    let disk = DiskId(3);
    let mut catalog = site(1);
    apply(&mut catalog, Command::SetDiskState { disk, state });
    says(given_up(&catalog, "n1", true), &["2 copies need as many"]);
}
