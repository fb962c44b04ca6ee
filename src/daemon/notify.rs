//! Tells systemd how the service is, and that it lives.
//!
//! With `WatchdogSec` in the unit, the daemon is restarted when it is silent for that long. A sign of life is sent
//! only when every shard has answered in a turn of its own: a shard that hangs must not hide behind the others, and
//! neither must the control plane, which is what asks.

use crate::io::{clock, tell_service_manager, watchdog_interval};
use crate::runtime::Handle;
use std::time::Duration;

/// What a service says.
#[derive(Debug, Clone, Copy)]
pub(super) enum Notice {
    Ready,
    /// It becomes another binary, and will be ready again.
    Reloading,
    Stopping,
    Alive,
}

/// Says it. A service manager that does not listen is not an error of ours, but somebody should know.
pub(super) fn say(notice: Notice) {
    let text = match notice {
        Notice::Ready => "READY=1\n".to_owned(),
        Notice::Reloading => format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::monotonic_us()),
        Notice::Stopping => "STOPPING=1\n".to_owned(),
        Notice::Alive => "WATCHDOG=1\n".to_owned(),
    };
    if let Err(error) = tell_service_manager(&text) {
        tracing::warn!(%error, ?notice, "systemd could not be told");
    }
}

/// Gives signs of life for as long as the shards turn. Returns where nobody wants them.
pub(super) async fn live_signs(runtime: Handle) {
    let Some(limit) = watchdog_interval() else {
        return;
    };
    loop {
        // Longer than the limit has no meaning: by then the manager has acted.
        match tokio::time::timeout(limit, runtime.turn()).await {
            Ok(true) => say(Notice::Alive),
            Ok(false) => return,
            Err(_) => tracing::error!(
                ?limit,
                "a shard does not answer: no sign of life for systemd"
            ),
        }
        tokio::time::sleep(pause(limit)).await;
    }
}

/// How long to wait between two signs: three fit into the limit, so one may come late.
fn pause(limit: Duration) -> Duration {
    limit / 3
}
