//! Killing at a chosen moment: the counters of the daemon are looked at without a pause, and the kill follows the look
//! that shows the moment.

use super::Step;
use super::daemon::Daemon;
use super::load::Load;
use super::metrics::{Metrics, Watch};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What the store is to be doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The journal is more than half full: a checkpoint has begun, and has not moved the tail.
    Checkpoint,
    /// The journal began anew since the last look.
    Wrap,
    /// Payload moved to its slots since the last look.
    Apply,
    /// Slots were given back since the last look, and trims are unanswered.
    Trim,
    Any,
}

impl Moment {
    pub const ALL: [Moment; 5] = [
        Moment::Checkpoint,
        Moment::Wrap,
        Moment::Apply,
        Moment::Trim,
        Moment::Any,
    ];

    /// Whether it is now, by the last two looks.
    fn is_now(self, before: &Metrics, now: &Metrics, load: &Load) -> bool {
        let rose = |name: &str| now.get(name) > before.get(name);
        match self {
            Moment::Checkpoint => {
                let used = now.get("sarsen_disk_journal_used_bytes");
                used > now.get("sarsen_disk_journal_size_bytes") / 2.0
                    && !rose("sarsen_disk_checkpoints_total")
            }
            Moment::Wrap => rose("sarsen_disk_journal_wraps_total"),
            Moment::Apply => rose("sarsen_disk_applied_bytes_total"),
            Moment::Trim => {
                rose("sarsen_disk_trimmed_bytes_total")
                    && load.counts.trims_in_flight.load(Ordering::Relaxed) > 0
            }
            Moment::Any => true,
        }
    }
}

/// Waits for the moment, and kills; whether the moment was seen. Where it does not come the kill does not wait for
/// ever, because every kill is worth looking at.
pub fn kill_at(daemon: &mut Daemon, load: &Load, moment: Moment) -> Step<bool> {
    const WAIT_MAX: Duration = Duration::from_secs(10);
    let begun = Instant::now();
    let mut watch = Watch::open(&daemon.start.api)?;
    let mut before = watch.look()?;
    let counted = before.get("sarsen_disk_journal_size_bytes") > 0.0;
    loop {
        let now = watch.look()?;
        let is_now = moment.is_now(&before, &now, load);
        let patience = if counted {
            WAIT_MAX
        } else {
            Duration::from_millis(50)
        };
        if is_now || load.has_failed() || begun.elapsed() > patience {
            daemon.kill()?;
            return Ok(is_now);
        }
        before = now;
    }
}
