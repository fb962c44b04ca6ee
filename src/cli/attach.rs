//! `sarsen attach NAME --vhost-user [PATH|fd:NAME] | --device | --ublk | --nbd-device`

mod print;

use super::output::say;
use super::{Context, Failure, attachments};
use crate::api::model::{self, FrontEnd};
use crate::api::size::parse;
use clap::ValueEnum;

/// What is no guest's disk. (For clap, an option that another one excludes is not missing.)
const DEVICES: [&str; 3] = ["device", "ublk", "nbd_device"];

/// What the volume becomes.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Kind {
    /// A guest's disk, at this vhost-user socket: a path, fd:NAME for one that the daemon inherits, or nothing for
    /// NAME.sock in the folder of the daemon's configuration
    #[arg(long, value_name = "PATH", num_args = 0..=1)]
    vhost_user: Option<Option<String>>,
    /// A device of this host: by ublk where the kernel has it, else by nbd
    #[arg(long)]
    device: bool,
    /// A device of this host, by the kernel's ublk
    #[arg(long)]
    ublk: bool,
    /// A device of this host, by the kernel's nbd
    #[arg(long)]
    nbd_device: bool,
}

#[derive(Debug, clap::Args)]
pub struct Attach {
    name: String,
    #[command(flatten)]
    kind: Kind,
    /// Queues, 1 to 128 [default: one for each shard of the daemon]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=128))]
    queues: Option<u16>,
    /// A second socket of an attached volume, for a guest that migrates to it: at its node, or at another one of the cluster
    #[arg(long, requires = "vhost_user", conflicts_with_all = DEVICES)]
    incoming: bool,
    /// Take the volume from a node of the cluster that does not answer; it comes here when that node's lease has ended
    #[arg(long, conflicts_with = "incoming")]
    take_over: bool,
    /// Print what gives the disk to a guest, and nothing else
    #[arg(long, value_name = "FOR", requires = "vhost_user", conflicts_with_all = DEVICES)]
    print: Option<Print>,
    /// The guest's memory, for --print qemu
    #[arg(long, value_name = "SIZE", value_parser = parse, default_value = "2G", requires = "print")]
    memory: u64,
}

/// Who is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Print {
    /// A command line that starts a guest with the disk
    Qemu,
    /// Elements of a domain's XML
    Libvirt,
}

impl Attach {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        if self.print.is_some() && context.output.json {
            let message = "it prints what is no JSON";
            return Err(Failure::usage("--print", message, "leave out --json"));
        }
        let (front_end, socket) = match (self.kind.vhost_user, self.kind.device, self.kind.ublk) {
            (Some(socket), _, _) => (FrontEnd::VhostUser, socket.map(whole_path).transpose()?),
            (None, true, _) => (FrontEnd::Device, None),
            (None, false, true) => (FrontEnd::Ublk, None),
            (None, false, false) => (FrontEnd::Nbd, None),
        };
        let wanted = model::Attach {
            front_end,
            socket,
            queues: self.queues,
            incoming: self.incoming,
            take_over: self.take_over,
        };
        let attached = context.client.attach(&self.name, &wanted).await?;
        let Some(print) = self.print else {
            return context.output.show(&attached, attachments::one);
        };
        let Some(path) = &attached.path else {
            let message = "the path of this socket is not known here";
            return Err(Failure::usage(
                "--print",
                message,
                "give the guest the socket itself",
            ));
        };
        say(&match print {
            Print::Qemu => print::qemu(&attached, path, self.memory),
            Print::Libvirt => print::libvirt(&attached, path),
        })
    }
}

/// A socket as the daemon is told: it has another working directory.
fn whole_path(socket: String) -> Result<String, Failure> {
    if socket.starts_with("fd:") {
        return Ok(socket);
    }
    let whole = std::path::absolute(&socket).map_err(|error| Failure::local(&socket, error))?;
    Ok(whole.display().to_string())
}
