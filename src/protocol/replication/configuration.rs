//! What the manager records of a PG: its version and its replicas. The only place where that changes.
//!
//! Every change is compare-and-set on the version and raises it by one (R11), so a change that was decided on an older
//! configuration is refused, and two configurations of one version are the same one.

use super::MEMBERS_MAX;
use crate::base::DiskId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a replica is to its PG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It has every acknowledged write.
    InSync,
    /// It takes new writes and is being filled (R12). Its session has the number of the version that it joined with (R16).
    Joining {
        session: u32,
        /// The last version under which it was in sync; 0: never.
        since: u32,
    },
    /// It takes part in nothing. `since` as above.
    Out { since: u32 },
}

/// A replica of a PG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    pub disk: DiskId,
    pub role: Role,
}

/// One configuration of a PG.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configuration {
    version: u32,
    /// In the order of their disks.
    members: Vec<Member>,
}

/// A change of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reconfigure {
    /// A replica is on the list, and empty.
    Add { disk: DiskId },
    /// It leaves the list. If it comes back it is empty (R24).
    Remove { disk: DiskId },
    /// It does not answer: it is in sync, or joins, no longer.
    Evict { disk: DiskId },
    /// What it has is not what it should have: it is out, and counts as empty from now on, so that its next session lists everything.
    Empty { disk: DiskId },
    /// It is to be filled.
    Join { disk: DiskId },
    /// The session of that number is filled.
    Promote { disk: DiskId, session: u32 },
}

/// Why a change was refused. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The configuration has this version, not the one that was named.
    Version { now: u32 },
    /// So many replicas would be left in sync, and that many are the least.
    TooFew { left: usize, least: usize },
    /// The PG has no such replica.
    NoSuchReplica,
    /// It has it already.
    IsReplica,
    /// Its role does not allow that: a promotion of another session, a join of what is in sync.
    WrongRole { role: Role },
    /// It has as many replicas as it can have.
    TooMany,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Version { now } => write!(f, "the placement group has version {now} by now"),
            Refused::TooFew { left, least } => write!(
                f,
                "{left} replicas would be left in sync, and at least {least} must be"
            ),
            Refused::NoSuchReplica => f.write_str("the placement group has no replica there"),
            Refused::IsReplica => f.write_str("the placement group has a replica there already"),
            Refused::WrongRole { role } => write!(f, "the replica is {role:?}"),
            Refused::TooMany => write!(f, "a placement group has at most {MEMBERS_MAX} replicas"),
        }
    }
}

impl std::error::Error for Refused {}

impl Configuration {
    /// A new PG under version 1: its replicas are empty, and therefore in sync.
    pub fn new(disks: impl IntoIterator<Item = DiskId>) -> Configuration {
        let role = Role::InSync;
        let mut members: Vec<Member> = disks
            .into_iter()
            .map(|disk| Member { disk, role })
            .collect();
        members.sort_unstable_by_key(|member| member.disk);
        assert!(
            (1..=MEMBERS_MAX).contains(&members.len()),
            "a PG has 1 to {MEMBERS_MAX} replicas"
        );
        let version = 1;
        Configuration { version, members }
    }

    /// A configuration as it was recorded; nothing where it cannot be one: a replica twice, a number above the version, nobody
    /// in sync.
    pub fn recorded(version: u32, mut members: Vec<Member>) -> Option<Configuration> {
        members.sort_unstable_by_key(|member| member.disk);
        members.shrink_to_fit();
        let is_past = |member: &Member| match member.role {
            Role::InSync => true,
            Role::Joining { session, since } => session <= version && since < session,
            Role::Out { since } => since < version,
        };
        let holds = version >= 1
            && members.len() <= MEMBERS_MAX
            && members.windows(2).all(|two| two[0].disk != two[1].disk)
            && members.iter().all(is_past)
            && members.iter().any(|member| member.role == Role::InSync);
        holds.then_some(Configuration { version, members })
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    /// All replicas on the list, in the order of their disks.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The replicas whose acknowledgement a write needs: those in sync and those that join (R12).
    pub fn writers(&self) -> impl Iterator<Item = &Member> {
        let takes = |member: &&Member| !matches!(member.role, Role::Out { .. });
        self.members.iter().filter(takes)
    }

    /// The replicas that a read may be served by.
    pub fn in_sync(&self) -> impl Iterator<Item = DiskId> + '_ {
        let is_in_sync = |member: &&Member| member.role == Role::InSync;
        self.members
            .iter()
            .filter(is_in_sync)
            .map(|member| member.disk)
    }

