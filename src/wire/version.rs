//! Which version can say what: the one place where that stands.
//!
//! A version differs from the one before by what can be said in it, and by nothing else: the form of what both can say is the same. So there is one encoder and one
//! decoder, and a [`Feature`] has one line here, with the frames that need it. Whoever adds a frame adds a line; a frame that is in none belongs to
//! the oldest version. A change of form would need a version that is told apart where it is read; there is none yet.
//!
//! A build speaks the present version and the one before. What the older one cannot say is not asked of a peer that speaks it: writing it is refused
//! ([`Unwritten::Newer`](super::Unwritten::Newer)), and a peer that sends it is cut off. What to do instead stands with each feature.
//!
//! A *hint* is what a frame says by the way. The frame does not depend on it, so to a peer that has no word for it the frame goes without: an acknowledgement that
//! was refused to its writer because a disk is low would have the replica taken out for that. A peer that gives a hint of a later version is cut off all the same.

use super::{Frame, Kind, VERSION_MAX, VERSION_MIN};
use crate::protocol::replication::{Answer, Asked, Message, Room};
use std::fmt;
use std::ops::RangeInclusive;

/// A version that this build speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    One,
    /// The present one.
    #[default]
    Two,
}

impl Version {
    /// What this build speaks, the older one first: what it was upgraded from, and its own.
    pub const ALL: [Version; 2] = [Version::One, Version::Two];
    pub const PRESENT: Version = Version::Two;

    /// As it stands in a hello.
    pub const fn number(self) -> u16 {
        match self {
            Version::One => 1,
            Version::Two => 2,
        }
    }

    /// Whether a peer that speaks it understands this.
    pub fn has(self, feature: Feature) -> bool {
        self >= feature.since()
    }
}

/// A line for each feature: the version that brought it, its frames, its kinds where a whole kind is new, and the frames of others that it has given a hint.
macro_rules! features {
    ($(
        $(#[$doc:meta])*
        $name:ident since $since:ident: frames($frames:pat) $(kinds($kinds:pat))? $(hints($hints:pat))?;
    )*) => {
        /// What not every version can say.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Feature {
            $($(#[$doc])* $name,)*
        }

        impl Feature {
            pub const ALL: &[Feature] = &[$(Feature::$name),*];

            /// The version that brought it.
            pub fn since(self) -> Version {
                match self {
                    $(Feature::$name => Version::$since,)*
                }
            }

            /// What a frame needs; `None`: every version can say it, without its [hint](Feature::hinted) where it has no word for that.
            pub fn of(frame: &Frame) -> Option<Feature> {
                match frame {
                    $($frames => Some(Feature::$name),)*
                    _ => None,
                }
            }

            /// What the hint of a frame needs that it can go without; `None`: it has none.
            pub fn hinted(frame: &Frame) -> Option<Feature> {
                match frame {
                    $($($hints => Some(Feature::$name),)?)*
                    _ => None,
                }
            }

            /// What a head needs, whatever its body says.
            pub(super) fn of_kind(kind: &Kind) -> Option<Feature> {
                match kind {
                    $($($kinds => Some(Feature::$name),)?)*
                    _ => None,
                }
            }
        }
    };
}

features! {
    /// Blocks that were lost are asked for by their checksums. Instead: such a peer counts as one that says *not now*, and another replica is asked; where there
    /// is none, the block stays damaged, and is read from another replica, until the peer is upgraded.
    Mend since Two:
        frames(Frame::MendAsk(..) | Frame::MendAnswer(..))
        kinds(Kind::MendAsk(_) | Kind::MendAnswer(_));
    /// Replicas compare what they hold. Instead: such a peer counts as one that says *not now*, and is compared once it is upgraded.
    Compare since Two:
        frames(Frame::CompareAsk(..) | Frame::CompareAnswer(..))
        kinds(Kind::CompareAsk(_) | Kind::CompareAnswer(_));
    /// Members confirm that nothing newer is known (R18). Instead: as long as one member cannot, what is read without a lease waits for the next one
    /// (`Groups::without_lease`).
    Confirm since Two:
        frames(
            Frame::Message(_, Message::Confirm { .. })
            | Frame::Answer(_, Answer::Confirmed { .. })
            | Frame::Answer(_, Answer::Refused { what: Asked::Confirm { .. }, .. })
        );
    /// Replicas say that their disks are low, and whether a write would take space. Instead: *done* and *sealed* go without that word, so a coordinator takes the disk for
    /// ample; and a member that cannot be asked is not: the driver answers its coordinator that a write takes nothing there and the disk is ample. A write that finds
    /// no room at such a member fails there like any other, and its coordinator accuses the replica: one that joins loses its session, one in sync is taken out where that is
    /// believed and enough are left (R11). Until then the write waits.
    Fits since Two:
        frames(
            Frame::Message(_, Message::Fits { .. })
            | Frame::Answer(
                _,
                Answer::Fits { .. } | Answer::Refused { what: Asked::Fits { .. }, .. },
            )
        )
        hints(
            Frame::Answer(
                _,
                Answer::Done { room: Room::Low, .. } | Answer::Sealed { room: Room::Low, .. },
            )
        );
}

/// Two sides that have no version in common. Both find it out from the hellos, which both have sent; the form of a hello never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    pub mine: RangeInclusive<u16>,
    pub theirs: RangeInclusive<u16>,
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Apart { mine, theirs } = self;
        let who = match mine.end() < theirs.end() {
            true => "this node is",
            false => "the peer is",
        };
        write!(
            f,
            "this node speaks versions {} to {} of the wire, and the peer {} to {}: {who} more than one version behind, and is upgraded first",
            mine.start(),
            mine.end(),
            theirs.start(),
            theirs.end()
        )
    }
}

impl std::error::Error for Apart {}

/// The number of the version that two sides speak: the highest that both know.
///
/// # Errors
/// [`Apart`] where they have none in common.
pub fn agree(mine: &RangeInclusive<u16>, theirs: &RangeInclusive<u16>) -> Result<u16, Apart> {
    let highest = *mine.end().min(theirs.end());
    match mine.contains(&highest) && theirs.contains(&highest) {
        true => Ok(highest),
        false => Err(Apart {
            mine: mine.clone(),
            theirs: theirs.clone(),
        }),
    }
}

/// The version to speak with a peer whose hello names these.
///
/// # Errors
/// [`Apart`] where this build speaks none of them.
pub fn agree_with(theirs: &RangeInclusive<u16>) -> Result<Version, Apart> {
    let mine = VERSION_MIN..=VERSION_MAX;
    let number = agree(&mine, theirs)?;
    let found = Version::ALL.into_iter().find(|of| of.number() == number);
    found.ok_or(Apart {
        mine,
        theirs: theirs.clone(),
    })
}
