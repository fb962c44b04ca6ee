//! `sarsen volume resize NAME --size S`

use super::show::for_people;
use crate::api::size::parse;
use crate::cli::{Context, Failure};

#[derive(Debug, clap::Args)]
pub struct Resize {
    name: String,
    /// The new size, which must not be smaller
    #[arg(long, value_parser = parse)]
    size: u64,
}

impl Resize {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let volume = context.client.resize_volume(&self.name, self.size).await?;
        context.output.show(&volume, for_people)
    }
}
