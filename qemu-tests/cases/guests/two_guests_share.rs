//! Two guests at two nodes write the same blocks of a volume that several nodes have at once.
//!
//! Their clients are outside, where one clock tells when each was asked and answered: a guest passes on what it is asked to its disk.

use super::pool::Pool;
use crate::cases::shared::{LEAST, Sharers};
use crate::guest::{Guest, Plan, forward, free_port};
use crate::harness::daemon::Daemon;
use crate::harness::{Case, Outcome, Room, Step, ensure};
use std::path::PathBuf;

const PORT_INSIDE: u16 = 10809;
const SOCKET_INSIDE: &str = "/run/disk.sock";

pub fn cases() -> Vec<Case> {
    vec![Case::new(
        "two_guests_at_two_nodes_write_the_same_blocks_and_there_is_one_order_though_a_node_dies",
        one_order,
    )]
}

/// A guest on the volume at a node; where its disk is served outside.
fn on(room: &Room, node: &Daemon, name: &str) -> Step<(Guest, PathBuf)> {
    let socket = room.path(&format!("{name}.sock"));
    node.attach("v", &socket, 1)?;
    let (port, nbd) = (free_port()?, room.path(&format!("{name}.nbd")));
    forward(&nbd, port)?;
    let plan = Plan::new(room, name).vhost_user(&socket, 1);
    let mut guest = plan.network(port, PORT_INSIDE).boot()?;
    guest.serve("/dev/vda", SOCKET_INSIDE)?;
    guest.lead_outside(SOCKET_INSIDE, PORT_INSIDE)?;
    Ok((guest, nbd))
}

fn one_order(room: &Room) -> Outcome {
    let mut pool = Pool::replicated(room, "512M")?;
    pool.here().create("v", "16M")?;
    pool.here().tell(&["volume", "set", "v", "--shared"])?;
    let (mut first, one) = on(room, pool.here(), "first")?;
    let (mut second, other) = on(room, pool.there(), "second")?;
    let mut sharers = Sharers::new()?;
    let counts = sharers.together(&[&one, &other], || pool.amid())?;
    ensure!(
        counts.iter().all(|count| *count >= LEAST),
        "not both guests got their turns: {counts:?}"
    );
    let acts = sharers.check()?;
    first.nothing_failed()?;
    second.nothing_failed()?;
    first.kill()?;
    second.kill()?;
    pool.mended()?;
    Ok(format!("{acts} reads and writes have one order"))
}
