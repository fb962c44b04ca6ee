//! What is told of a chunk, and what two tellings come to.

use crate::base::{DiskId, PgId, Stamp, crc};
use crate::protocol::replication::fill::Content;

/// What stands on every frame between two that compare. It comes back with the answer as it was sent, and names one question of all that were ever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompareHeader {
    pub pg: PgId,
    /// Of the asker's configuration: it is answered only where the other one has the same.
    pub version: u32,
    /// The disk that asks.
    pub asker: DiskId,
    /// The start of its node in which it asks. Numbers of questions begin anew with each.
    pub life: u64,
    /// Its number of the question in that life.
    pub id: u64,
}

/// Whether anything of a chunk may not be everywhere yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Motion {
    /// No window has an entry of it, and nothing of it is on its way to the disk: all that is here is acknowledged.
    Quiet,
    Moving,
}

/// What lies below a layer: where nothing does, a block that is absent reads as one that is zero.
/// Nodes hear at different times that what lay below a layer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Below {
    Nothing,
    Layers,
}

/// What a replica holds of a chunk of one layer, in few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Summary {
    pub stamp: Stamp,
    /// As the catalog of the node has it: what a block that is absent reads as.
    pub below: Below,
    pub data: u16,
    /// Blocks that are zero here; none where nothing lies below, because those that are absent read as zero there too.
    pub zeroes: u16,
    /// Of the checksums of the blocks with data, one after the other; 0 where there are none.
    pub digest: u32,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CompareAnswer {
    Held {
        summary: Summary,
        motion: Motion,
    },
    /// There is no entry of the chunk, nor a tombstone. Those with versions up to `forgotten` may have gone (R20); 0: none has.
    Nothing {
        /// As in a [`Summary`]. What is zero can be let go where nothing lies below any more.
        below: Below,
        forgotten: u32,
    },
    /// Not in sync under that version, or it cannot tell.
    NotNow,
}

/// What an answer comes to, against a look that was quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opinion {
    Same,
    /// It lacks an acknowledged write.
    Lacks,
    /// Both are settled and differ. What it has; `None`: nothing.
    Differs(Option<Summary>),
    /// Something came between.
    Unsettled,
}

impl Summary {
    pub fn of(content: &Content, below: Below) -> Summary {
        let mut bytes = [0u8; 64];
        let mut len = 0;
        for place in (0..16).filter(|place| content.data & 1 << place != 0) {
            bytes[len..len + 4].copy_from_slice(&content.crcs[place].to_le_bytes());
            len += 4;
        }
        Summary {
            stamp: content.stamp,
            below,
            data: content.data,
            zeroes: match below {
                Below::Nothing => 0,
                Below::Layers => content.zeroes & !content.data,
            },
            digest: if len == 0 { 0 } else { crc::of(&bytes[..len]) },
        }
    }

    /// Whether a reader gets the same of both, where the same lies below.
    pub fn reads_as(&self, other: &Summary) -> bool {
        (self.data, self.zeroes, self.digest) == (other.data, other.zeroes, other.digest)
    }

    /// Whether a reader gets what one gets of no entry at all.
    pub fn is_nothing(&self) -> bool {
        self.data | self.zeroes == 0
    }

