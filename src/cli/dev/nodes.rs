//! `sarsen dev --nodes N`: N daemons of this binary on one machine, as a cluster.
//!
//! Each has a folder of its own, `DIR/nodeN`, with its configuration, its log and its disk. They speak over the loopback interface, without TLS. Whatever a start that was cut short has
//! left undone, the next one does. The daemons end with this process, however that ends.

use crate::api::client::Client;
use crate::api::host::nbd_uri;
use crate::api::model::{ClusterJoin, ClusterTokenMake, DiskAdd, PoolSet, Status};
use crate::cli::output::{Output, say};
use crate::cli::upgrade::next_serves;
use crate::cli::{Context, Failure};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long a daemon may take until it answers.
const ANSWERS: Duration = Duration::from_secs(60);
/// How long the dead stay dead: long enough to be looked at.
const AGAIN: Duration = Duration::from_secs(5);
/// How long the daemons may take to end.
const ENDS: Duration = Duration::from_secs(20);
/// Lines of a log that are shown of a daemon that does not start.
const LINES: usize = 12;
/// How long the token of a node is good: for the joining that follows at once.
const TOKEN_SECONDS: u64 = 600;
const POOL: &str = "default";

/// What is to run.
pub(super) struct Nodes {
    pub folder: PathBuf,
    pub count: u32,
    /// Of each node's disk, in bytes.
    pub size: u64,
    pub shards: usize,
    /// Of each node, in bytes.
    pub memory: u64,
    /// Whether a daemon that ends is started again.
    pub again: bool,
}

/// One daemon.
struct Node {
    name: String,
    dir: PathBuf,
    pid: u32,
}