    pub fn role(&self, disk: DiskId) -> Option<Role> {
        let found = self.members.iter().find(|member| member.disk == disk)?;
        Some(found.role)
    }

    /// The session that a replica joins in; 0: it is in sync, or no member.
    pub fn session(&self, disk: DiskId) -> u32 {
        match self.role(disk) {
            Some(Role::Joining { session, .. }) => session,
            _ => 0,
        }
    }

    /// A bit for the place of a replica on the list; 0 where it has none.
    pub(super) fn bit(&self, disk: DiskId) -> u8 {
        self.place(disk).map_or(0, |place| 1 << place)
    }

    /// Changes the configuration of `version`; `min_copies` is the pool's.
    pub fn apply(
        &mut self,
        version: u32,
        change: Reconfigure,
        min_copies: usize,
    ) -> Result<(), Refused> {
        if version != self.version {
            return Err(Refused::Version { now: self.version });
        }
        let next = version + 1;
        match change {
            Reconfigure::Add { disk } => self.add(disk)?,
            Reconfigure::Remove { disk } => {
                let at = self.place(disk)?;
                self.leave_in_sync(at, min_copies)?;
                self.members.remove(at);
            }
            Reconfigure::Evict { disk } => {
                let at = self.place(disk)?;
                let since = match self.members[at].role {
                    Role::InSync => version,
                    Role::Joining { since, .. } => since,
                    role @ Role::Out { .. } => return Err(Refused::WrongRole { role }),
                };
                self.leave_in_sync(at, min_copies)?;
                self.members[at].role = Role::Out { since };
            }
            Reconfigure::Empty { disk } => {
                let at = self.place(disk)?;
                if let role @ Role::Out { since: 0 } = self.members[at].role {
                    return Err(Refused::WrongRole { role });
                }
                // What does not have what it should have is no copy, so `min_copies` does not count it.
                self.leave_in_sync(at, 1)?;
                self.members[at].role = Role::Out { since: 0 };
            }
            Reconfigure::Join { disk } => {
                let at = self.place(disk)?;
                let Role::Out { since } = self.members[at].role else {
                    let role = self.members[at].role;
                    return Err(Refused::WrongRole { role });
                };
                let session = next;
                self.members[at].role = Role::Joining { session, since };
            }
            Reconfigure::Promote { disk, session } => {
                let at = self.place(disk)?;
                match self.members[at].role {
                    Role::Joining { session: of, .. } if of == session => {
                        self.members[at].role = Role::InSync;
                    }
                    role => return Err(Refused::WrongRole { role }),
                }
            }
        }
        self.version = next;
        Ok(())
    }

