//! `sarsen generate`: what a package ships beside the binary, from the command line itself, so that it cannot differ.

use super::output::say;
use super::{Cli, Failure};
use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Write a man page for each command
    Man {
        /// The folder that they go to, which is made where there is none
        folder: PathBuf,
    },
}

impl Verb {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut command = Cli::command();
        match self {
            Verb::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut command, "sarsen", &mut script);
                say(&String::from_utf8_lossy(&script))
            }
            Verb::Man { folder } => std::fs::create_dir_all(&folder)
                .and_then(|()| clap_mangen::generate_to(command, &folder))
                .map_err(|error| Failure::local(folder.display(), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_the_verbs_that_people_use() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sarsen", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("attachments"), "{shell}");
        }
    }
}
