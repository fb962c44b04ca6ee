//! `sarsen cluster`

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
    /// Show the nodes: who is there, who has a vote, who leads; `members set` names those that have a vote
    Members(members::Members),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Verb::Init(init) => init.run(context).await,
            Verb::Token(token) => token.run(context).await,
            Verb::Members(members) => members.run(context).await,
        }
    }
}
