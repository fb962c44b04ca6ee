//! The cases, one file a disaster.

mod a_disk_fails;
mod a_disk_grows;
mod a_disk_is_full;
mod a_disk_is_replaced;
mod attachments;
mod attachments_kept;
mod bits_flip;
mod cables;
mod clients;
mod clients_over_tls;
mod dev_nodes;
mod guests;
mod handed_over;
mod idle_and_hostile;
mod killed_under_load;
mod measured;
mod nodes_change;
pub mod power_is_cut;
mod rebuild;
mod replicated;
mod rolling;
mod several_nodes;
mod several_shards;
mod shared;
mod space_runs_low;
mod stopped_and_started;
mod volume_changes;

use crate::harness::Case;

/// All of them, in the order in which they run.
pub fn all() -> Vec<Case> {
    let mut all = clients::cases();
    all.extend(stopped_and_started::cases());
    all.extend(volume_changes::cases());
    all.extend(attachments::cases());
    all.extend(attachments_kept::cases());
    all.extend(handed_over::cases());
    all.extend(a_disk_is_full::cases());
    all.extend(a_disk_grows::cases());
    all.extend(a_disk_fails::cases());
    all.extend(space_runs_low::cases());
    all.extend(measured::cases());
    all.extend(idle_and_hostile::cases());
    all.extend(killed_under_load::cases());
    all.extend(several_nodes::cases());
    all.extend(clients_over_tls::cases());
    all.extend(replicated::cases());
    all.extend(rebuild::cases());
    all.extend(a_disk_is_replaced::cases());
    all.extend(cables::cases());
    all.extend(nodes_change::cases());
    all.extend(rolling::cases());
    all.extend(shared::cases());
    all.extend(dev_nodes::cases());
    all.extend(several_shards::cases());
    all.extend(power_is_cut::cases());
    all.extend(bits_flip::cases());
    all.extend(guests::cases());
    all
}
