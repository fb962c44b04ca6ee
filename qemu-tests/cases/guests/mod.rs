//! Guests under QEMU, and hosts that are guests, one file a disaster.

mod a_device_is_taken_away;
mod boots_from_a_volume;
mod debian_host;
mod disk_over_nbd;
mod disks_change_under_a_guest;
mod file_systems_on_devices;
mod host;
mod pool;
mod the_daemon_is_killed_under_a_device;
mod the_daemon_is_killed_under_a_guest;
mod the_daemon_is_restarted_under_a_device;
mod the_daemon_is_upgraded_under_a_guest;
mod the_guest_moves;
mod the_host_loses_power;
mod the_kernel_has_less_or_more;
mod the_package_is_installed;
mod two_guests_share;

use crate::harness::{Case, Place};

/// All of them, in the order in which they run.
pub fn cases() -> Vec<Case> {
    let mut all = disk_over_nbd::cases();
    all.extend(the_host_loses_power::cases());
    all.extend(boots_from_a_volume::cases());
    all.extend(the_daemon_is_killed_under_a_guest::cases());
    all.extend(the_daemon_is_upgraded_under_a_guest::cases());
    all.extend(the_guest_moves::cases());
    all.extend(two_guests_share::cases());
    all.extend(disks_change_under_a_guest::cases());
    all.extend(the_daemon_is_killed_under_a_device::ublk());
    all.extend(file_systems_on_devices::ublk());
    all.extend(the_daemon_is_killed_under_a_device::nbd());
    all.extend(file_systems_on_devices::nbd());
    all.extend(the_daemon_is_restarted_under_a_device::cases());
    all.extend(a_device_is_taken_away::cases());
    all.extend(the_kernel_has_less_or_more::cases());
    all.extend(the_package_is_installed::cases());
    for case in &mut all {
        case.place = Place::Guest;
    }
    all
}
