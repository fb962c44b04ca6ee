//! Killing at a chosen moment: the counters of the daemon are looked at without a pause, and the kill follows the look
//! that shows the moment.

use super::daemon::Daemon;
use super::load::Load;
use super::metrics::{Metrics, Watch};
use super::{Step, ensure};
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

/// Waits for the moment, and kills. Returns how long it waited.
pub fn kill_at(daemon: &mut Daemon, load: &Load, moment: Moment) -> Step<Duration> {
    const WAIT_MAX: Duration = Duration::from_secs(20);
    let begun = Instant::now();
    let mut watch = Watch::open(&daemon.start.api)?;
    let mut before = watch.look()?;
    loop {
        let now = watch.look()?;
        if moment.is_now(&before, &now, load) || load.has_failed() {
            daemon.kill()?;
            return Ok(begun.elapsed());
        }
        ensure!(
            begun.elapsed() < WAIT_MAX,
            "no {moment:?} in {WAIT_MAX:?}: {now:?}"
        );
        before = now;
    }
}
