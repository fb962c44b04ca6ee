//! The configuration: a TOML file. Unknown keys are refused, because a key that is misspelt and silently ignored
//! is found out in the worst moment; every error names file, line and key.

use crate::api::size;
use crate::cluster;
use crate::observe;
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The least payload memory, in bytes: the runtime's own floor.
const MEMORY_MIN: u64 = 64 << 20;
/// The most shards of a node (the runtime's own limit).
const SHARDS_MAX: usize = 64;
/// The longest path of a unix socket, in bytes (`sun_path` less its end).
const SOCKET_PATH_MAX: usize = 107;

/// What a daemon is told at its start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the catalog is kept.
    pub data_dir: PathBuf,
    /// This node's name; by default the host's.
    #[serde(default)]
    pub node: Option<String>,
    /// Shard threads, over which disks and clients are spread; by default one.
    #[serde(default = "one")]
    pub shards: usize,
    /// The CPU of each shard.
    #[serde(default)]
    pub pin: Option<Vec<usize>>,
    /// Payload memory of all shards, in bytes.
    #[serde(default = "default_memory", deserialize_with = "read_size")]
    pub memory: u64,
    /// How much may be promised of what the disks have; 100 is not more.
    #[serde(default)]
    pub overcommit_percent: Option<u32>,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub api: Api,
    #[serde(default)]
    pub nbd: Nbd,
    #[serde(default)]
    pub vhost_user: VhostUser,
    /// Without it this node is alone.
    #[serde(default)]
    pub cluster: Option<Cluster>,
    /// For the first start; later disks are in the catalog.
    #[serde(default, rename = "disk")]
    pub disks: Vec<DiskConfig>,
    /// Where all of this stands; not in the file.
    #[serde(skip)]
    pub file: PathBuf,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl From<LogFormat> for observe::LogFormat {
    fn from(format: LogFormat) -> observe::LogFormat {
        match format {
            LogFormat::Text => observe::LogFormat::Text,
            LogFormat::Json => observe::LogFormat::Json,
        }
    }
}

/// What is logged. The environment variable SARSEN_LOG goes before `level`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level, or a filter as tracing knows it: `info,sarsen::manager=debug`.
    pub level: String,
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".into(),
            format: LogFormat::Text,
        }
    }
}

/// Where the API is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    pub socket: PathBuf,
    /// A TCP address as well, under TLS, for who has a certificate or a token of the cluster.
    pub listen: Option<SocketAddr>,
    /// Who may open it, beside the daemon's user; where there is no such group, nobody else.
    pub group: Option<String>,
    /// Its permissions; not in the file.
    #[serde(skip, default = "group_mode")]
    pub mode: u32,
}

impl Default for Api {
    fn default() -> Api {
        Api {
            socket: "/run/sarsen/api.sock".into(),
            listen: None,
            group: Some("sarsen".into()),
            mode: group_mode(),
        }
    }
}

/// Where NBD clients connect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nbd {
    pub socket: PathBuf,
    /// A TCP address as well: one of this host alone in the clear, any other under TLS.
    pub listen: Option<SocketAddr>,
    /// Whether TLS is required at `listen`; where it is not said, unless that is an address of this host alone.
    pub tls: Option<bool>,
}

impl Default for Nbd {
    fn default() -> Nbd {
        Nbd {
            socket: "/run/sarsen/nbd.sock".into(),
            listen: None,
            tls: None,
        }
    }
}

impl Nbd {
    /// Where it listens under TLS, where it does.
    pub fn listen_tls(&self) -> Option<SocketAddr> {
        let needs = |at: &SocketAddr| self.tls.unwrap_or(!at.ip().to_canonical().is_loopback());
        self.listen.filter(needs)
    }
}

/// The sockets of guests that are made here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VhostUser {
    /// Where those are made for which no path is named.
    pub dir: PathBuf,
    /// Who may open them, beside the daemon's user: the group that QEMU runs as. Where there is no such group,
    /// nobody else.
    pub group: Option<String>,
    /// Their permissions; not in the file.
    #[serde(skip, default = "group_mode")]
    pub mode: u32,
}

impl Default for VhostUser {
    fn default() -> VhostUser {
        VhostUser {
            dir: "/run/sarsen/vhost".into(),
            group: Some("kvm".into()),
            mode: group_mode(),
        }
    }
}

