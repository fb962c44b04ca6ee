//! Alerts: conditions that a person should know of, each with its cure. An alert is state, not an event: it is
//! there as long as its condition is, however often that was seen.

use crate::api::model::Alert;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many alerts are kept. Each is about one disk, volume or pool, so there are few; the bound is for a
/// catalog of broken volumes.
const ALERTS_MAX: usize = 1_000;

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    DiskFailed,
    RottenBlock,
    UnreadableBlock,
    DamagedPage,
    DamagedJournal,
    LowSpace,
    VeryLowSpace,
    VolumeUnavailable,
    AttachmentFailed,
    DeviceNotResized,
    /// A change of the catalog of which nobody knows whether it was made.
    ChangeUnknown,
    NodeUnreachable,
    NoLeader,
    /// Copies are missing.
    PoolDegraded,
    /// Somebody works at a node.
    NodeMaintenance,
    /// This node is of the cluster no more.
    NodeRemoved,
}

impl AlertKind {
    pub const ALL: [AlertKind; 16] = [
        AlertKind::DiskFailed,
        AlertKind::RottenBlock,
        AlertKind::UnreadableBlock,
        AlertKind::DamagedPage,
        AlertKind::DamagedJournal,
        AlertKind::LowSpace,
        AlertKind::VeryLowSpace,
        AlertKind::VolumeUnavailable,
        AlertKind::AttachmentFailed,
        AlertKind::DeviceNotResized,
        AlertKind::ChangeUnknown,
        AlertKind::NodeUnreachable,
        AlertKind::NoLeader,
        AlertKind::PoolDegraded,
        AlertKind::NodeMaintenance,
        AlertKind::NodeRemoved,
    ];

    /// Its name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            AlertKind::DiskFailed => "disk-failed",
            AlertKind::RottenBlock => "rotten-block",
            AlertKind::UnreadableBlock => "unreadable-block",
            AlertKind::DamagedPage => "damaged-page",
            AlertKind::DamagedJournal => "damaged-journal",
            AlertKind::LowSpace => "low-space",
            AlertKind::VeryLowSpace => "very-low-space",
            AlertKind::VolumeUnavailable => "volume-unavailable",
            AlertKind::AttachmentFailed => "attachment-failed",
            AlertKind::DeviceNotResized => "device-not-resized",
            AlertKind::ChangeUnknown => "change-unknown",
            AlertKind::NodeUnreachable => "node-unreachable",
            AlertKind::NoLeader => "no-leader",
            AlertKind::PoolDegraded => "pool-degraded",
            AlertKind::NodeMaintenance => "node-maintenance",
            AlertKind::NodeRemoved => "node-removed",
        }
    }

    fn cure(self) -> &'static str {
        match self {
            AlertKind::DiskFailed => {
                "look at the host's kernel log, repair or replace the disk, then restart the daemon"
            }
            AlertKind::RottenBlock | AlertKind::UnreadableBlock => {
                "write the block again or restore it from a backup, then run `sarsen disk scrub`; \
                 if it returns, replace the disk"
            }
            AlertKind::DamagedPage => {
                "restore the volumes that have data there from a backup; `sarsen disk check` (with \
                 the daemon stopped) says what is damaged"
            }
            AlertKind::DamagedJournal => {
                "the disk is read-only: copy its volumes away with `sarsen volume export`, then \
                 format it anew"
            }
            AlertKind::LowSpace | AlertKind::VeryLowSpace => {
                "add a disk (`sarsen disk add`), delete volumes, or trim inside the guests"
            }
            AlertKind::VolumeUnavailable => "see to the disk that the reason names",
            AlertKind::AttachmentFailed => {
                "see to what the reason names; it is tried again every 2 s (`sarsen detach --force` \
                 gives it up)"
            }
            AlertKind::DeviceNotResized => {
                "it is tried again every 2 s; else unmount, detach and attach the volume again"
            }
            AlertKind::ChangeUnknown => {
                "restart the daemon, which serves what is recorded by then; or ask for the change again"
            }
            AlertKind::NodeUnreachable => {
                "see to the node and the network between; a member that does not come back is replaced with `sarsen cluster members set`"
            }
            AlertKind::NoLeader => {
                "bring back most of the members (`sarsen cluster members`): without them nobody can lead"
            }
            AlertKind::PoolDegraded => {
                "bring back the node or disk that the reason names, or add a disk where it says that one is needed; `sarsen pool show` says how it goes"
            }
            AlertKind::NodeMaintenance => {
                "it ends by itself; `sarsen node maintenance NODE off` ends it now, and `on --for TIME` prolongs it"
            }
            AlertKind::NodeRemoved => {
                "stop this daemon; to have it in the cluster again, move its data_dir and its disks' stores away, and join as a new node"
            }
        }
    }
}

