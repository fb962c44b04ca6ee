//! `sarsen volume set NAME --shared | --exclusive | --io-timeout TIME | --clients NAMES`

use super::show::for_people;
use crate::api::model::{NbdClients, VolumeChange};
use crate::cli::output::seconds;
use crate::cli::{Context, Failure};

/// One thing at a time.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Change {
    /// Several nodes may attach the volume at once: each write is seen by all, and its range goes to the node that asks
    #[arg(long)]
    shared: bool,
    /// One node at a time, which is how a volume is made
    #[arg(long)]
    exclusive: bool,
    /// Answer I/O with an error that got no answer for so long (1s to 1d), or `none`: let it wait, which is how a volume is made
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    io_timeout: Option<u32>,
    /// Which clients may use it over NBD under TLS: names, with commas between; `any`; or `none`, which is how a volume is made. Who is not on it any more is cut off
    #[arg(long, value_name = "NAMES", value_parser = clients)]
    clients: Option<NbdClients>,
}

#[derive(Debug, clap::Args)]
pub struct Set {
    name: String,
    #[command(flatten)]
    change: Change,
}

fn clients(text: &str) -> Result<NbdClients, String> {
    match text {
        "any" => Ok(NbdClients::Any),
        "none" => Ok(NbdClients::None),
        names => {
            let names: Vec<String> = names.split(',').map(|name| name.trim().into()).collect();
            match names.iter().any(String::is_empty) {
                true => Err(format!(
                    "{text:?} are no names with commas between, nor any or none"
                )),
                false => Ok(NbdClients::Only(names)),
            }
        }
    }
}

/// In seconds; 0 for none.
fn timeout(text: &str) -> Result<u32, String> {
    if text == "none" {
        return Ok(0);
    }
    let count = seconds(text)?;
    let in_range = u32::try_from(count).ok().filter(|count| *count > 0);
    in_range.ok_or_else(|| format!("{text:?} is neither a time like 30s nor none"))
}

impl Set {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Change {
            shared,
            exclusive,
            io_timeout,
            clients,
        } = self.change;
        let change = VolumeChange {
            shared: (shared || exclusive).then_some(shared),
            io_timeout_seconds: io_timeout,
            clients,
            ..VolumeChange::default()
        };
        let volume = context.client.change_volume(&self.name, &change).await?;
        context.output.show(&volume, for_people)
    }
}
