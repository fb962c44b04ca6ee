//! The command line: one file a verb. Every command but `dev`, `daemon` and the disk tools that work without a
//! daemon is one or a few calls of the API.
//!
//! Exit codes: 0 done, 1 refused, 2 wrong usage, 3 the daemon cannot be reached. With `--json`, standard output
//! is one JSON document, also where a command is refused: `{"error": {code, message, field, hint}}`.

mod alerts;
mod attach;
mod attachments;
mod bench;
mod cluster;
mod daemon;
mod detach;
mod dev;
mod disk;
mod disk_offline;
mod failure;
mod generate;
mod join;
mod moves;
mod moving;
mod node;
mod output;
mod pool;
mod status;
mod top;
mod upgrade;
mod volume;

pub use failure::Failure;

use crate::api::Remote;
use crate::api::client::Client;
use clap::{Args, Parser, Subcommand};
use output::Output;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Where the service has its API socket.
const SERVICE_SOCKET: &str = "/run/sarsen/api.sock";
/// Where `sarsen dev` without options has it.
const DEV_SOCKET: &str = "sarsen-dev/api.sock";

/// Hyper-converged block storage.
#[derive(Debug, Parser)]
#[command(name = "sarsen", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Global {
    /// The daemon's API socket, or https://HOST:PORT of one on another host [default: /run/sarsen/api.sock, else ./sarsen-dev/api.sock]
    #[arg(long, value_name = "ADDR", env = "SARSEN_API", global = true)]
    api: Option<String>,
    /// The folder of the certificate that is shown to a daemon on another host (`sarsen cluster client`); without one the token in SARSEN_API_TOKEN is
    #[arg(long, value_name = "DIR", env = "SARSEN_TLS", global = true)]
    tls: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a node, or a cluster of several, in the foreground, for trying out
    Dev(dev::Dev),
    /// Run the service
    Daemon(daemon::Daemon),
    /// Create, show, change and fill volumes
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Make a volume a guest's disk, or a device of this host; it stays so until it is detached
    Attach(attach::Attach),
    /// Undo an attachment
    Detach(detach::Detach),
    /// List what is attached
    Attachments(attachments::Attachments),
    /// Add and check disks
    #[command(subcommand)]
    Disk(disk::Verb),
    /// Show and change how many copies there are
    #[command(subcommand)]
    Pool(pool::Verb),
    /// Make a cluster of several hosts, and see to it
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Show, empty and remove nodes, and say that they are worked at
    #[command(subcommand)]
    Node(node::Verb),
    /// Make this host, whose daemon has nothing yet, a node of a cluster
    Join(join::Join),
    /// Show how the cluster is
    Status(status::Status),
    /// Show what needs attention
    Alerts(alerts::Alerts),
    /// Show load, refreshed each second
    Top(top::Top),
    /// Have the daemon become a newer binary; guests see a pause
    Upgrade(upgrade::Upgrade),
    /// Measure a volume with load that the daemon makes itself
    Bench(bench::Bench),
    /// Write shell completions and man pages, for packages
    #[command(subcommand, hide = true)]
    Generate(generate::Verb),
}

/// What every verb is given.
struct Context {
    client: Client,
    output: Output,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = Output {
        json: cli.global.json,
    };
    match carry_out(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(output),
    }
}

fn carry_out(cli: Cli, output: Output) -> Result<(), Failure> {
    match cli.verb {
        Verb::Dev(dev) => return dev.run(),
        Verb::Daemon(daemon) => return daemon.run(),
        Verb::Generate(verb) => return verb.run(),
        Verb::Disk(disk::Verb::Format(format)) => return format.run(output),
        Verb::Disk(disk::Verb::Inspect(inspect)) => return inspect.run(output),
        Verb::Disk(disk::Verb::Check(check)) => return check.run(output),
        _ => {}
    }
    let client = client(&cli.global)?;
    let mut context = Context { client, output };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::local("the runtime cannot start", error))?;
    runtime.block_on(async {
        match cli.verb {
            Verb::Volume(verb) => verb.run(&mut context).await,
            Verb::Disk(verb) => verb.run(&mut context).await,
            Verb::Pool(verb) => verb.run(&mut context).await,
            Verb::Attach(attach) => attach.run(&mut context).await,
            Verb::Detach(detach) => detach.run(&mut context).await,
            Verb::Attachments(attachments) => attachments.run(&mut context).await,
            Verb::Cluster(verb) => verb.run(&mut context).await,
            Verb::Node(verb) => verb.run(&mut context).await,
            Verb::Join(join) => join.run(&mut context).await,
            Verb::Status(status) => status.run(&mut context).await,
            Verb::Alerts(alerts) => alerts.run(&mut context).await,
            Verb::Top(top) => top.run(&mut context).await,
            Verb::Upgrade(upgrade) => upgrade.run(&mut context).await,
            Verb::Bench(bench) => bench.run(&mut context).await,
            Verb::Dev(_) | Verb::Daemon(_) | Verb::Generate(_) => Ok(()),
        }
    })
}

