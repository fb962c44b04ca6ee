//! `sarsen status`

use super::output::{fields, table};
use super::{Context, Failure, alerts};
use crate::api::model;
use crate::api::size::human;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub struct Status {}

impl Status {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let status = context.client.status().await?;
        context.output.show(&status, for_people)
    }
}

fn for_people(status: &model::Status) -> String {
    let nodes = table(
        ["NODE", "STATE", "PID", "SHARDS", "UP", "VERSION"],
        status.nodes.iter().map(|node| {
            [
                node.name.clone(),
                node.state.clone(),
                node.pid.to_string(),
                node.shards.to_string(),
                duration(node.uptime_seconds),
                node.version.clone(),
            ]
        }),
    );
    let percent = 100 * u128::from(status.taken_bytes.max(status.promised_bytes))
        / u128::from(status.capacity_bytes.max(1));
    let rest = fields([
        (
            "disks",
            format!(
                "{} with {}{}",
                status.disks,
                human(status.capacity_bytes),
                some(status.failed_disks, "failed")
            ),
        ),
        (
            "volumes",
            format!(
                "{} with {} ({percent} %){}",
                status.volumes,
                human(status.promised_bytes),
                some(status.degraded_volumes, "degraded")
            ),
        ),
        ("connections", status.connections.to_string()),
        (
            "attachments",
            format!(
                "{}{}",
                status.attachments,
                some(status.failed_attachments, "failed")
            ),
        ),
        ("nbd socket", status.nbd_socket.clone()),
    ]);
    let pools = status.degraded_pools.iter().map(degraded_pool);
    let moving = status.moving_pools.iter().map(moving_pool);
    let pools: String = pools.chain(moving).collect();
    let cluster = status.cluster.as_ref().map_or_else(String::new, in_cluster);
    format!(
        "{nodes}\n\n{cluster}{rest}\n\n{pools}{}",
        alerts::for_people(&status.alerts)
    )
}

/// How many placement groups are how, in words.
pub(super) fn states(pgs: &model::PgStates) -> String {
    let mut words = vec![format!("{} whole", pgs.whole)];
    for (count, what) in [
        (pgs.degraded, "degraded"),
        (pgs.waiting, "below min_copies"),
        (
            pgs.unreachable - pgs.lost.min(pgs.unreachable),
            "out of reach",
        ),
        (pgs.lost, "lost"),
        (pgs.filling - pgs.moving.min(pgs.filling), "being filled"),
        (pgs.moving, "moving"),
    ] {
        if count > 0 {
            words.push(format!("{count} {what}"));
        }
    }
    words.join(", ")
}

/// A pool that is not whole: what of it, since when, why, and what is done about it.
fn degraded_pool(pool: &model::Pool) -> String {
    let since = pool.since_unix_seconds;
    let since = since.map_or_else(String::new, |since| format!(" for {}", since_unix(since)));
    let rebuild = pool.rebuild.as_ref();
    let rebuild = rebuild.map_or_else(String::new, |of| format!("\n  {}", how_long(of)));
    format!(
        "pool {}: not whole{since}: of {} placement groups {}\n  {}{rebuild}\n\n",
        pool.name,
        pool.pgs.all,
        states(&pool.pgs),
        pool.reason
    )
}

/// A pool that is whole, and of which copies move.
fn moving_pool(pool: &model::Pool) -> String {
    let how_long = pool.rebuild.as_ref().map_or_else(String::new, how_long);
    format!("pool {}: whole, copies move\n  {how_long}\n\n", pool.name)
}