/// The alerts of this node.
#[derive(Debug, Default)]
pub struct Alerts {
    /// By kind and subject.
    active: Mutex<BTreeMap<(AlertKind, String), Alert>>,
}

/// Seconds since 1970, UTC.
pub(super) fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

impl Alerts {
    /// Says that a condition is there. Where it was said before, the reason is the newest one and the beginning
    /// stays. True where it is new.
    pub fn raise(&self, kind: AlertKind, subject: &str, reason: impl Into<String>) -> bool {
        let mut active = super::lock(&self.active);
        let key = (kind, subject.to_owned());
        if let Some(alert) = active.get_mut(&key) {
            alert.reason = reason.into();
            alert.count += 1;
            return false;
        }
        if active.len() == ALERTS_MAX {
            return false;
        }
        let alert = Alert {
            name: kind.name().into(),
            subject: subject.into(),
            since_unix_seconds: unix_seconds(),
            reason: reason.into(),
            cure: kind.cure().into(),
            count: 1,
        };
        tracing::warn!(
            alert = kind.name(),
            subject,
            reason = alert.reason,
            "an alert is raised"
        );
        active.insert(key, alert);
        true
    }

    /// Says that a condition is gone.
    pub fn clear(&self, kind: AlertKind, subject: &str) {
        if super::lock(&self.active)
            .remove(&(kind, subject.to_owned()))
            .is_some()
        {
            tracing::info!(alert = kind.name(), subject, "an alert is over");
        }
    }

    /// Says that all conditions are gone of what is itself gone.
    pub fn forget(&self, is_about: impl Fn(&str) -> bool) {
        super::lock(&self.active).retain(|(kind, subject), _| {
            let goes = is_about(subject);
            if goes {
                tracing::info!(alert = kind.name(), subject, "an alert is over");
            }
            !goes
        });
    }

    /// Since when a condition is there, in seconds since 1970 UTC; nothing where it is not.
    pub fn since(&self, kind: AlertKind, subject: &str) -> Option<u64> {
        let key = (kind, subject.to_owned());
        let active = super::lock(&self.active);
        active.get(&key).map(|alert| alert.since_unix_seconds)
    }

    /// By kind and subject.
    pub fn list(&self) -> Vec<Alert> {
        super::lock(&self.active).values().cloned().collect()
    }

    /// How many alerts of each kind there are, for metrics.
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let active = super::lock(&self.active);
        let count = |kind| active.keys().filter(|(of, _)| *of == kind).count();
        AlertKind::ALL
            .iter()
            .map(|&kind| (kind.name(), count(kind)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_that_is_raised_again_keeps_its_beginning_and_counts() {
        let alerts = Alerts::default();
        assert!(alerts.raise(AlertKind::RottenBlock, "disk 1", "first"));
        let since = alerts.list()[0].since_unix_seconds;
        assert!(!alerts.raise(AlertKind::RottenBlock, "disk 1", "second"));
        let list = alerts.list();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].count, list[0].since_unix_seconds), (2, since));
        let seen = |subject| alerts.since(AlertKind::RottenBlock, subject);
        assert_eq!((seen("disk 1"), seen("disk 2")), (Some(since), None));
        assert_eq!(list[0].reason, "second");
        assert!(!list[0].cure.is_empty());
    }

    #[test]
    fn an_alert_goes_when_its_condition_does() {
        let alerts = Alerts::default();
        alerts.raise(AlertKind::LowSpace, "disk 1", "80 %");
        alerts.raise(AlertKind::LowSpace, "disk 2", "80 %");
        alerts.clear(AlertKind::LowSpace, "disk 1");
        alerts.clear(AlertKind::LowSpace, "disk 1");
        assert_eq!(alerts.list().len(), 1);
        assert_eq!(alerts.list()[0].subject, "disk 2");
        alerts.forget(|subject| subject == "disk 1");
        assert_eq!(alerts.list().len(), 1);
        alerts.forget(|subject| subject == "disk 2");
        assert_eq!(alerts.list(), []);
    }
}