/// Where other nodes are spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Where this node listens for others. With port 0 the system chooses a port when the cluster is founded or joined, and it is
    /// kept.
    pub listen: SocketAddr,
    /// Where others reach it, where that differs; with port 0, on the port that it listens on.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    #[serde(default)]
    pub security: Security,
}

/// How connections between nodes are protected; the same at all nodes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// By certificates of the cluster's authority, at both ends.
    #[default]
    MutualTls,
    /// Not at all, between daemons of one machine.
    PlainLoopback,
    /// Not at all, over any network: whoever is on it reads all, and may pose as a node.
    PlainUnprotected,
}

impl Cluster {
    /// The same as the room of that name takes it.
    pub(super) fn settings(&self, file: &Path) -> cluster::Settings {
        cluster::Settings {
            listen: self.listen,
            advertise: self.advertise,
            protection: match self.security {
                Security::MutualTls => cluster::Protection::MutualTls,
                Security::PlainLoopback => cluster::Protection::PlainLoopback,
                Security::PlainUnprotected => cluster::Protection::Plain,
            },
            file: file.into(),
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let Cluster {
            listen,
            advertise,
            security,
        } = self;
        if let Some(advertise) = advertise.filter(|at| at.ip().is_unspecified()) {
            let reason = format!("{advertise} is no address that others can reach: name one");
            return Err(("cluster.advertise", reason));
        }
        if listen.ip().is_unspecified() && advertise.is_none() {
            let reason = format!(
                "{listen} is every address of this host: say in `advertise` which one others reach it at"
            );
            return Err(("cluster.listen", reason));
        }
        let both = [
            ("cluster.listen", Some(listen)),
            ("cluster.advertise", advertise.as_ref()),
        ];
        for (key, at) in both {
            let is_far = |at: &&SocketAddr| !at.ip().to_canonical().is_loopback();
            if let (Security::PlainLoopback, Some(at)) = (security, at.filter(is_far)) {
                let reason = format!(
                    "{at} is not of this host alone, and `security` is plain-loopback: leave `security` out for mutual TLS"
                );
                return Err((key, reason));
            }
        }
        Ok(())
    }
}

/// A disk of the first start.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    pub path: PathBuf,
    /// Of a file that is to be made, in bytes.
    #[serde(default, deserialize_with = "read_optional_size")]
    pub size: Option<u64>,
}

fn one() -> usize {
    1
}

fn default_memory() -> u64 {
    256 << 20
}

fn group_mode() -> u32 {
    0o660
}

/// A number of bytes, or a text like "10G".
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

fn read_size<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match Size::deserialize(from)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => size::parse(&text).map_err(serde::de::Error::custom),
    }
}

fn read_optional_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    read_size(from).map(Some)
}

