//! Metrics of the control plane, in front of those that the data plane counts itself. Written as text at each scrape
//! from the catalog and the alerts, so there is no second copy of them to keep right.

use super::Host;
use crate::api::model::{PgStates, Pool, Rebuild};
use std::fmt::{Display, Write};

impl Host {
    /// All metrics of this node, as Prometheus reads them (OpenMetrics text).
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        self.write_host(&mut text);
        self.write_volumes(&mut text);
        // The registry's text has the end mark.
        text.push_str(&self.registry().render());
        text
    }

    fn write_host(&self, text: &mut String) {
        let catalog = self.manager().catalog();
        let state = |serving: &str| u8::from(serving == "serving");
        family(text, "sarsen_alerts", "Alerts that are active, by name");
        for (name, count) in self.alerts().counts() {
            sample(text, "sarsen_alerts", &[("alert", name)], count);
        }
        family(text, "sarsen_volumes", "Volumes in the catalog");
        sample(text, "sarsen_volumes", NO_LABELS, catalog.volumes().count());
        self.write_cluster(text);
        self.write_pools(text);
        // Of the others' disks this node knows nothing.
        let mut disks = self.disks().disks;
        disks.retain(|disk| disk.state != "elsewhere");
        family(text, "sarsen_disk_size_bytes", "What a disk has");
        for disk in &disks {
            let labels = [("disk", disk.id.to_string()), ("path", disk.path.clone())];
            sample(text, "sarsen_disk_size_bytes", &labels, disk.size_bytes);
        }
        family(
            text,
            "sarsen_disk_serving",
            "Whether a disk serves (1) or not (0)",
        );
        for disk in &disks {
            let labels = [("disk", disk.id.to_string()), ("path", disk.path.clone())];
            sample(text, "sarsen_disk_serving", &labels, state(&disk.state));
        }
    }

    fn write_pools(&self, text: &mut String) {
        let pools = self.pools().pools;
        family(
            text,
            "sarsen_pool_pgs",
            "Placement groups of a pool: whole, degraded, waiting and unreachable are all of them, lost are some of the unreachable, filling some of all, moving some of the filling",
        );
        for pool in &pools {
            let PgStates {
                all: _,
                whole,
                degraded,
                waiting,
                unreachable,
                lost,
                filling,
                moving,
            } = pool.pgs;
            for (state, count) in [
                ("whole", whole),
                ("degraded", degraded),
                ("waiting", waiting),
                ("unreachable", unreachable),
                ("lost", lost),
                ("filling", filling),
                ("moving", moving),
            ] {
                let labels = [("pool", pool.name.as_str()), ("state", state)];
                sample(text, "sarsen_pool_pgs", &labels, count);
            }
        }
        Self::write_rebuilds(text, &pools);
    }

    /// What is not known is left out: a figure that stands still would be taken for one that is known.
    fn write_rebuilds(text: &mut String, pools: &[Pool]) {
        type Of = fn(&Rebuild) -> Option<u64>;
        let families: [(&str, &str, Of); 4] = [
            (
                "sarsen_pool_rebuild_copies",
                "Copies of placement groups that are to be made or filled",
                |of| Some(of.copies.into()),
            ),
            (
                "sarsen_pool_rebuild_left_bytes",
                "What they lack at most, where that is known",
                |of| of.left_bytes_max,
            ),
            (
                "sarsen_pool_rebuild_bytes_per_second",
                "What was filled a second over the last half minute, where that is known",
                |of| of.bytes_per_second,
            ),
            (
                "sarsen_pool_rebuild_eta_seconds",
                "How long that takes still, where that is known",
                |of| of.eta_seconds,
            ),
        ];
        for (name, help, value) in families {
            family(text, name, help);
            for pool in pools {
                let none = name.ends_with("copies").then_some(0);
                if let Some(value) = pool.rebuild.as_ref().map_or(none, value) {
                    sample(text, name, &[("pool", pool.name.as_str())], value);
                }
            }
        }
    }

    fn write_cluster(&self, text: &mut String) {
        let Some(cluster) = self.cluster_seen() else {
            return;
        };
        family(
            text,
            "sarsen_cluster_node_reachable",
            "Whether this node reaches another (1) or not (0)",
        );
        for node in cluster.nodes.iter().filter(|node| node.state != "this") {
            let reachable = u8::from(node.state == "reachable");
            sample(
                text,
                "sarsen_cluster_node_reachable",
                &[("node", &node.name)],
                reachable,
            );
        }
        family(
            text,
            "sarsen_cluster_has_leader",
            "Whether this node hears of one who leads the manager (1) or not (0)",
        );
        let has_leader = u8::from(cluster.leader.is_some());
        sample(text, "sarsen_cluster_has_leader", NO_LABELS, has_leader);
    }

    fn write_volumes(&self, text: &mut String) {
        let volumes = self.volumes().volumes;
        family(
            text,
            "sarsen_volume_size_bytes",
            "What a volume was promised",
        );
        for volume in &volumes {
            let labels = [("volume", &volume.name)];
            sample(text, "sarsen_volume_size_bytes", &labels, volume.size_bytes);
        }
        family(
            text,
            "sarsen_volume_connections",
            "Front-end connections to a volume",
        );
        for volume in &volumes {
            let labels = [("volume", &volume.name)];
            sample(
                text,
                "sarsen_volume_connections",
                &labels,
                volume.connections,
            );
        }
    }
}

/// For metrics that stand alone.
const NO_LABELS: &[(&str, &str)] = &[];

fn family(text: &mut String, name: &str, help: &str) {
    put(
        text,
        format_args!("# HELP {name} {help}.\n# TYPE {name} gauge\n"),
    );
}

fn sample(text: &mut String, name: &str, labels: &[(&str, impl Display)], value: impl Display) {
    text.push_str(name);
    for (at, (label, of)) in labels.iter().enumerate() {
        let before = if at == 0 { '{' } else { ',' };
        // `{:?}` of a string escapes quotes and backslashes as OpenMetrics does; control characters cannot be
        // in names and paths, which the catalog checked.
        put(text, format_args!("{before}{label}={:?}", of.to_string()));
    }
    let end = if labels.is_empty() { "" } else { "}" };
    put(text, format_args!("{end} {value}\n"));
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}
