//! What orders writes and fences writers.

use serde::{Deserialize, Serialize};

/// Fences writers: whose turn at a range this is. They are ordered.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Raised only by a forced take-over.
    pub generation: u32,
    pub site: u32,
    pub host: u32,
}

impl Epoch {
    /// The next turn, of the next host where one is left. `None`: there is none.
    pub fn next(self) -> Option<Epoch> {
        let Epoch {
            generation,
            site,
            host,
        } = self;
        let of = |(generation, site, host)| Epoch {
            generation,
            site,
            host,
        };
        let hosts = host.checked_add(1).map(|host| (generation, site, host));
        let sites = || site.checked_add(1).map(|site| (generation, site, 0));
        let generations = || {
            generation
                .checked_add(1)
                .map(|generation| (generation, 0, 0))
        };
        hosts.or_else(sites).or_else(generations).map(of)
    }
}

/// What orders two states of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Of the PG in the cluster map.
    pub version: u32,
    pub epoch: Epoch,
    /// Of the coordinator, never used twice in an epoch.
    pub sequence: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_turn_is_above_and_the_last_has_none() {
        let of = |generation, site, host| Epoch {
            generation,
            site,
            host,
        };
        let last = u32::MAX;
        assert_eq!(of(1, 2, 3).next(), Some(of(1, 2, 4)));
        assert_eq!(of(1, 2, last).next(), Some(of(1, 3, 0)));
        assert_eq!(of(1, last, last).next(), Some(of(2, 0, 0)));
        assert_eq!(of(last, last, last).next(), None);
    }
}