/// Why a configuration is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: PathBuf,
    /// From one on; zero where no line is to blame.
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// The configuration in the file at `path`.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.into(),
            line: 0,
            reason: error.to_string(),
        })?;
        Config::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
        let wrong = |line, reason| ConfigError {
            file: path.into(),
            line,
            reason,
        };
        let config: Config = toml::from_str(text).map_err(|error| {
            let span = error.span();
            let line = span.clone().map_or(0, |span| line_of(text, span.start));
            let named = error.message().contains('`');
            let key = span
                .and_then(|span| key_of(text, span.start))
                .filter(|_| !named);
            let before = key.map_or_else(String::new, |key| format!("{key}: "));
            wrong(line, format!("{before}{}", error.message().trim_end()))
        })?;
        match config.check() {
            Ok(()) => Ok(Config {
                file: path.into(),
                ..config
            }),
            Err((key, reason)) => {
                let last = key.rsplit('.').next().unwrap_or(key);
                Err(wrong(line_of_key(text, last), format!("{key}: {reason}")))
            }
        }
    }

    /// Whether the values make sense; the key that does not, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err((
                "shards",
                format!("{} is not in 1..={SHARDS_MAX}", self.shards),
            ));
        }
        if let Some(pin) = self.pin.as_ref().filter(|pin| pin.len() != self.shards) {
            let reason = format!("{} CPUs are named for {} shards", pin.len(), self.shards);
            return Err(("pin", reason));
        }
        if self.memory < MEMORY_MIN {
            let reason = format!("{} bytes are less than the least, 64M", self.memory);
            return Err(("memory", reason));
        }
        let paths = [
            ("data_dir", &self.data_dir),
            ("api.socket", &self.api.socket),
            ("vhost_user.dir", &self.vhost_user.dir),
        ];
        for (key, path) in paths.into_iter().chain([("nbd.socket", &self.nbd.socket)]) {
            if !path.is_absolute() {
                return Err((key, format!("{} is not an absolute path", path.display())));
            }
            if key.ends_with("socket") && path.as_os_str().len() > SOCKET_PATH_MAX {
                let reason = format!("a socket's path has at most {SOCKET_PATH_MAX} bytes");
                return Err((key, reason));
            }
        }
        if self.api.socket == self.nbd.socket {
            return Err(("nbd.socket", "it is the API's socket as well".into()));
        }
        if let (Some(listen), Some(false)) = (self.nbd.listen, self.nbd.tls)
            && !listen.ip().to_canonical().is_loopback()
        {
            let reason = format!(
                "{listen} is not an address of this host alone: whoever is on the network would read and write every volume. Leave `tls` out, or listen on 127.0.0.1 or [::1]"
            );
            return Err(("nbd.tls", reason));
        }
        if let (None, Some(true)) = (self.nbd.listen, self.nbd.tls) {
            return Err((
                "nbd.tls",
                "there is no `listen` that it could be for".into(),
            ));
        }
        if let (Some(listen), None) = (self.nbd.listen_tls(), &self.cluster) {
            let reason = format!(
                "{listen} is served under TLS with what a cluster's authority issues, and this node is to be in none: add [cluster] with `listen`, and say `sarsen \
                 cluster init` or `sarsen join`; without it NBD over TCP is served on 127.0.0.1 and [::1] only"
            );
            return Err(("nbd.listen", reason));
        }
        if let (Some(listen), None) = (self.api.listen, &self.cluster) {
            let reason = format!(
                "{listen} is served under TLS with what a cluster's authority issues, and this node is to be in none: add [cluster] with `listen`, and say `sarsen \
                 cluster init` or `sarsen join`"
            );
            return Err(("api.listen", reason));
        }
        if let Some(cluster) = &self.cluster {
            cluster.check()?;
        }
        if let Some(disk) = self.disks.iter().find(|disk| !disk.path.is_absolute()) {
            let reason = format!("{} is not an absolute path", disk.path.display());
            return Err(("disk.path", reason));
        }
        Ok(())
    }
}

/// The line, from one on, of the byte at `at`.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}

/// The key of the line that the byte at `at` is on.
fn key_of(text: &str, at: usize) -> Option<String> {
    let line = text.lines().nth(line_of(text, at) - 1)?;
    let (key, _) = line.split_once('=')?;
    Some(key.trim().to_owned()).filter(|key| !key.is_empty())
}

