//! `sarsen bench NAME`

use super::output::fields;
use super::{Context, Failure};
use crate::api::client::ClientError;
use crate::api::model::{
    BenchRequest, BenchResult, ErrorCode, Locality, VolumeCreate, VolumeCreatePurpose, Workload,
};
use crate::api::size::{human, parse};

#[derive(Debug, clap::Args)]
pub struct Bench {
    /// The volume; it is made, and kept, where there is none of this name
    name: String,
    /// What is done
    #[arg(long, value_enum, default_value = "randwrite")]
    rw: Workload,
    /// The size of a request
    #[arg(long, value_name = "SIZE", value_parser = parse, default_value = "4k")]
    bs: u64,
    /// Requests in flight
    #[arg(long, default_value_t = 32)]
    depth: u32,
    /// How long it takes; a burst may be a fraction of a second
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Write over the data of a volume that bench did not make
    #[arg(long)]
    overwrite: bool,
    /// The size of a volume that is made
    #[arg(long, value_parser = parse, default_value = "1G")]
    size: u64,
}

impl Bench {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let block_bytes = u32::try_from(self.bs).map_err(|_| {
            Failure::usage(
                "--bs",
                format!("{} bytes are too many", self.bs),
                "try 4k or 1M",
            )
        })?;
        self.make_sure(context).await?;
        let bench = BenchRequest {
            volume: self.name,
            rw: self.rw,
            block_bytes,
            depth: self.depth,
            seconds: self.seconds,
            overwrite: self.overwrite,
        };
        let result = context.client.bench(&bench).await?;
        context.output.show(&result, for_people)
    }

    /// Makes the volume where there is none.
    async fn make_sure(&self, context: &mut Context) -> Result<(), Failure> {
        match context.client.volume(&self.name).await {
            Ok(_) => Ok(()),
            Err(ClientError::Refused(error)) if error.code == ErrorCode::NotFound => {
                let volume = VolumeCreate {
                    name: self.name.clone(),
                    size_bytes: self.size,
                    block_size_bytes: 4096,
                    purpose: VolumeCreatePurpose::Bench,
                    pool: None,
                    locality: Locality::Spread,
                };
                context.client.create_volume(&volume).await?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn for_people(result: &BenchResult) -> String {
    let us = |value: f64| format!("{value:.1} us");
    fields([
        ("requests/s", format!("{:.0}", result.iops)),
        (
            "throughput",
            format!("{}/s", human(result.bytes_per_second as u64)),
        ),
        ("mean", us(result.mean_us)),
        ("p50", us(result.p50_us)),
        ("p99", us(result.p99_us)),
        ("max", us(result.max_us)),
        ("longest gap", us(result.longest_gap_us)),
        ("cpu a request", us(result.cpu_us_per_io)),
    ])
}
