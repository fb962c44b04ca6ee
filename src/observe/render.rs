//! Metrics as OpenMetrics text, by prometheus-client.

use super::disk::{DiskNumbers, Kind};
use super::registry::{Registry, Tables};
use super::shard::ShardNumbers;
use super::volume::{Operation, VolumeTotals};
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
    disks: Vec<(String, String, DiskNumbers)>,
    shards: Vec<(String, ShardNumbers)>,
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
        let disks = tables.disks.iter();
        let disks = disks.map(|(id, (path, stats))| (id.to_string(), path.clone(), stats.get()));
        let shards = tables.shards.iter();
        let shards = shards.map(|(number, stats)| (number.to_string(), stats.get()));
        Snapshot {
            volumes: volumes.collect(),
            disks: disks.collect(),
            shards: shards.collect(),
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
            to.encode_counter::<NoLabelSet, _, u64>(&totals.latency.count(), None)
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
        let (name, help) = ("sarsen_volume_latency_seconds", "From request to reply");
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        self.of_volumes(metric, |to, totals| {
            let latency = &totals.latency;
            let (sum, count) = (latency.sum_seconds(), latency.count());
            let mut buckets = latency.by_powers();
            buckets.push((f64::MAX, count));
            to.encode_histogram::<NoLabelSet>(sum, count, &cumulative_to_single(buckets), None)
        })?;
        self.encode_shards(&mut encoder)?;
        self.encode_disks(encoder)
    }
}

/// prometheus-client adds the buckets up itself.
fn cumulative_to_single(mut buckets: Vec<(f64, u64)>) -> Vec<(f64, u64)> {
    let mut before = 0;
    for (_, count) in &mut buckets {
        let all = *count;
        *count -= before;
        before = all;
    }
    buckets
}

impl Snapshot {
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

    fn encode_disks(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (place, (name, kind, help, _)) in DiskNumbers::default().list().iter().enumerate() {
            let metric_type = match kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(name, help, None, metric_type)?;
            for (id, path, numbers) in &self.disks {
                let value = numbers.list()[place].3;
                let labels = [("disk", id.as_str()), ("path", path.as_str())];
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
        let took = Duration::from_micros(100);
        for shard in 0..2 {
            let stats = registry.volume(VolumeId(7), shard);
            stats.record(Operation::Write, 4096, took, false);
            stats.record(Operation::Read, 4096, took, true);
        }
        registry.name_volume(VolumeId(7), "vm1");
        registry.name_disk(DiskId(1), "/dev/x");
        registry.disk(DiskId(1)).set(&DiskNumbers {
            checksum_errors: 3,
            ..DiskNumbers::default()
        });
        registry.shard(1).count_request();
        let text = registry.render();
        for line in [
            "sarsen_volume_operations_total{volume=\"vm1\",operation=\"write\"} 2",
            "sarsen_volume_bytes_total{volume=\"vm1\",operation=\"write\"} 8192",
            "sarsen_volume_errors_total{volume=\"vm1\",operation=\"read\"} 2",
            "sarsen_volume_latency_seconds_count{volume=\"vm1\",operation=\"write\"} 2",
            "sarsen_shard_requests_total{shard=\"1\"} 1",
            "sarsen_disk_checksum_errors_total{disk=\"1\",path=\"/dev/x\"} 3",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        let bucket = "sarsen_volume_latency_seconds_bucket{le=\"0.000131072\",volume=\"vm1\",\
                      operation=\"write\"} 2";
        assert!(text.contains(bucket), "{text}");
    }
}