/// The line on which `key` gets its value; zero where it is not in the file.
fn line_of_key(text: &str, key: &str) -> usize {
    let sets = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(sets).map_or(0, |line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/sarsen/sarsen.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_short_file_has_the_defaults() {
        let config = parse("data_dir = '/var/lib/sarsen'").unwrap();
        assert_eq!((config.shards, config.memory), (1, 256 << 20));
        assert_eq!(config.api, Api::default());
        assert_eq!(config.api.mode, 0o660);
        assert_eq!(config.nbd.listen, None);
    }

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"
            data_dir = "/d"
            node = "a"
            shards = 2
            pin = [0, 1]
            memory = "1G"
            overcommit_percent = 300
            [log]
            level = "debug"
            format = "json"
            [api]
            socket = "/d/api.sock"
            listen = "10.0.0.1:7401"
            group = "disk"
            [nbd]
            socket = "/d/nbd.sock"
            listen = "[::1]:10809"
            [vhost_user]
            dir = "/d/vhost"
            group = "libvirt-qemu"
            [cluster]
            listen = "0.0.0.0:7400"
            advertise = "10.0.0.1:7400"
            [[disk]]
            path = "/dev/vdb"
            [[disk]]
            path = "/d/disk1"
            size = "16G"
        "#;
        let config = parse(text).unwrap();
        assert_eq!((config.memory, config.disks.len()), (1 << 30, 2));
        assert_eq!(config.disks[1].size, Some(16 << 30));
        assert_eq!(config.api.listen.unwrap().to_string(), "10.0.0.1:7401");
        assert_eq!(config.vhost_user.group.as_deref(), Some("libvirt-qemu"));
        let cluster = config.cluster.unwrap();
        assert_eq!(cluster.security, Security::MutualTls);
        assert_eq!(cluster.advertise.unwrap().to_string(), "10.0.0.1:7400");
        assert_eq!(config.file, Path::new("/etc/sarsen/sarsen.toml"));
        assert_eq!(config.api.mode, 0o660);
    }

    #[test]
    fn an_error_names_file_line_and_key() {
        for (text, line, key) in [
            ("data_dir = '/d'\ncolour = 'red'\n", "line 2", "colour"),
            ("data_dir = '/d'\n[nbd]\nport = 1\n", "line 3", "port"),
            ("data_dir = '/d'\n\nshards = 'two'\n", "line 3", "shards"),
            ("data_dir = '/d'\nshards = 0\n", "line 2", "shards"),
            ("data_dir = 'd'\n", "line 1", "data_dir"),
            ("data_dir = '/d'\nmemory = '10GB'\n", "line 2", "memory"),
            ("data_dir = '/d'\nmemory = 5\n", "line 2", "memory"),
            ("data_dir = '/d'\npin = [1, 2]\n", "line 2", "pin"),
            (
                "data_dir = '/d'\n[nbd]\nlisten = '0.0.0.0:10809'\n",
                "line 3",
                "listen",
            ),
            (
                "data_dir = '/d'\n[[disk]]\npath = 'disk0'\n",
                "line 3",
                "path",
            ),
            ("data_dir = '/d'\n[[disk]]\nsize = '1G'\n", "line 2", "path"),
            (
                "data_dir = '/d'\n[vhost_user]\ndir = 'd'\n",
                "line 3",
                "dir",
            ),
            (
                "data_dir = '/d'\n[api]\nlisten = '10.0.0.1:7401'\n",
                "line 3",
                "sarsen cluster init",
            ),
            (
                "data_dir = '/d'\n[cluster]\nlisten = '0.0.0.0:7400'\n",
                "line 3",
                "listen",
            ),
            (
                "data_dir = '/d'\n[cluster]\nlisten = '10.0.0.1:7400'\nadvertise = '[::]:7400'\n",
                "line 4",
                "advertise",
            ),
            (
                "data_dir = '/d'\n[cluster]\nlisten = '10.0.0.1:7400'\nsecurity = 'plain-loopback'\n",
                "line 3",
                "plain-loopback",
            ),
            (
                "data_dir = '/d'\n[cluster]\nlisten = '10.0.0.1:7400'\nsecurity = 'plain'\n",
                "line 4",
                "plain-unprotected",
            ),
            ("data_dir = '/d'\n[cluster]\n", "line 2", "listen"),
            ("data_dir = \n", "line 1", "data_dir"),
            ("shards = 1\n", "line 1", "data_dir"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("/etc/sarsen/sarsen.toml"), "{error}");
            assert!(
                error.contains(line) && error.contains(key),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn nbd_beyond_this_host_is_under_tls_and_so_in_a_cluster() {
        let alone = "data_dir = '/d'\n[nbd]\nlisten = '10.0.0.1:10809'\n";
        let error = parse(alone).unwrap_err();
        assert!(
            error.contains("TLS") && error.contains("sarsen cluster init"),
            "{error}"
        );
        let cluster = "[cluster]\nlisten = '10.0.0.1:7400'\n";
        let nbd = parse(&format!("{alone}{cluster}")).unwrap().nbd;
        assert_eq!(nbd.listen_tls(), nbd.listen);
        let error = parse(&format!("{alone}tls = false\n{cluster}")).unwrap_err();
        assert!(
            error.contains("line 4") && error.contains("nbd.tls"),
            "{error}"
        );
        let here = "data_dir = '/d'\n[nbd]\nlisten = '127.0.0.1:10809'\n";
        assert_eq!(parse(here).unwrap().nbd.listen_tls(), None);
        let here = parse(&format!("{here}tls = true\n{cluster}")).unwrap();
        assert!(here.nbd.listen_tls().is_some());
        let error = parse("data_dir = '/d'\n[nbd]\ntls = true\n").unwrap_err();
        assert!(error.contains("nbd.tls"), "{error}");
    }
}