/// The port of the API where none is named.
const PORT: u16 = 7401;
/// The token for the API of a daemon on another host. Not an argument: those are everybody's to see.
const TOKEN: &str = "SARSEN_API_TOKEN";

/// A client of the daemon that is meant.
fn client(global: &Global) -> Result<Client, Failure> {
    let named = global.api.as_deref();
    let Some(address) = named.and_then(|named| named.strip_prefix("https://")) else {
        return Ok(Client::new(&socket(named)?));
    };
    let address = host_and_port(address)?;
    let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    let remote = Remote::new(&address, global.tls.as_deref(), token.as_deref());
    let remote = remote.map_err(|why| {
        let hint = "--tls DIR names the folder that `sarsen cluster client` made, SARSEN_API_TOKEN has a token of `sarsen cluster api-token`";
        Failure::usage("--tls", why, hint)
    })?;
    Ok(Client::remote(remote))
}

fn host_and_port(address: &str) -> Result<String, Failure> {
    let address = address.trim_end_matches('/');
    let odd = || {
        let message = format!("https://{address} is no address of a daemon");
        Failure::usage("--api", message, "use https://HOST:PORT")
    };
    if address.is_empty() || address.contains(['/', '@', ' ']) {
        return Err(odd());
    }
    let behind_host = address.rsplit(']').next().unwrap_or_default();
    match behind_host.rsplit_once(':') {
        None => Ok(format!("{address}:{PORT}")),
        Some((_, port)) if port.parse().is_ok_and(|port: u16| port > 0) => Ok(address.to_owned()),
        Some(_) => Err(odd()),
    }
}

