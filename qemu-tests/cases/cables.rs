//! Three hosts with a network of their own, whose cables are cut, one way too, flap and are slow, under load and mutual TLS.
//!
//! Every answer goes into a model, as in `replicated`.

use super::replicated::{Site, WRITES, rounds_or, whole};
use super::several_nodes::{COMES, three_hosts, until};
use crate::harness::load::Shape;
use crate::harness::network::Network;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rounds in the gate and in `--full`; one of each kind of fault, in turn.
const ROUNDS: usize = Fault::ALL.len();
const ROUNDS_IN_FULL: usize = 20;
/// Longer than any lease.
const CUT: Duration = Duration::from_secs(2);
/// Shorter than a lease and longer than one, in turn.
const FLAPS: [Duration; 4] = [
    Duration::from_millis(150),
    Duration::from_millis(700),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];
const SLOW: Duration = Duration::from_millis(20);
/// Written while the cables are slow: each takes two trips.
const WRITES_WHILE_SLOW: u64 = 300;

pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "three_hosts_lose_nothing_while_their_cables_are_cut_and_flap",
            |room| torture(room, ROUNDS),
        ),
        Case::new("three_hosts_lose_nothing_over_many_more_cuts", |room| {
            torture(room, ROUNDS_IN_FULL)
        })
        .only_in_full(),
    ]
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// A host that clients do not speak to reaches nobody.
    PeerCut,
    /// The host that they speak to reaches nobody.
    ServerCut,
    /// What a host sends to the others is lost; it hears them.
    OneWay,
    /// Two hosts do not reach each other; the third one reaches both, so that neither is believed to be the faulty one (R11). What needs both waits.
    Partial,
    /// A host's cable comes and goes.
    Flapping,
    /// All that goes to a host and comes from it takes longer.
    Slow,
}

impl Fault {
    const ALL: [Fault; 6] = [
        Fault::PeerCut,
        Fault::OneWay,
        Fault::Flapping,
        Fault::ServerCut,
        Fault::Partial,
        Fault::Slow,
    ];
}

/// Puts load on the volume, has cables fail in the middle of it, and sees to it that all is there afterwards.
fn round(site: &Site, network: &Network, fault: Fault, seed: usize) -> Step<()> {
    let shape = Shape {
        connections: 3,
        depth: 8,
    };
    let (server, peer) = (site.server, (site.server + 1 + seed % 2) % 3);
    let load = site.load(shape, seed as u64)?;
    let (lost, delayed) = network.lost_and_delayed();
    let goes_on = |writes| load.reach(load.acknowledged() + writes, COMES);
    match fault {
        Fault::PeerCut => {
            network.unplug(peer);
            goes_on(WRITES)?;
        }
        Fault::ServerCut => {
            network.unplug(server);
            std::thread::sleep(CUT);
        }
        Fault::OneWay => {
            for other in (0..3).filter(|other| *other != peer) {
                network.cut(peer, other);
            }
            goes_on(WRITES)?;
        }
        Fault::Partial => {
            network.cut(server, peer);
            network.cut(peer, server);
            until("the cut is an alert where it is felt", || {
                let status = site.at().tell(&["status"])?;
                Ok((!status.contains("node-unreachable")).then_some(status))
            })?;
        }
        Fault::Flapping => {
            for flap in FLAPS {
                network.unplug(peer);
                std::thread::sleep(flap);
                network.mend();
                std::thread::sleep(flap);
            }
        }
        Fault::Slow => {
            network.slow(peer, SLOW);
            goes_on(WRITES_WHILE_SLOW)?;
        }
    }
    let after = network.lost_and_delayed();
    let has_fired = match fault {
        Fault::Slow => after.1 > delayed,
        _ => after.0 > lost,
    };
    ensure!(has_fired, "no frame was lost or delayed");
    network.mend();
    goes_on(WRITES)?;
    load.finish()?;
    whole(site.at())
}

fn torture(room: &Room, rounds: usize) -> Outcome {
    let network = Network::new(3)?;
    let mut site = Site::new(room, three_hosts(room, &network)?)?;
    let mut faults: BTreeMap<Fault, u32> = BTreeMap::new();
    for number in 0..rounds_or(rounds)? {
        let fault = Fault::ALL[number % Fault::ALL.len()];
        let done = round(&site, &network, fault, number);
        done.map_err(|why| format!("round {number}, {fault:?}: {why}"))?;
        *faults.entry(fault).or_default() += 1;
        // Another node than the one that wrote reads what there is.
        site.server = (site.server + 1) % 3;
        site.verify()?;
    }
    let (lost, delayed) = network.lost_and_delayed();
    Ok(format!("{faults:?}, {lost} frames lost, {delayed} delayed"))
}