/// How long copies take that are being made; what is not known is said to be so.
pub(super) fn how_long(of: &model::Rebuild) -> String {
    let copies = match of.copies {
        1 => "1 copy is to be filled".to_owned(),
        more => format!("{more} copies are to be filled"),
    };
    let left = match of.left_bytes_max {
        Some(left) => format!("with {} at most", human(left)),
        None => format!(
            "and of {} of them nobody has said yet what they lack",
            of.copies - of.known_copies
        ),
    };
    let rate = match of.bytes_per_second {
        Some(rate) => format!("{}/s lately", human(rate)),
        None => "nothing was filled lately for long enough to say how fast that goes".into(),
    };
    let takes = match of.eta_seconds {
        Some(seconds) => format!("takes about {} more", duration(seconds)),
        None => "how long it takes is not known".into(),
    };
    format!("{copies}, {left}; {rate}: {takes}")
}

/// Which node this is, who leads, and who cannot be reached since when.
fn in_cluster(cluster: &model::ClusterStatus) -> String {
    let members = cluster.nodes.iter().filter(|node| node.role == "member");
    let silent = cluster
        .nodes
        .iter()
        .filter(|node| node.state == "unreachable");
    let silent: Vec<String> = silent
        .map(|node| {
            let since = node
                .since_unix_seconds
                .map_or_else(String::new, |since| format!(" for {}", since_unix(since)));
            format!("{}{since}", node.name)
        })
        .collect();
    let held = cluster.nodes.iter().filter_map(|node| {
        let maintenance = node.maintenance.as_ref()?;
        Some(format!("{} ({})", node.name, left_of(maintenance)))
    });
    let held: Vec<String> = held.collect();
    let rest = fields([
        ("cluster", cluster.id.clone()),
        ("this node", cluster.node.clone()),
        (
            "leader",
            cluster
                .leader
                .clone()
                .unwrap_or_else(|| "nobody: the catalog takes no changes".into()),
        ),
        (
            "nodes",
            format!(
                "{}, {} of them members",
                cluster.nodes.len(),
                members.count()
            ),
        ),
        (
            "unreachable",
            match silent.is_empty() {
                true => "none".into(),
                false => silent.join(", "),
            },
        ),
        (
            "maintenance",
            match held.is_empty() {
                true => "none".into(),
                false => held.join(", "),
            },
        ),
    ]);
    format!("{rest}\n\n")
}

/// How many of them there are, where there are any.
fn some(count: u32, what: &str) -> String {
    match count {
        0 => String::new(),
        count => format!(", {count} {what}"),
    }
}

/// How long it is since a time in seconds since 1970.
pub(super) fn since_unix(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    duration(now.unwrap_or_default().as_secs().saturating_sub(seconds))
}

/// How long maintenance lasts still.
pub(super) fn left_of(maintenance: &model::Maintenance) -> String {
    let Some(until) = maintenance.until_unix_seconds else {
        return "on".into();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let left = until.saturating_sub(now.unwrap_or_default().as_secs());
    format!("on for another {}", duration(left))
}

/// A time for people, by its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {}m", minutes % 60),
        (days, hours, _) => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, how_long};
    use crate::api::model::Rebuild;

    #[test]
    fn how_long_a_rebuild_takes_is_said_or_that_it_is_not_known() {
        let known = Rebuild {
            copies: 3,
            known_copies: 3,
            left_bytes_max: Some(3 << 30),
            bytes_per_second: Some(32 << 20),
            eta_seconds: Some(96),
        };
        assert_eq!(
            how_long(&known),
            "3 copies are to be filled, with 3 GiB at most; 32 MiB/s lately: takes about 1m 36s more"
        );
        let unknown = Rebuild {
            known_copies: 1,
            left_bytes_max: None,
            bytes_per_second: None,
            eta_seconds: None,
            ..known
        };
        let said = how_long(&unknown);
        assert!(said.contains("of 2 of them nobody has said"), "{said}");
        assert!(said.ends_with("how long it takes is not known"), "{said}");
    }

    #[test]
    fn a_time_has_its_two_largest_units() {
        let all = [
            (5, "5s"),
            (65, "1m 5s"),
            (3_700, "1h 1m"),
            (90_000, "1d 1h"),
        ];
        all.iter()
            .for_each(|&(seconds, text)| assert_eq!(duration(seconds), text));
    }
}