impl Node {
    fn api(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    fn nbd(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn context(&self) -> Context {
        Context {
            client: Client::new(&self.api()),
            output: Output { json: false },
        }
    }

    /// What it last said, for who wonders why.
    fn last_words(&self) -> String {
        let log = std::fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    fn failed(&self, what: &str) -> Failure {
        let what = format!("{}: {what}; the end of {}", self.name, self.log().display());
        Failure::local(what, format!("\n{}", self.last_words()))
    }

    /// Starts its daemon.
    fn start(&mut self) -> Result<Child, Failure> {
        let failed = |error| Failure::local(format!("{} cannot be started", self.name), error);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .map_err(failed)?;
        let child = Command::new(std::env::current_exe().map_err(failed)?)
            .args(["daemon", "--end-with-parent", "--config"])
            .arg(self.dir.join("sarsen.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        self.pid = child.id().unwrap_or_default();
        Ok(child)
    }

    /// Waits until its daemon answers.
    async fn answers(&self, child: &mut Child) -> Result<Status, Failure> {
        let begun = Instant::now();
        let mut client = Client::new(&self.api());
        loop {
            if let Ok(status) = client.status().await {
                return Ok(status);
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(self.failed(&format!("it {}", ended(status))));
            }
            if begun.elapsed() > ANSWERS {
                return Err(self.failed("it does not answer"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended by itself, with {code}"),
        (None, None) => "ended".into(),
    }
}

impl Nodes {
    pub fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::local("the runtime cannot start", error))?;
        runtime.block_on(self.live())
    }

    async fn live(&self) -> Result<(), Failure> {
        let failed = |error| Failure::local("signals", error);
        let mut term = signal(SignalKind::terminate()).map_err(failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut nodes = Vec::new();
        for number in 1..=self.count {
            nodes.push(self.prepare(number)?);
        }
        let mut children: Vec<Option<Child>> = Vec::new();
        let told = tokio::select! {
            served = self.serve(&mut nodes, &mut children) => served,
            _ = term.recv() => Ok(()),
            _ = int.recv() => Ok(()),
        };
        end(children).await;
        told
    }

    /// Makes a node's folder and configuration.
    fn prepare(&self, number: u32) -> Result<Node, Failure> {
        let name = format!("node{number}");
        let dir = self.folder.join(&name);
        let config = format!(
            "# Made by `sarsen dev --nodes`\n\
             data_dir = {data:?}\nnode = {name:?}\nshards = {shards}\nmemory = {memory}\n\
             [api]\nsocket = {api:?}\n[nbd]\nsocket = {nbd:?}\n[vhost_user]\ndir = {vhost:?}\n\
             [cluster]\nlisten = \"127.0.0.1:0\"\nsecurity = \"plain-loopback\"\n",
            data = dir.join("data"),
            api = dir.join("api.sock"),
            nbd = dir.join("nbd.sock"),
            vhost = dir.join("vhost"),
            shards = self.shards,
            memory = self.memory,
        );
        let written = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(dir.join("sarsen.toml"), config));
        written.map_err(|error| Failure::local(dir.display(), error))?;
        let pid = 0;
        Ok(Node { name, dir, pid })
    }

    /// Brings the cluster about, says how to use it, and keeps it going.
    async fn serve(
        &self,
        nodes: &mut [Node],
        children: &mut Vec<Option<Child>>,
    ) -> Result<(), Failure> {
        for node in nodes.iter_mut() {
            children.push(Some(node.start()?));
        }
        for (node, child) in nodes.iter().zip(children.iter_mut().flatten()) {
            node.answers(child).await?;
        }
        self.join(nodes).await?;
        self.add_disks(nodes).await?;
        for socket in ["api.sock", "nbd.sock"] {
            link(&nodes[0].dir.join(socket), &self.folder.join(socket))?;
        }
        say(&self.usage(nodes))?;
        self.keep(nodes, children).await
    }

    async fn join(&self, nodes: &[Node]) -> Result<(), Failure> {
        let mut first = nodes[0].context();
        if first.client.status().await?.cluster.is_none() {
            say("node1 makes a cluster")?;
            let instance = first.client.status().await?.instance;
            first.client.found_cluster().await?;
            next_serves(&mut first, &instance).await?;
        }
        for node in &nodes[1..] {
            let mut context = node.context();
            let status = context.client.status().await?;
            if status.cluster.is_some() {
                continue;
            }
            say(&format!("{} joins", node.name))?;
            let make = ClusterTokenMake {
                expires_seconds: TOKEN_SECONDS,
            };
            let token = first.client.cluster_token(&make).await?;
            let join = ClusterJoin {
                address: token.address,
                token: token.token,
            };
            context.client.join_cluster(&join).await?;
            next_serves(&mut context, &status.instance).await?;
        }
        Ok(())
    }

    async fn add_disks(&self, nodes: &[Node]) -> Result<(), Failure> {
        // First, so that everything is made with two copies.
        let mut first = nodes[0].context().client;
        let none = first.disks().await?.disks.is_empty();
        if none && self.count > 1 {
            let set = PoolSet {
                copies: Some(2),
                ..PoolSet::default()
            };
            first.set_pool(POOL, &set).await?;
        }
        for node in nodes {
            let mut client = node.context().client;
            let path = node.dir.join("disk0").display().to_string();
            let disks = client.disks().await?.disks;
            if disks.iter().any(|disk| disk.path == path) {
                continue;
            }
            let size_bytes = Some(self.size);
            client.add_disk(&DiskAdd { path, size_bytes }).await?;
        }
        Ok(())
    }

    /// Says who ends, and starts it again.
    async fn keep(
        &self,
        nodes: &mut [Node],
        children: &mut [Option<Child>],
    ) -> Result<(), Failure> {
        loop {
            sleep(Duration::from_millis(100)).await;
            for number in 0..children.len() {
                let child = children[number].as_mut();
                let Some(Ok(Some(status))) = child.map(Child::try_wait) else {
                    continue;
                };
                let node = &mut nodes[number];
                let what = format!("{} ({}) {}", node.name, node.pid, ended(status));
                if !self.again {
                    let config = node.dir.join("sarsen.toml");
                    say(&format!(
                        "{what}; `sarsen daemon --config {}` starts it again",
                        config.display()
                    ))?;
                    children[number] = None;
                    continue;
                }
                say(&format!(
                    "{what}; it is started again in {} s",
                    AGAIN.as_secs()
                ))?;
                sleep(AGAIN).await;
                let mut child = node.start()?;
                node.answers(&mut child).await?;
                say(&format!("{} is back as {}", node.name, node.pid))?;
                children[number] = Some(child);
            }
            if children.iter().all(Option::is_none) {
                return Ok(());
            }
        }
    }

    fn usage(&self, nodes: &[Node]) -> String {
        let api = self.folder.join("api.sock");
        let uri = nbd_uri("first", &self.folder.join("nbd.sock").display().to_string());
        let mut text = format!(
            "sarsen is ready: {} nodes, and two copies of everything.\n\n\
             In another terminal:\n\
             \x20 export SARSEN_API={}\n\
             \x20 sarsen status\n\
             \x20 sarsen volume create first --size 1G\n\n\
             A client opens, at any of the nodes,\n\
             \x20 {uri}\n\n",
            nodes.len(),
            api.display(),
        );
        for node in nodes {
            text += &format!(
                "{}: kill -9 {}, SARSEN_API={}, NBD at {}, log {}\n",
                node.name,
                node.pid,
                node.api().display(),
                node.nbd().display(),
                node.log().display()
            );
        }
        text += "\nCtrl-C stops all of them; everything is found again at the next start.";
        text
    }
}

/// Makes `at` lead to `to`.
fn link(to: &Path, at: &Path) -> Result<(), Failure> {
    let made = match std::fs::remove_file(at) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::os::unix::fs::symlink(to, at),
    };
    made.map_err(|error| Failure::local(at.display(), error))
}

/// Ends all daemons in good order; those that do not, at once.
async fn end(children: Vec<Option<Child>>) {
    let mut ends = JoinSet::new();
    for mut child in children.into_iter().flatten() {
        if let Some(pid) = child.id() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            // One that has ended meanwhile needs no signal.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        }
        ends.spawn(async move {
            if timeout(ENDS, child.wait()).await.is_err() {
                child.kill().await.ok(); // it has ended
            }
        });
    }
    while ends.join_next().await.is_some() {}
}
