//! `sarsen cluster`

mod api_token;
mod client;
mod clients;
mod init;
mod members;
mod token;

pub(super) use members::presence;

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Make a cluster of this node, which others can join
    Init(init::Init),
    /// Make a token with which one machine may join
    Token(token::Token),
    /// Make a certificate for a client: of the API over TCP, and of NBD under TLS
    Client(client::Client),
    /// Make a token for the API over TCP
    ApiToken(api_token::ApiToken),
    /// Show the clients, by the names in their certificates and tokens
    Clients(clients::Clients),
    /// Take nothing any more that a client shows
    Revoke(clients::Revoke),
    /// Show the nodes: who is there, who has a vote, who leads; `members set` names those that have a vote
    Members(members::Members),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Verb::Init(init) => init.run(context).await,
            Verb::Token(token) => token.run(context).await,
            Verb::Client(client) => client.run(context).await,
            Verb::ApiToken(token) => token.run(context).await,
            Verb::Clients(clients) => clients.run(context).await,
            Verb::Revoke(revoke) => revoke.run(context).await,
            Verb::Members(members) => members.run(context).await,
        }
    }
}
