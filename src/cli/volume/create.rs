//! `sarsen volume create NAME --size S`

use super::show::for_people;
use crate::api::model::{self, VolumeCreate, VolumeCreatePurpose};
use crate::api::size::parse;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Create {
    /// 1 to 128 of the characters A-Z a-z 0-9 . _ -
    name: String,
    /// How large it looks, like 10G
    #[arg(long, value_parser = parse)]
    size: u64,
    /// The logical sector size in bytes: 512 or 4096
    #[arg(long, default_value_t = 4096)]
    block_size: u32,
    /// The pool that it is spread over [default: default]
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Where its data is to lie
    #[arg(long, default_value = "spread")]
    locality: Locality,
}

/// Where a volume's data is to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Locality {
    /// On all disks of the pool
    Spread,
    /// With one copy on the node whose daemon is asked
    Local,
}

impl From<Locality> for model::Locality {
    fn from(locality: Locality) -> model::Locality {
        match locality {
            Locality::Spread => model::Locality::Spread,
            Locality::Local => model::Locality::Local,
        }
    }
}

impl Create {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let create = VolumeCreate {
            name: self.name,
            size_bytes: self.size,
            block_size_bytes: self.block_size,
            purpose: VolumeCreatePurpose::Use,
            pool: self.pool,
            locality: self.locality.into(),
        };
        let volume = context.client.create_volume(&create).await?;
        context.output.show(&volume, for_people)
    }
}
