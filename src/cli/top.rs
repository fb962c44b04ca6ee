//! `sarsen top`: what each volume does, from two looks at the metrics.

use super::output::{say, table};
use super::{Context, Failure, attachments};
use crate::api::model::Volume;
use crate::api::size::human;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Counters of the data plane, by volume and kind of operation.
const OPERATIONS: &str = "sarsen_volume_operations_total";
const BYTES: &str = "sarsen_volume_bytes_total";

#[derive(Debug, clap::Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print once and end; so it is as well with --json and where the output is no terminal
    #[arg(long)]
    once: bool,
}

/// What a volume did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Load {
    volume: String,
    read_iops: f64,
    write_iops: f64,
    read_bytes_per_second: f64,
    write_bytes_per_second: f64,
    /// What serves it to guests, or as a device.
    attached: String,
}

#[derive(Serialize)]
struct Loads {
    seconds: f64,
    volumes: Vec<Load>,
}

/// By metric, volume and operation.
type Counters = BTreeMap<(String, String, String), f64>;

impl Top {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let once = self.once || context.output.json || !std::io::stdout().is_terminal();
        let mut before = counters(&context.client.metrics().await?);
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(Duration::from_secs(self.interval)).await;
            let names = context.client.volumes().await?.volumes;
            let now = counters(&context.client.metrics().await?);
            let seconds = looked.elapsed().as_secs_f64();
            looked = Instant::now();
            let volumes = names
                .into_iter()
                .map(|volume| Load {
                    attached: attached(&volume),
                    ..load(volume.name, &before, &now, seconds)
                })
                .collect();
            before = now;
            let loads = Loads { seconds, volumes };
            if once {
                return context.output.show(&loads, for_people);
            }
            // Clear the screen, and begin at its top.
            say(&format!("\x1b[2J\x1b[H{}", for_people(&loads)))?;
        }
    }
}

fn attached(volume: &Volume) -> String {
    let kinds: Vec<String> = volume.attachments.iter().map(attachments::kind).collect();
    kinds.join(", ")
}

fn load(volume: String, before: &Counters, now: &Counters, seconds: f64) -> Load {
    let rate = |metric: &str, operation: &str| {
        let key = (metric.to_owned(), volume.clone(), operation.to_owned());
        let count = |counters: &Counters| counters.get(&key).copied().unwrap_or(0.0);
        // A daemon that was restarted counts from zero again.
        (count(now) - count(before)).max(0.0) / seconds
    };
    Load {
        read_iops: rate(OPERATIONS, "read"),
        write_iops: rate(OPERATIONS, "write"),
        read_bytes_per_second: rate(BYTES, "read"),
        write_bytes_per_second: rate(BYTES, "write"),
        attached: String::new(),
        volume,
    }
}

fn for_people(loads: &Loads) -> String {
    let rows = loads.volumes.iter().map(|load| {
        [
            load.volume.clone(),
            format!("{:.0}", load.read_iops),
            format!("{:.0}", load.write_iops),
            format!("{}/s", human(load.read_bytes_per_second as u64)),
            format!("{}/s", human(load.write_bytes_per_second as u64)),
            load.attached.clone(),
        ]
    });
    let header = [
        "VOLUME", "READS/S", "WRITES/S", "READ", "WRITTEN", "ATTACHED",
    ];
    table(header, rows)
}

/// The samples of the two counters in OpenMetrics text. Volume names need no escaping.
fn counters(text: &str) -> Counters {
    let sample = |line: &str| {
        let (metric, rest) = line.split_once('{')?;
        if metric != OPERATIONS && metric != BYTES {
            return None;
        }
        let (labels, value) = rest.split_once("} ")?;
        let label = |name: &str| {
            let mut all = labels.split(',').filter_map(|label| label.split_once('='));
            all.find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim_matches('"').to_owned())
        };
        let value: f64 = value.split(' ').next()?.parse().ok()?;
        Some((
            (metric.to_owned(), label("volume")?, label("operation")?),
            value,
        ))
    };
    text.lines().filter_map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_looks_and_a_restart_is_not_negative() {
        let text = |reads: u64| {
            format!(
                "# TYPE sarsen_volume_operations counter\n\
                 sarsen_volume_operations_total{{volume=\"a\",operation=\"read\"}} {reads}\n\
                 sarsen_volume_bytes_total{{operation=\"write\",volume=\"a\"}} 8192\n\
                 something_else{{volume=\"a\",operation=\"read\"}} 9\n# EOF\n"
            )
        };
        let (before, now) = (counters(&text(100)), counters(&text(300)));
        assert_eq!(now.len(), 2);
        let rates = load("a".into(), &before, &now, 2.0);
        assert_eq!(
            (rates.read_iops, rates.write_bytes_per_second),
            (100.0, 0.0)
        );
        assert_eq!(load("a".into(), &now, &before, 2.0).read_iops, 0.0);
        assert_eq!(load("b".into(), &before, &now, 2.0).read_iops, 0.0);
    }
}
