//! The bar of a command that waits for copies to move, or to be made anew elsewhere. Nothing is drawn, nor asked for it, where standard error is no terminal.

use super::status::how_long;
use super::{Context, Failure};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks at how far it is: each looks at all that a node holds.
const EVERY: Duration = Duration::from_secs(1);

/// The bar; it goes when this does.
pub(super) struct Moving {
    bar: ProgressBar,
    all: u32,
}

impl Moving {
    /// So many placement groups are to move.
    pub fn new(all: u32) -> Moving {
        let bar = ProgressBar::new(all.into());
        let style = "{bar:30} {pos} of {len} placement groups moved{msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Moving { bar, all }
    }

    /// Waits for a moment, until it is to be looked again; `left`: those that have not moved yet.
    pub async fn wait(&self, context: &mut Context, left: u32) -> Result<(), Failure> {
        self.bar.set_position(self.all.saturating_sub(left).into());
        if !self.bar.is_hidden() {
            let pools = context.client.pools().await?.pools;
            let rebuilds = pools.iter().filter_map(|pool| {
                let rebuild = pool.rebuild.as_ref()?;
                Some(format!("\npool {}: {}", pool.name, how_long(rebuild)))
            });
            self.bar.set_message(rebuilds.collect::<String>());
        }
        sleep(EVERY).await;
        Ok(())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
