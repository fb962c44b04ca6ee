//! Low space: looked at now and then, warned of before a writer meets ENOSPC.

use super::notes::subject;
use super::{AlertKind, Alerts, Host};
use crate::observe::DiskNumbers;
use std::time::Duration;

/// How often is looked. The fastest disks here write 3 GB/s, so the last 5 % of 1 TB take 15 s.
const EVERY: Duration = Duration::from_secs(5);
/// From how full on is warned, in percent.
const LOW: u64 = 80;
const VERY_LOW: u64 = 95;
/// An alert goes only when it is this many percent below its mark, so that it does not come and go.
const SLACK: u64 = 2;

impl Host {
    /// Watches the space of the disks, for as long as the daemon runs.
    pub async fn watch_space(&self) {
        loop {
            tokio::time::sleep(EVERY).await;
            for disk in self.manager().catalog().disks_of(self.inner.parts.node) {
                let numbers = self.registry().disk(disk.id).get();
                judge(self.alerts(), &subject(disk.id, Some(&disk.path)), &numbers);
            }
        }
    }
}

/// Raises and ends the alerts of one disk by its numbers.
fn judge(alerts: &Alerts, subject: &str, numbers: &DiskNumbers) {
    let Some(percent) = (numbers.used_bytes * 100).checked_div(numbers.capacity_bytes) else {
        return; // not open, so nothing is known of it
    };
    for (kind, mark) in [
        (AlertKind::LowSpace, LOW),
        (AlertKind::VeryLowSpace, VERY_LOW),
    ] {
        if percent >= mark {
            let reason = format!(
                "{percent} % in use: {} of {} bytes",
                numbers.used_bytes, numbers.capacity_bytes
            );
            alerts.raise(kind, subject, reason);
        } else if percent + SLACK < mark {
            alerts.clear(kind, subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The alerts after the disk was this full, percent after percent.
    fn after(percents: &[u64]) -> Vec<String> {
        let alerts = Alerts::default();
        for percent in percents {
            let numbers = DiskNumbers {
                capacity_bytes: 1 << 40,
                used_bytes: percent * (1 << 40) / 100 + 1,
                ..DiskNumbers::default()
            };
            judge(&alerts, "disk 1", &numbers);
        }
        alerts.list().into_iter().map(|alert| alert.name).collect()
    }

    #[test]
    fn low_space_is_told_from_80_percent_on_and_again_from_95() {
        assert_eq!(after(&[79]), [""; 0]);
        assert_eq!(after(&[80]), ["low-space"]);
        assert_eq!(after(&[94]), ["low-space"]);
        assert_eq!(after(&[95]), ["low-space", "very-low-space"]);
    }

    #[test]
    fn an_alert_ends_a_little_below_its_mark_so_that_it_does_not_come_and_go() {
        assert_eq!(after(&[95, 93]), ["low-space", "very-low-space"]);
        assert_eq!(after(&[95, 92]), ["low-space"]);
        assert_eq!(after(&[95, 78]), ["low-space"]);
        assert_eq!(after(&[95, 77]), [""; 0]);
        assert_eq!(after(&[78]), [""; 0]);
    }

    #[test]
    fn nothing_is_said_of_a_disk_that_is_not_open() {
        let alerts = Alerts::default();
        judge(&alerts, "disk 1", &DiskNumbers::default());
        assert_eq!(alerts.list(), []);
    }
}
