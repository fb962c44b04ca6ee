//! What the configuration says of the cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

/// How connections between nodes are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Both sides prove who they are, and nobody else reads.
    #[default]
    MutualTls,
    /// Nothing of that; only between processes of one machine.
    PlainLoopback,
    /// Nothing of that, over any network.
    Plain,
}

/// The section `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where this node listens for others. With port 0 the system chooses one at the founding or joining, and it stays that.
    pub listen: SocketAddr,
    /// Where others reach it, where that is not `listen`. With port 0: on the port that it listens on.
    pub advertise: Option<SocketAddr>,
    pub protection: Protection,
    /// The file that says so, for words.
    pub file: PathBuf,
}

impl Settings {
    /// Where others reach a node that listens on this port.
    pub fn reached_at(&self, port: u16) -> SocketAddr {
        let mut at = self.advertise.unwrap_or(self.listen);
        if self.advertise.is_none() || at.port() == 0 {
            at.set_port(port);
        }
        at
    }

    /// Where to listen, where `kept` is the port of the last time.
    pub fn listens_at(&self, kept: Option<u16>) -> SocketAddr {
        let mut at = self.listen;
        if at.port() == 0 {
            at.set_port(kept.unwrap_or(0));
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(listen: &str, advertise: Option<&str>) -> Settings {
        Settings {
            listen: listen.parse().unwrap(),
            advertise: advertise.map(|at| at.parse().unwrap()),
            protection: Protection::MutualTls,
            file: "/etc/sarsen/sarsen.toml".into(),
        }
    }

    #[test]
    fn a_port_that_the_system_chose_is_kept_and_told() {
        let any = settings("127.0.0.1:0", None);
        assert_eq!(any.listens_at(None).port(), 0);
        assert_eq!(any.listens_at(Some(7)).port(), 7);
        assert_eq!(any.reached_at(7).to_string(), "127.0.0.1:7");
        let fixed = settings("0.0.0.0:7400", Some("10.0.0.1:0"));
        assert_eq!(fixed.listens_at(Some(7)).port(), 7400);
        assert_eq!(fixed.reached_at(7400).to_string(), "10.0.0.1:7400");
        let behind = settings("0.0.0.0:7400", Some("192.0.2.1:9"));
        assert_eq!(behind.reached_at(7400).to_string(), "192.0.2.1:9");
    }
}
