//! The counters of the links of one shard: what it says to peers, and hears of them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why links ended, by the places in [`LinkNumbers::cut`].
pub const CUTS: [&str; 12] = [
    "given_up",
    "closed",
    "truncated",
    "failed",
    "malformed",
    "out_of_order",
    "checksum",
    "over_credit",
    "credit_taken_back",
    "mismatch",
    "slow",
    "tls",
];

/// What the links of a shard have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkNumbers {
    /// Links that there are now.
    pub links: u64,
    pub frames_received: u64,
    pub bytes_received: u64,
    pub frames_sent: u64,
    pub bytes_sent: u64,
    /// Asks that waited for credit.
    pub delayed: u64,
    /// Times that a link waited for memory.
    pub hungry: u64,
    /// Answers that nobody waited for.
    pub unasked: u64,
    /// Links that ended, by the reason.
    pub cut: [u64; CUTS.len()],
}

const VALUES: usize = 8;

/// Written by its shard alone.
#[derive(Debug, Default)]
pub struct LinkStats {
    values: [AtomicU64; VALUES],
    cut: [AtomicU64; CUTS.len()],
}

impl LinkStats {
    /// Sets all numbers.
    pub fn set(&self, numbers: &LinkNumbers) {
        let values = numbers.list().map(|(.., value)| value);
        let all = self.values.iter().zip(values);
        let cut = self.cut.iter().zip(numbers.cut);
        all.chain(cut)
            .for_each(|(to, value)| to.store(value, Ordering::Relaxed));
    }

    pub fn get(&self) -> LinkNumbers {
        let value = |place: usize| self.values[place].load(Ordering::Relaxed);
        LinkNumbers {
            links: value(0),
            frames_received: value(1),
            bytes_received: value(2),
            frames_sent: value(3),
            bytes_sent: value(4),
            delayed: value(5),
            hungry: value(6),
            unasked: value(7),
            cut: std::array::from_fn(|place| self.cut[place].load(Ordering::Relaxed)),
        }
    }
}

/// How a number is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl LinkNumbers {
    /// Names in metrics, what they mean, and the values; those of the reasons are apart.
    pub(super) fn list(&self) -> [(&'static str, &'static str, Kind, u64); VALUES] {
        use Kind::{Counter, Gauge};
        [
            (
                "sarsen_links",
                "Links to shards of peers",
                Gauge,
                self.links,
            ),
            (
                "sarsen_link_frames_received",
                "Frames that came from peers",
                Counter,
                self.frames_received,
            ),
            (
                "sarsen_link_received_bytes",
                "Bytes that came from peers",
                Counter,
                self.bytes_received,
            ),
            (
                "sarsen_link_frames_sent",
                "Frames that were sent to peers",
                Counter,
                self.frames_sent,
            ),
            (
                "sarsen_link_sent_bytes",
                "Bytes that were sent to peers",
                Counter,
                self.bytes_sent,
            ),
            (
                "sarsen_link_asks_delayed",
                "Asks that waited for credit of a peer",
                Counter,
                self.delayed,
            ),
            (
                "sarsen_link_waits_for_memory",
                "Times that a link was not read for want of memory",
                Counter,
                self.hungry,
            ),
            (
                "sarsen_link_answers_unasked",
                "Answers that nobody waited for",
                Counter,
                self.unasked,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_read_back() {
        let numbers = LinkNumbers {
            links: 1,
            frames_received: 2,
            bytes_received: 3,
            frames_sent: 4,
            bytes_sent: 5,
            delayed: 6,
            hungry: 7,
            unasked: 8,
            cut: std::array::from_fn(|place| place as u64 + 9),
        };
        let stats = LinkStats::default();
        stats.set(&numbers);
        assert_eq!(stats.get(), numbers);
    }
}
