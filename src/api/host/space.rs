//! Low space: looked at now and then, warned of before a writer meets ENOSPC.

use super::notes::subject;
use super::{AlertKind, Host};
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
            for disk in self.manager().catalog().disks() {
                let numbers = self.registry().disk(disk.id).get();
                self.judge_space(&subject(disk.id, Some(&disk.path)), &numbers);
            }
        }
    }

    fn judge_space(&self, subject: &str, numbers: &DiskNumbers) {
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
                self.alerts().raise(kind, subject, reason);
            } else if percent + SLACK < mark {
                self.alerts().clear(kind, subject);
            }
        }
    }
}
