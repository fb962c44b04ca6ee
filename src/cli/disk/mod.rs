//! `sarsen disk`

mod add;
mod drain;
mod grow;
mod list;
mod remove;
mod replace;
mod scrub;
mod show;

pub use super::disk_offline::{Check, Format, Inspect};

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Take an empty disk into the pool
    Add(add::Add),
    /// List the disks
    List(list::List),
    /// Show one disk
    Show(show::Show),
    /// Make a disk longer, or take into use what it has become longer by
    Grow(grow::Grow),
    /// Have everything on a disk move to others
    Drain(drain::Drain),
    /// Take a disk out of the cluster that nothing is on any more
    Remove(remove::Remove),
    /// Put another disk of the same node in the place of one, dead or alive
    Replace(replace::Replace),
    /// Read and compare every block of a disk
    Scrub(scrub::Scrub),
    /// Put an empty store on a disk that no daemon runs
    Format(Format),
    /// Say what is on a disk that no daemon runs
    Inspect(Inspect),
    /// Verify every structure and block of a disk that no daemon runs; writes nothing
    Check(Check),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let output = context.output;
        match self {
            Verb::Add(add) => add.run(context).await,
            Verb::List(list) => list.run(context).await,
            Verb::Show(show) => show.run(context).await,
            Verb::Grow(grow) => grow.run(context).await,
            Verb::Drain(drain) => drain.run(context).await,
            Verb::Remove(remove) => remove.run(context).await,
            Verb::Replace(replace) => replace.run(context).await,
            Verb::Scrub(scrub) => scrub.run(context).await,
            Verb::Format(format) => format.run(output),
            Verb::Inspect(inspect) => inspect.run(output),
            Verb::Check(check) => check.run(output),
        }
    }
}
