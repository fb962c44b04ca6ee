//! The command line: `cargo sim WORLD ...`.

use crate::base::Break;
use std::fmt;

pub const USAGE: &str = "\
usage: cargo sim store [SEED] [options]
       cargo sim cluster [SEED] [options]
       cargo sim scale [--small] [map | steady | rack | rebuild]

  SEED              run this seed alone
  --seeds N         run N seeds (default 100)
  --start S         the first of them (default 0)
  --break NAME      plant a break
  --list-breaks     name the breaks, with the checker that finds each
  --breaks          try every break on its pinned seed, search another where that is stale
  --images N        enumerate N distinct crash states
  --trace           print a line for every event (of SEED, or of the image that fails)
  --gate            what the gate runs: seeds, images, breaks, determinism
";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Seeds,
    Images(u64),
    ListBreaks,
    Breaks,
    Gate,
}

/// The command line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    pub task: Task,
    pub start: u64,
    pub seeds: u64,
    pub planted: Option<Break>,
    pub trace: bool,
}

/// A command line that is not understood: what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misunderstood(pub String);

impl fmt::Display for Misunderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\n{USAGE}", self.0)
    }
}

impl Arguments {
    /// Reads the arguments after the program's name.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, Misunderstood> {
        let mut words = words;
        match words.next().as_deref() {
            Some("store") => {}
            Some(other) => return Err(Misunderstood(format!("there is no world {other:?}"))),
            None => return Err(Misunderstood("a world is missing".to_string())),
        }
        let mut parsed = Arguments {
            task: Task::Seeds,
            start: 0,
            seeds: 100,
            planted: None,
            trace: false,
        };
        while let Some(word) = words.next() {
            parsed.take(&word, &mut words)?;
        }
        let one = parsed.seeds == 1 || matches!(parsed.task, Task::Images(_));
        if parsed.trace && !one {
            let why = "--trace is for one seed, or for the image that fails";
            return Err(Misunderstood(why.to_string()));
        }
        Ok(parsed)
    }

    fn take(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), Misunderstood> {
        let mut value = || {
            let missing = || Misunderstood(format!("{word} needs a value"));
            words.next().ok_or_else(missing)
        };
        match word {
            "--seeds" => self.seeds = number(word, &value()?)?,
            "--start" => self.start = number(word, &value()?)?,
            "--images" => self.task = Task::Images(number(word, &value()?)?),
            "--list-breaks" => self.task = Task::ListBreaks,
            "--breaks" => self.task = Task::Breaks,
            "--gate" => self.task = Task::Gate,
            "--trace" => self.trace = true,
            "--break" => {
                let name = value()?;
                let unknown = || Misunderstood(format!("there is no break {name:?}"));
                self.planted = Some(Break::from_name(&name).ok_or_else(unknown)?);
            }
            seed => {
                self.start = number("SEED", seed)?;
                self.seeds = 1;
            }
        }
        Ok(())
    }
}

fn number(what: &str, word: &str) -> Result<u64, Misunderstood> {
    let wrong = |_| Misunderstood(format!("{what} takes a number, not {word:?}"));
    word.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, Misunderstood> {
        Arguments::parse(line.split_whitespace().map(str::to_string))
    }

    #[test]
    fn a_seed_runs_alone_and_may_be_traced() {
        let parsed = parse("store 17 --trace --break skip-crc").unwrap();
        assert_eq!((parsed.start, parsed.seeds, parsed.trace), (17, 1, true));
        assert_eq!(parsed.planted, Some(Break::SkipCrc));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, said) in [
            ("", "a world is missing"),
            ("moon", "\"moon\""),
            ("store --seeds", "--seeds needs a value"),
            ("store --seeds x", "\"x\""),
            ("store --break moon", "no break \"moon\""),
            ("store --trace", "one seed"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.0.contains(said), "{line}: {}", error.0);
        }
    }
}