    /// What an answer comes to that was asked for after this quiet look.
    pub(super) fn against(&self, answer: &CompareAnswer) -> Opinion {
        match *answer {
            CompareAnswer::NotNow => Opinion::Unsettled,
            // One of the two catalogs is behind. What is absent in one and zero in the other, or left out of a mask, says nothing until they agree.
            CompareAnswer::Held {
                summary: Summary { below, .. },
                ..
            }
            | CompareAnswer::Nothing { below, .. }
                if below != self.below =>
            {
                Opinion::Unsettled
            }
            CompareAnswer::Nothing { .. } if self.is_nothing() => Opinion::Same,
            // A discard that this replica has lost, whose tombstone has gone there, looks the same.
            CompareAnswer::Nothing { forgotten, .. } => match self.stamp.version > forgotten {
                true => Opinion::Lacks,
                false => Opinion::Differs(None),
            },
            CompareAnswer::Held { summary, motion } => match summary.stamp.cmp(&self.stamp) {
                _ if self.reads_as(&summary) => Opinion::Same,
                std::cmp::Ordering::Less => Opinion::Lacks,
                std::cmp::Ordering::Equal if motion == Motion::Quiet => {
                    Opinion::Differs(Some(summary))
                }
                _ => Opinion::Unsettled,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(sequence: u64, blocks: &[u32]) -> Content {
        let mut of = Content {
            stamp: Stamp {
                version: 2,
                sequence,
                ..Stamp::default()
            },
            data: 0,
            zeroes: 0,
            crcs: [0; 16],
        };
        for (at, block) in blocks.iter().enumerate() {
            match block {
                0 => {}
                1 => of.zeroes |= 1 << at,
                crc => {
                    of.data |= 1 << at;
                    of.crcs[at] = *crc;
                }
            }
        }
        of
    }

    fn summary(sequence: u64, blocks: &[u32]) -> Summary {
        Summary::of(&content(sequence, blocks), Below::Layers)
    }

    fn opinion(own: &Summary, summary: Summary, motion: Motion) -> Opinion {
        own.against(&CompareAnswer::Held { summary, motion })
    }

    #[test]
    fn what_reads_the_same_is_the_same_whatever_its_stamp_is() {
        let own = summary(5, &[7, 1, 0]);
        for sequence in [4, 5, 6] {
            let other = summary(sequence, &[7, 1, 0]);
            assert_eq!(opinion(&own, other, Motion::Moving), Opinion::Same);
        }
    }

    #[test]
    fn an_older_stamp_with_other_content_has_lost_a_write_quiet_or_not() {
        let own = summary(5, &[7]);
        for motion in [Motion::Quiet, Motion::Moving] {
            assert_eq!(opinion(&own, summary(4, &[6]), motion), Opinion::Lacks);
            assert_eq!(opinion(&own, summary(6, &[8]), motion), Opinion::Unsettled);
        }
    }

    #[test]
    fn at_one_stamp_they_differ_only_if_both_are_quiet() {
        let (own, other) = (summary(5, &[7, 8]), summary(5, &[7, 9]));
        let differs = Opinion::Differs(Some(other));
        assert_eq!(opinion(&own, other, Motion::Quiet), differs);
        assert_eq!(opinion(&own, other, Motion::Moving), Opinion::Unsettled);
        // The same checksums at other places are other content.
        let other = summary(5, &[0, 7, 8]);
        assert!(!own.reads_as(&other));
    }

    #[test]
    fn who_has_nothing_has_lost_it_unless_a_tombstone_may_have_gone() {
        let own = summary(5, &[7]);
        let below = Below::Layers;
        let nothing = |forgotten| own.against(&CompareAnswer::Nothing { below, forgotten });
        assert_eq!(nothing(0), Opinion::Lacks);
        assert_eq!(nothing(1), Opinion::Lacks);
        assert_eq!(nothing(2), Opinion::Differs(None));
        let tombstone = summary(5, &[]);
        let nothing = CompareAnswer::Nothing {
            below,
            forgotten: 0,
        };
        assert_eq!(tombstone.against(&nothing), Opinion::Same);
    }

    #[test]
    fn zero_and_absent_differ_over_another_layer_only() {
        let (zero, absent) = (content(5, &[1, 7]), content(5, &[0, 7]));
        let of = |content, below| Summary::of(content, below);
        assert!(of(&zero, Below::Nothing).reads_as(&of(&absent, Below::Nothing)));
        assert!(!of(&zero, Below::Layers).reads_as(&of(&absent, Below::Layers)));
    }

    #[test]
    fn nothing_follows_where_one_catalog_is_behind_about_what_lies_below() {
        let of = content(5, &[1, 7]);
        let (behind, ahead) = (Below::Layers, Below::Nothing);
        for (own, other) in [(behind, ahead), (ahead, behind)] {
            for sequence in [4, 5, 6] {
                let told = Summary::of(&content(sequence, &[1, 7]), other);
                let came_to = opinion(&Summary::of(&of, own), told, Motion::Quiet);
                assert_eq!(came_to, Opinion::Unsettled);
            }
            // What is zero can be let go where it reads as what is absent.
            let nothing = CompareAnswer::Nothing {
                below: other,
                forgotten: 0,
            };
            let own = Summary::of(&of, own);
            assert_eq!(own.against(&nothing), Opinion::Unsettled);
        }
    }
}
