//! Metrics as OpenMetrics text, by prometheus-client.

use super::disk::{DiskNumbers, DiskOperation, Kind};
use super::histogram::Buckets;
use super::link::{CUTS, Kind as LinkKind, LinkNumbers};
use super::registry::{Registry, Tables};
use super::shard::ShardNumbers;
use super::volume::{Operation, Stage, VolumeTotals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use std::fmt;

pub(super) fn render(registry: &Registry) -> String {
    let snapshot = Snapshot::of(&registry.tables());
    let mut all = prometheus_client::registry::Registry::default();
    all.register_collector(Box::new(snapshot));
    let mut text = String::new();
    // Writing to a string cannot fail, and the collector writes nothing else.
    let _ = text::encode(&mut text, &all);
    text
}

/// All numbers at one time.
#[derive(Debug)]
struct Snapshot {
    volumes: Vec<(String, Vec<(Operation, VolumeTotals)>)>,
    disks: Vec<Disk>,
    shards: Vec<(String, ShardNumbers)>,
    links: Vec<(String, LinkNumbers)>,
}

#[derive(Debug)]
struct Disk {
    id: String,
    path: String,
    numbers: DiskNumbers,
    latencies: Vec<(DiskOperation, Buckets)>,
}

impl Snapshot {
    fn of(tables: &Tables) -> Snapshot {
        let volumes = tables.volumes.iter().map(|(id, (name, shards))| {
            let name = if name.is_empty() {
                id.to_string()
            } else {
                name.clone()
            };
            let operations = Operation::ALL.map(|operation| {
                let mut totals = VolumeTotals::default();
                shards
                    .values()
                    .for_each(|stats| stats.add_to(operation, &mut totals));
                (operation, totals)
            });
            (name, operations.to_vec())
        });
        let latency = |stats: &super::DiskStats| {
            let all = DiskOperation::ALL.iter();
            all.map(|&operation| (operation, stats.latency(operation)))
                .collect()
        };
        let disks = tables.disks.iter().map(|(id, (path, stats))| Disk {
            id: id.to_string(),
            path: path.clone(),
            numbers: stats.get(),
            latencies: latency(stats),
        });
        let shards = tables.shards.iter();
        let shards = shards.map(|(number, stats)| (number.to_string(), stats.get()));
        let links = tables.links.iter();
        let links = links.map(|(number, stats)| (number.to_string(), stats.get()));
        Snapshot {
            volumes: volumes.collect(),
            disks: disks.collect(),
            shards: shards.collect(),
            links: links.collect(),
        }
    }

    /// One metric of every volume and operation.
    fn of_volumes(
        &self,
        mut encoder: MetricEncoder<'_>,
        mut write: impl FnMut(&mut MetricEncoder<'_>, &VolumeTotals) -> fmt::Result,
    ) -> fmt::Result {
        for (name, operations) in &self.volumes {
            for (operation, totals) in operations {
                let labels = [("volume", name.as_str()), ("operation", operation.name())];
                write(&mut encoder.encode_family(&labels)?, totals)?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counter = MetricType::Counter;
        let (name, help) = ("sarsen_volume_operations", "Operations that succeeded");
        let metric = encoder.encode_descriptor(name, help, None, counter)?;
        self.of_volumes(metric, |to, totals| {
            to.encode_counter::<NoLabelSet, _, u64>(&totals.operations(), None)
        })?;
        let (name, help) = ("sarsen_volume_bytes", "Bytes of operations that succeeded");
        let metric = encoder.encode_descriptor(name, help, None, counter)?;
        self.of_volumes(metric, |to, totals| {
            to.encode_counter::<NoLabelSet, _, u64>(&totals.bytes, None)
        })?;
        let (name, help) = ("sarsen_volume_errors", "Operations that failed");
        let metric = encoder.encode_descriptor(name, help, None, counter)?;
        self.of_volumes(metric, |to, totals| {
            to.encode_counter::<NoLabelSet, _, u64>(&totals.errors, None)
        })?;
        self.encode_latencies(&mut encoder)?;
        self.encode_shards(&mut encoder)?;
        self.encode_links(&mut encoder)?;
        self.encode_disks(encoder)
    }
}

/// A histogram in its family; none where nothing was counted, because most volumes are quiet most of the time.
fn put_histogram(
    metric: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); 3],
    latency: &Buckets,
) -> fmt::Result {
    if latency.count() == 0 {
        return Ok(());
    }
    let (sum, count) = (latency.sum_seconds(), latency.count());
    // prometheus-client adds the buckets up itself.
    metric
        .encode_family(labels)?
        .encode_histogram::<NoLabelSet>(sum, count, &latency.list(), None)
}

impl Snapshot {
    fn encode_latencies(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let kind = MetricType::Histogram;
        let name = "sarsen_volume_latency_seconds";
        let help = "Time of operations that succeeded, by stage: front (until it is submitted), store \
                    (until it is carried out), send (until the reply was sent)";
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for (volume, operations) in &self.volumes {
            for (operation, totals) in operations {
                for (stage, latency) in Stage::ALL.iter().zip(&totals.stages) {
                    let labels = [
                        ("volume", volume.as_str()),
                        ("operation", operation.name()),
                        ("stage", stage.name()),
                    ];
                    put_histogram(&mut metric, &labels, latency)?;
                }
            }
        }
        let (name, help) = (
            "sarsen_disk_latency_seconds",
            "Time of operations on a disk",
        );
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for disk in &self.disks {
            for (operation, latency) in &disk.latencies {
                let labels = [
                    ("disk", disk.id.as_str()),
                    ("path", disk.path.as_str()),
                    ("operation", operation.name()),
                ];
                put_histogram(&mut metric, &labels, latency)?;
            }
        }
        Ok(())
    }

    fn encode_shards(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (place, (name, help, _)) in ShardNumbers::default().list().iter().enumerate() {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (number, numbers) in &self.shards {
                let (labels, value) = ([("shard", number.as_str())], numbers.list()[place].2);
                let mut family = metric.encode_family(&labels)?;
                family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn encode_links(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (place, (name, help, kind, _)) in LinkNumbers::default().list().iter().enumerate() {
            let metric_type = match kind {
                LinkKind::Counter => MetricType::Counter,
                LinkKind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            for (number, numbers) in &self.links {
                let (labels, value) = ([("shard", number.as_str())], numbers.list()[place].3);
                let mut family = metric.encode_family(&labels)?;
                match kind {
                    LinkKind::Counter => {
                        family.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
                    }
                    LinkKind::Gauge => family.encode_gauge(&(value as i64))?,
                }
            }
        }
        let (name, help) = ("sarsen_links_ended", "Links that ended, by the reason");
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (number, numbers) in &self.links {
            for (why, count) in CUTS.iter().zip(numbers.cut) {
                let labels = [("shard", number.as_str()), ("why", why)];
                let mut family = metric.encode_family(&labels)?;
                family.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_disks(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (place, (name, kind, help, _)) in DiskNumbers::default().list().iter().enumerate() {
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            for disk in &self.disks {
                let value = disk.numbers.list()[place].3;
                let labels = [("disk", disk.id.as_str()), ("path", disk.path.as_str())];
                let mut family = metric.encode_family(&labels)?;
                match kind {
                    Kind::Counter => family.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    Kind::Gauge => family.encode_gauge(&(value as i64))?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{DiskId, VolumeId};
    use std::time::Duration;

    #[test]
    fn what_two_shards_counted_is_added_up_and_named_in_base_units() {
        let registry = Registry::default();
        let us = Duration::from_micros;
        for shard in 0..2 {
            let stats = registry.volume(VolumeId(7), shard);
            stats.succeeded(Operation::Write, 4096, us(10), us(100));
            stats.sent(Operation::Write, us(5), 1);
            stats.failed(Operation::Read);
        }
        registry.name_volume(VolumeId(7), "vm1");
        registry.name_disk(DiskId(1), "/dev/x");
        registry.disk(DiskId(1)).set(&DiskNumbers {
            checksum_errors: 3,
            checkpoint_running: 1,
            ..DiskNumbers::default()
        });
        registry.shard(1).count_request();
        registry.links(1).set(&LinkNumbers {
            links: 2,
            frames_sent: 9,
            cut: [0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            ..LinkNumbers::default()
        });
        registry
            .disk(DiskId(1))
            .took(DiskOperation::Journal, us(20));
        let text = registry.render();
        for line in [
            "sarsen_volume_operations_total{volume=\"vm1\",operation=\"write\"} 2",
            "sarsen_volume_bytes_total{volume=\"vm1\",operation=\"write\"} 8192",
            "sarsen_volume_errors_total{volume=\"vm1\",operation=\"read\"} 2",
            "sarsen_volume_latency_seconds_count{volume=\"vm1\",operation=\"write\",stage=\"front\"} 2",
            "sarsen_volume_latency_seconds_count{volume=\"vm1\",operation=\"write\",stage=\"send\"} 2",
            "sarsen_shard_requests_total{shard=\"1\"} 1",
            "sarsen_links{shard=\"1\"} 2",
            "sarsen_link_frames_sent_total{shard=\"1\"} 9",
            "sarsen_links_ended_total{shard=\"1\",why=\"malformed\"} 4",
            "sarsen_disk_checksum_errors_total{disk=\"1\",path=\"/dev/x\"} 3",
            "sarsen_disk_checkpoint_running{disk=\"1\",path=\"/dev/x\"} 1",
            "sarsen_disk_latency_seconds_count{disk=\"1\",path=\"/dev/x\",operation=\"journal\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let bucket = "sarsen_volume_latency_seconds_bucket{le=\"0.000131072\",volume=\"vm1\",\
                      operation=\"write\",stage=\"store\"} 2";
        assert!(text.contains(bucket), "{text}");
        let quiet = "sarsen_volume_latency_seconds_count{volume=\"vm1\",operation=\"read\"";
        assert!(!text.contains(quiet), "{text}");
    }
}
