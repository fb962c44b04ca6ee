//! `sarsen cluster api-token NAME`

use crate::api::model::{ClientRole, ClusterApiToken, ClusterClientMake};
use crate::cli::output::seconds;
use crate::cli::{Context, Failure};

/// Whoever holds it may do what its role allows, until it ends or its name is revoked. The daemon does not keep it.
#[derive(Debug, clap::Args)]
pub struct ApiToken {
    /// The client's name: what is revoked, with every certificate and token of it
    name: String,
    /// What it may do: reader (see everything but data), operator (everyday work that loses nothing), admin
    #[arg(long, value_enum, default_value = "reader")]
    role: ClientRole,
    /// How long it is good for: 1h, 30d; at most 90d
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "30d")]
    expires: u64,
}

impl ApiToken {
    pub(in crate::cli) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let make = ClusterClientMake {
            name: self.name,
            role: self.role,
            expires_seconds: self.expires,
        };
        let token = context.client.make_api_token(&make).await?;
        context.output.show(&token, for_people)
    }
}

fn for_people(token: &ClusterApiToken) -> String {
    let ClusterApiToken { token, expires, .. } = token;
    format!(
        "{token}\n\n\
         Good until {expires}:\n\
         \x20 SARSEN_API_TOKEN={token} sarsen --api https://HOST:PORT status"
    )
}