/// The API socket that is meant.
fn socket(named: Option<&str>) -> Result<PathBuf, Failure> {
    let Some(named) = named.filter(|named| !named.is_empty()) else {
        let (service, dev) = (Path::new(SERVICE_SOCKET), Path::new(DEV_SOCKET));
        let dev_only = !service.exists() && dev.exists();
        return Ok(if dev_only { dev } else { service }.into());
    };
    let path = named.strip_prefix("unix:").unwrap_or(named);
    if path.contains("://") {
        let message = format!("{named} is not the path of a unix socket");
        return Err(Failure::usage(
            "--api",
            message,
            "use /path/api.sock, unix:/path/api.sock or https://HOST:PORT",
        ));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_is_understood() {
        for line in [
            "sarsen dev",
            "sarsen dev --data /srv/x --size 16G",
            "sarsen dev --nodes 3 --no-restart",
            "sarsen daemon --config /etc/sarsen/sarsen.toml",
            "sarsen volume create a --size 10G --block-size 512",
            "sarsen volume list --json",
            "sarsen --json volume show a",
            "sarsen volume resize a --size 20G",
            "sarsen volume set a --shared",
            "sarsen volume set a --exclusive",
            "sarsen volume set a --io-timeout 30s",
            "sarsen volume set a --io-timeout none",
            "sarsen volume set a --clients otto,vm-host1",
            "sarsen volume set a --clients any",
            "sarsen volume delete a",
            "sarsen volume import a disk.img",
            "sarsen volume import a - --size 1G",
            "sarsen volume export a -",
            "sarsen disk add /dev/vdb",
            "sarsen disk add /srv/disk1 --size 1T",
            "sarsen disk add /dev/vdb --dry-run --json",
            "sarsen disk list",
            "sarsen disk show 1",
            "sarsen disk drain 1 --wait",
            "sarsen disk drain /dev/vdb --dry-run",
            "sarsen disk drain 1 --undo",
            "sarsen disk remove 1",
            "sarsen disk remove /dev/vdb --dry-run",
            "sarsen disk replace 1 /dev/vdc --wait",
            "sarsen disk replace /dev/vdb /srv/disk1 --size 1T --dry-run",
            "sarsen disk scrub 1",
            "sarsen pool list",
            "sarsen pool show default",
            "sarsen pool create fast --copies 3 --min-copies 2 --level rack",
            "sarsen pool create fast --copies 2 --dry-run",
            "sarsen pool set default --copies 2",
            "sarsen pool set default --min-copies 2 --level rack --overcommit 150 --dry-run",
            "sarsen pool set default --rebuild-limit 200M --dry-run",
            "sarsen pool set default --rebuild-limit none",
            "sarsen volume create a --size 10G --pool fast --locality local",
            "sarsen disk add /dev/vdb --pool fast",
            "sarsen disk format /srv/disk1 --size 1G",
            "sarsen disk inspect /srv/disk1",
            "sarsen disk check /srv/disk1",
            "sarsen attach a --vhost-user /run/a.sock --queues 4",
            "sarsen attach a --vhost-user",
            "sarsen attach a --vhost-user fd:a --incoming",
            "sarsen attach a --vhost-user /run/a.sock --print qemu --memory 4G",
            "sarsen attach a --vhost-user /run/a.sock --print libvirt",
            "sarsen attach a --device",
            "sarsen attach a --ublk --queues 2",
            "sarsen attach a --nbd-device",
            "sarsen detach a --force",
            "sarsen detach a --incoming",
            "sarsen attachments --json",
            "sarsen generate man /tmp/man",
            "sarsen generate completions fish",
            "sarsen status --api /tmp/api.sock",
            "sarsen alerts",
            "sarsen upgrade",
            "sarsen upgrade --dry-run --binary /opt/sarsen/sarsen",
            "sarsen upgrade --binary /opt/sarsen/sarsen --json",
            "sarsen daemon --config /etc/sarsen/sarsen.toml --check",
            "sarsen cluster init",
            "sarsen cluster token --expires 1h",
            "sarsen cluster client backup --out /etc/pki/backup",
            "sarsen cluster client vm-host1 --role operator --expires 365d --out tls",
            "sarsen cluster api-token grafana --role reader --expires 30d",
            "sarsen cluster clients --json",
            "sarsen cluster revoke backup",
            "sarsen status --api https://10.0.0.1:7401 --tls tls",
            "sarsen cluster members",
            "sarsen cluster members set a b 3",
            "sarsen cluster members set a b 3 --dry-run",
            "sarsen node list --json",
            "sarsen node show b",
            "sarsen node drain b --wait",
            "sarsen node drain 2 --undo --dry-run",
            "sarsen node remove b --dry-run",
            "sarsen node remove b --force --wait",
            "sarsen node maintenance b on --for 2h",
            "sarsen node maintenance b on --dry-run",
            "sarsen node maintenance b off",
            "sarsen node rack b r1",
            "sarsen node rack b --none",
            "sarsen join 10.0.0.1:7400 --token sarsen1.x",
            "sarsen top",
            "sarsen bench a --rw randwrite --bs 4k --depth 32 --seconds 10 --overwrite",
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }

    #[test]
    fn an_attachment_has_one_front_end_and_only_what_fits_it() {
        for line in [
            "sarsen attach a",
            "sarsen attach --device",
            "sarsen attach a --device --ublk",
            "sarsen attach a --vhost-user /s --nbd-device",
            "sarsen attach a --device --incoming",
            "sarsen attach a --ublk --print qemu",
            "sarsen attach a --vhost-user /s --print virsh",
            "sarsen attach a --vhost-user /s --queues 0",
            "sarsen attach a --vhost-user /s --queues 129",
            "sarsen attach a --vhost-user /s --memory 4G",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn an_address_is_a_path_with_or_without_its_scheme() {
        assert_eq!(socket(Some("unix:/a/b")).unwrap(), Path::new("/a/b"));
        assert_eq!(socket(Some("a/b")).unwrap(), Path::new("a/b"));
        assert!(socket(Some("http://localhost:80")).is_err());
        for (address, is) in [
            ("a", Some("a:7401")),
            ("a:80/", Some("a:80")),
            ("[::1]", Some("[::1]:7401")),
            ("[::1]:80", Some("[::1]:80")),
            ("", None),
            ("a:b", None),
            ("a:0", None),
            ("a/v1", None),
        ] {
            assert_eq!(host_and_port(address).ok().as_deref(), is, "{address}");
        }
    }
}
