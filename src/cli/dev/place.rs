//! Where one of several nodes keeps what it has: `DIR/nodeK`.

use super::nodes::Nodes;
use crate::cli::Failure;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Lines of a log that are shown where a node does not start, or ended.
const LINES_MAX: usize = 15;
/// What is read of a log for that, in bytes.
const TAIL_MAX: u64 = 64 << 10;

/// A node's name and folder.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub name: String,
    folder: PathBuf,
    /// How long its log was when its daemon was started, in bytes.
    log_from: u64,
}

/// How many nodes there are in a folder: none, or several. A first start that was cut short in the middle has made at least one.
pub(super) fn found(data: &Path) -> u8 {
    let there = (1..=9).take_while(|&number| Place::of(data, number).folder.is_dir());
    match there.count() as u8 {
        0 => 0,
        count => count.max(2),
    }
}

impl Place {
    pub fn of(data: &Path, number: u8) -> Place {
        let name = format!("node{number}");
        let folder = data.join(&name);
        Place {
            name,
            folder,
            log_from: 0,
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn api(&self) -> PathBuf {
        self.folder.join("api.sock")
    }

    pub fn nbd(&self) -> PathBuf {
        self.folder.join("nbd.sock")
    }

    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk0")
    }

    /// A file that is there once the node has got its disk. That the disk's file is there does not say so: it may be half made.
    fn noted(&self) -> PathBuf {
        self.folder.join("has-disk")
    }

    pub fn has_disk(&self) -> bool {
        self.noted().exists()
    }

    pub fn note_disk(&self) -> Result<(), Failure> {
        let at = self.noted();
        std::fs::write(&at, "").map_err(|error| Failure::local(at.display(), error))
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("sarsen.toml")
    }

    /// Makes the folder, which is for this user only, and writes the configuration: anew at each start, because all that a person
    /// may change of it is named in the command.
    pub fn make(&self, nodes: &Nodes) -> Result<(), Failure> {
        let failed =
            |at: &Path, error| Failure::local(format!("{}: {}", self.name, at.display()), error);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder);
        made.map_err(|error| failed(&self.folder, error))?;
        let written = std::fs::write(self.config(), self.configuration(nodes)?);
        written.map_err(|error| failed(&self.config(), error))
    }

    fn configuration(&self, nodes: &Nodes) -> Result<String, Failure> {
        // What JSON makes of a text, TOML reads as the same.
        let text = |path: PathBuf| match path.to_str() {
            Some(path) => Ok(serde_json::Value::from(path).to_string()),
            None => {
                let message = format!("{} is not UTF-8", path.display());
                Err(Failure::usage("--data", message, "name another folder"))
            }
        };
        Ok(format!(
            "# Written by `sarsen dev` at each of its starts.\n\
             data_dir = {data}\n\
             node = {name:?}\n\
             shards = {shards}\n\
             memory = {memory}\n\n\
             [cluster]\n\
             listen = \"127.0.0.1:0\"          # the port that the system chose is kept\n\
             security = \"plain-loopback\"\n\n\
             [api]\n\
             socket = {api}\n\n\
             [nbd]\n\
             socket = {nbd}\n\n\
             [vhost_user]\n\
             dir = {vhost}\n",
            data = text(self.data())?,
            name = self.name,
            shards = nodes.shards,
            memory = nodes.memory,
            api = text(self.api())?,
            nbd = text(self.nbd())?,
            vhost = text(self.folder.join("vhost"))?,
        ))
    }

    /// Its daemon is started now: what is in the log already is of the one before.
    pub fn mark_log(&mut self) {
        self.log_from = std::fs::metadata(self.log()).map_or(0, |log| log.len());
    }

    /// The last lines of the log since its daemon was started, and where they stand.
    pub fn log_end(&self) -> String {
        let at = self.log();
        let lines = match tail(&at, self.log_from) {
            Ok(text) => last_lines(&text),
            Err(error) => format!("  | {error}"),
        };
        match lines.is_empty() {
            true => format!("{} has nothing of it", at.display()),
            false => format!("the end of {}:\n{lines}", at.display()),
        }
    }
}

fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = match std::fs::File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL_MAX))))?;
    let mut bytes = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_MAX)..];
    let shown: Vec<String> = last.iter().map(|line| format!("  | {line}")).collect();
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::Config;

    #[test]
    fn the_configuration_of_a_node_is_one_that_the_daemon_reads() {
        let dir =
            std::env::temp_dir().join(format!("sarsen \"dev\" \\ place {}", std::process::id()));
        let nodes = Nodes {
            data: dir.clone(),
            count: 3,
            size: 1 << 30,
            shards: 2,
            memory: 64 << 20,
            restart: true,
        };
        let place = Place::of(&dir, 2);
        place.make(&nodes).unwrap();
        assert_eq!(found(&dir), 0, "there is no first node");
        let config = Config::load(&place.config()).unwrap();
        assert_eq!(config.data_dir, dir.join("node2/data"));
        assert_eq!((config.shards, config.memory), (2, 64 << 20));
        assert_eq!(config.api.socket, place.api());
        assert_eq!(config.node.as_deref(), Some("node2"));
        assert!(config.cluster.is_some() && config.disks.is_empty());
        Place::of(&dir, 1).make(&nodes).unwrap();
        assert_eq!(found(&dir), 2);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn of_a_log_its_last_lines_are_shown_that_came_since_the_start() {
        let dir = std::env::temp_dir().join(format!("sarsen-dev-log-{}", std::process::id()));
        let mut place = Place::of(&dir, 1);
        assert!(place.log_end().ends_with("has nothing of it"));
        std::fs::create_dir_all(dir.join("node1")).unwrap();
        let lines: String = (0..30).map(|number| format!("line {number}\n")).collect();
        std::fs::write(place.log(), &lines).unwrap();
        let end = place.log_end();
        assert!(
            end.contains("  | line 15\n") && end.ends_with("  | line 29"),
            "{end}"
        );
        assert!(!end.contains("line 14"), "{end}");
        place.mark_log();
        std::fs::write(place.log(), lines + "the last\n").unwrap();
        let end = place.log_end();
        assert!(end.ends_with(":\n  | the last"), "{end}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
