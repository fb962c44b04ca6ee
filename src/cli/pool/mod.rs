//! `sarsen pool`

mod create;
mod list;
mod set;
mod show;

use super::{Context, Failure};
use crate::api::model;
use clap::{Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the pools, and how whole they are
    List(list::List),
    /// Show one pool
    Show(show::Show),
    /// Make a pool
    Create(create::Create),
    /// Change a pool: how many copies there are, and how far apart
    Set(set::Set),
}

impl Verb {
    pub(super) async fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Verb::List(list) => list.run(context).await,
            Verb::Show(show) => show.run(context).await,
            Verb::Create(create) => create.run(context).await,
            Verb::Set(set) => set.run(context).await,
        }
    }
}

/// How far apart copies lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// On different disks
    Disk,
    /// On different nodes
    Node,
    /// In different racks
    Rack,
}

impl From<Level> for model::Level {
    fn from(level: Level) -> model::Level {
        match level {
            Level::Disk => model::Level::Disk,
            Level::Node => model::Level::Node,
            Level::Rack => model::Level::Rack,
        }
    }
}

fn word(level: model::Level) -> &'static str {
    match level {
        model::Level::Disk => "disk",
        model::Level::Node => "node",
        model::Level::Rack => "rack",
    }
}