    fn add(&mut self, disk: DiskId) -> Result<(), Refused> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(Refused::TooMany);
        }
        match self
            .members
            .binary_search_by_key(&disk, |member| member.disk)
        {
            Ok(_) => Err(Refused::IsReplica),
            Err(at) => {
                let role = Role::Out { since: 0 };
                self.members.insert(at, Member { disk, role });
                Ok(())
            }
        }
    }

    fn place(&self, disk: DiskId) -> Result<usize, Refused> {
        self.members
            .binary_search_by_key(&disk, |member| member.disk)
            .map_err(|_| Refused::NoSuchReplica)
    }

    /// Whether enough replicas are in sync without the one at a place (R11).
    fn leave_in_sync(&self, without: usize, min_copies: usize) -> Result<(), Refused> {
        if self.members[without].role != Role::InSync {
            return Ok(());
        }
        let left = self.in_sync().count() - 1;
        let least = min_copies.max(1);
        match left >= least {
            true => Ok(()),
            false => Err(Refused::TooFew { left, least }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Configuration {
        Configuration::new([DiskId(3), DiskId(1), DiskId(2)])
    }

    #[test]
    fn a_change_of_an_older_version_is_refused() {
        let mut pg = three();
        let evict = |disk| Reconfigure::Evict { disk: DiskId(disk) };
        assert_eq!(pg.apply(1, evict(1), 1), Ok(()));
        assert_eq!(pg.apply(1, evict(2), 1), Err(Refused::Version { now: 2 }));
        assert_eq!(pg.in_sync().collect::<Vec<_>>(), [DiskId(2), DiskId(3)]);
        assert_eq!(pg.role(DiskId(1)), Some(Role::Out { since: 1 }));
    }

    #[test]
    fn the_last_copies_are_not_taken_out() {
        let mut pg = three();
        let evict = |disk| Reconfigure::Evict { disk: DiskId(disk) };
        assert_eq!(pg.apply(1, evict(1), 2), Ok(()));
        let too_few = Refused::TooFew { left: 1, least: 2 };
        assert_eq!(pg.apply(2, evict(2), 2), Err(too_few));
        assert_eq!(pg.apply(2, evict(2), 0), Ok(()));
        let too_few = Refused::TooFew { left: 0, least: 1 };
        assert_eq!(pg.apply(3, evict(3), 0), Err(too_few));
        let remove = Reconfigure::Remove { disk: DiskId(3) };
        assert_eq!(pg.apply(3, remove, 0), Err(too_few));
        assert_eq!(pg.version(), 3);
    }

    #[test]
    fn a_promotion_names_its_session() {
        let mut pg = three();
        let disk = DiskId(2);
        let promote = |session| Reconfigure::Promote { disk, session };
        pg.apply(1, Reconfigure::Evict { disk }, 1).unwrap();
        pg.apply(2, Reconfigure::Join { disk }, 1).unwrap();
        let first = Role::Joining {
            session: 3,
            since: 1,
        };
        assert_eq!(pg.role(disk), Some(first));
        // It is dropped and joins again: what the first session was filled with counts no more.
        pg.apply(3, Reconfigure::Evict { disk }, 1).unwrap();
        pg.apply(4, Reconfigure::Join { disk }, 1).unwrap();
        let role = Role::Joining {
            session: 5,
            since: 1,
        };
        assert_eq!(pg.apply(5, promote(3), 1), Err(Refused::WrongRole { role }));
        assert_eq!(pg.apply(5, promote(5), 1), Ok(()));
        assert_eq!(pg.role(disk), Some(Role::InSync));
    }

    #[test]
    fn what_is_emptied_has_nothing_whatever_it_was_and_the_last_copy_is_not() {
        let mut pg = three();
        let empty = |disk| Reconfigure::Empty { disk: DiskId(disk) };
        let out = Some(Role::Out { since: 0 });
        assert_eq!(pg.apply(1, empty(1), 2), Ok(()));
        assert_eq!(pg.role(DiskId(1)), out);
        let role = Role::Out { since: 0 };
        assert_eq!(
            pg.apply(2, empty(1), 2),
            Err(Refused::WrongRole { role }),
            "it is empty"
        );
        // `min_copies` counts copies.
        assert_eq!(pg.apply(2, empty(2), 2), Ok(()));
        // One that joins loses what its stamps would have spared it.
        pg.apply(3, Reconfigure::Join { disk: DiskId(2) }, 1)
            .unwrap();
        assert_eq!(pg.apply(4, empty(2), 1), Ok(()));
        assert_eq!(pg.role(DiskId(2)), out);
        let too_few = Refused::TooFew { left: 0, least: 1 };
        assert_eq!(pg.apply(5, empty(3), 0), Err(too_few));
    }

    #[test]
    fn what_was_taken_off_the_list_comes_back_empty() {
        let mut pg = three();
        let disk = DiskId(1);
        pg.apply(1, Reconfigure::Remove { disk }, 1).unwrap();
        assert_eq!(pg.role(disk), None);
        pg.apply(2, Reconfigure::Add { disk }, 1).unwrap();
        assert_eq!(pg.role(disk), Some(Role::Out { since: 0 }));
        assert_eq!(
            pg.apply(3, Reconfigure::Add { disk }, 1),
            Err(Refused::IsReplica)
        );
    }
}
