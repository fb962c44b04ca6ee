//! `sarsen cluster token`

use crate::api::model::{ClusterToken, ClusterTokenMake};
use crate::cli::output::seconds;
use crate::cli::{Context, Failure};

/// A token is for one machine: it is bound to the key of the one that uses it first.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// How long it is good for: 30m, 1h, 7d; at most 90d
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "1h")]
    expires: u64,
}

impl Token {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let make = ClusterTokenMake {
            expires_seconds: self.expires,
        };
        let token = context.client.cluster_token(&make).await?;
        context.output.show(&token, for_people)
    }
}

fn for_people(token: &ClusterToken) -> String {
    let ClusterToken {
        token,
        expires,
        address,
    } = token;
    format!(
        "{token}\n\n\
         On the host that is to join, whose daemon runs and has neither disks nor volumes, before {expires}:\n\
         \x20 sarsen join {address} --token {token}"
    )
}
