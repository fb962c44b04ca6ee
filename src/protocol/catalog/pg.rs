//! Placement groups: how one is recorded, created, changed and moved.
//!
//! Every change of a PG's replicas goes through [`Configuration::apply`], the one place that knows the rules (R11, R16, R24). Here
//! is what needs the rest of the catalog: that a disk serves, is of the pool, and shares no failure domain with another replica.
//!
//! What is wanted of a PG, that one replica moves, is recorded with it. So a new leader of the manager goes on with it, and at most
//! one change of a PG is under way.

use super::command::Batch;
use super::state::{DiskState, Pool, PoolId};
use super::{Catalog, Code, Event, PGS_MAX, PGS_OF_COMMAND_MAX, Refusal};
use crate::base::{DiskId, PgId};
use crate::protocol::placement::{Level, REPLICAS_MAX};
use crate::protocol::replication::{Configuration, Member, Reconfigure, Refused, Role};
use serde::{Deserialize, Serialize};

/// A replica is to be made, and then another one to end; one of the two at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<DiskId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DiskId>,
}

/// A placement group: the unit of placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PgRead", into = "PgWritten")]
pub struct Pg {
    pub id: PgId,
    pub pool: PoolId,
    pub configuration: Configuration,
    pub want: Option<Move>,
}

impl Pg {
    pub fn version(&self) -> u32 {
        self.configuration.version()
    }

    /// The disks on its list, in sync or not.
    pub fn disks(&self) -> impl Iterator<Item = DiskId> + '_ {
        self.configuration
            .members()
            .iter()
            .map(|member| member.disk)
    }

    pub fn has(&self, disk: DiskId) -> bool {
        self.configuration.role(disk).is_some()
    }

    /// What is left to be done of what was wanted, after a change.
    fn settle(&mut self, change: Reconfigure) {
        let Some(want) = &mut self.want else {
            return;
        };
        match change {
            Reconfigure::Remove { disk } if want.to == Some(disk) => self.want = None,
            Reconfigure::Remove { disk } if want.from == Some(disk) => want.from = None,
            _ => {}
        }
        let arrived = |to: DiskId| self.configuration.role(to) == Some(Role::InSync);
        if let Some(Move { from: None, to }) = self.want
            && to.is_none_or(arrived)
        {
            self.want = None;
        }
    }
}

/// A PG as it is written: few words for what is usual, and readable.
#[derive(Serialize)]
struct PgWritten {
    id: PgId,
    pool: PoolId,
    version: u32,
    in_sync: Vec<DiskId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    joining: Vec<Joining>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    out: Vec<Out>,
    #[serde(skip_serializing_if = "Option::is_none")]
    want: Option<Move>,
}

#[derive(Serialize, Deserialize)]
struct Joining {
    disk: DiskId,
    session: u32,
    since: u32,
}

#[derive(Serialize, Deserialize)]
struct Out {
    disk: DiskId,
    since: u32,
}

/// A PG as it is read. The first snapshots had all disks in `replicas`, and nobody joined.
#[derive(Deserialize)]
struct PgRead {
    id: PgId,
    pool: PoolId,
    version: u32,
    #[serde(default)]
    replicas: Vec<DiskId>,
    in_sync: Vec<DiskId>,
    #[serde(default)]
    joining: Vec<Joining>,
    #[serde(default)]
    out: Vec<Out>,
    #[serde(default)]
    want: Option<Move>,
}

impl From<Pg> for PgWritten {
    fn from(pg: Pg) -> PgWritten {
        let members = pg.configuration.members().iter();
        let joining = members.clone().filter_map(|member| match member.role {
            Role::Joining { session, since } => Some(Joining {
                disk: member.disk,
                session,
                since,
            }),
            _ => None,
        });
        let out = members.filter_map(|member| match member.role {
            Role::Out { since } => Some(Out {
                disk: member.disk,
                since,
            }),
            _ => None,
        });
        PgWritten {
            id: pg.id,
            pool: pg.pool,
            version: pg.version(),
            in_sync: pg.configuration.in_sync().collect(),
            joining: joining.collect(),
            out: out.collect(),
            want: pg.want,
        }
    }
}

impl TryFrom<PgRead> for Pg {
    type Error = &'static str;

    fn try_from(read: PgRead) -> Result<Pg, &'static str> {
        let member = |disk, role| Member { disk, role };
        let in_sync = read.in_sync.iter().map(|&disk| member(disk, Role::InSync));
        let joining = read.joining.iter().map(|one| {
            let (session, since) = (one.session, one.since);
            member(one.disk, Role::Joining { session, since })
        });
        let out = read.out.iter().map(|one| {
            let since = one.since;
            member(one.disk, Role::Out { since })
        });
        let mut members: Vec<Member> = in_sync.chain(joining).chain(out).collect();
        for &disk in &read.replicas {
            if members.iter().all(|one| one.disk != disk) {
                members.push(member(disk, Role::Out { since: 0 }));
            }
        }
        let configuration = Configuration::recorded(read.version, members);
        Ok(Pg {
            id: read.id,
            pool: read.pool,
            configuration: configuration.ok_or("in-sync-are-replicas")?,
            want: read.want,
        })
    }
}

impl Catalog {
    /// Whether any disk with a copy of a PG that is in sync is still counted on: all but those that a person has taken out of service. One that is
    /// [`Missing`](DiskState::Missing) is away from the manager, and may serve whoever was cut off with it.
    pub fn has_copies(&self, pg: PgId) -> bool {
        let in_sync = self
            .pg(pg)
            .into_iter()
            .flat_map(|pg| pg.configuration.in_sync());
        let mut disks = in_sync.filter_map(|disk| self.disk(disk));
        disks.any(|disk| disk.state != DiskState::OutOfService)
    }

    pub(super) fn create_pgs(
        &mut self,
        pool: PoolId,
        first: PgId,
        replicas: &[Vec<DiskId>],
        batch: Batch,
    ) -> Result<Vec<Event>, Refusal> {
        let of = self.pools.get(&pool).ok_or_else(|| {
            let reason = format!("there is no pool {pool}");
            Refusal::not_found("pool", reason, "`sarsen status` shows the pools")
        })?;
        if first.0 != self.next.pg {
            let reason = format!("the next placement group has the number {}", self.next.pg);
            return Err(Refusal::conflict("first", reason, "solve it again"));
        }
        if replicas.len() > PGS_OF_COMMAND_MAX || self.pgs.len() + replicas.len() > PGS_MAX {
            let reason = format!(
                "{} more are too many: {PGS_OF_COMMAND_MAX} at once, {PGS_MAX} in all",
                replicas.len()
            );
            return Err(Refusal::new(
                Code::Exhausted,
                "replicas",
                reason,
                "ask for fewer",
            ));
        }
        for disks in replicas {
            self.check_new_pg(of, disks)?;
        }
        let mut of = of.clone();
        of.laid_out = match batch {
            Batch::MoreFollow => of.laid_out.or(Some(self.pgs_of(pool).len() as u32)),
            Batch::Last => None,
        };
        self.put_pool(of);
        let placed = replicas.iter().map(|disks| disks.as_slice());
        let pgs = self.add_pgs(pool, placed);
        Ok(vec![Event::PgsCreated { pool, pgs }])
    }

    /// Makes PGs with the next numbers. What they are made of was checked.
    pub(super) fn add_pgs<'a>(
        &mut self,
        pool: PoolId,
        replicas: impl Iterator<Item = &'a [DiskId]>,
    ) -> Vec<Pg> {
        let mut made = Vec::new();
        for disks in replicas {
            let pg = Pg {
                id: PgId(self.next.pg),
                pool,
                configuration: Configuration::new(disks.iter().copied()),
                want: None,
            };
            self.next.pg += 1;
            made.push(pg.clone());
            self.put_pg(pg);
        }
        made
    }

    fn check_new_pg(&self, pool: &Pool, disks: &[DiskId]) -> Result<(), Refusal> {
        let hint = "solve it again";
        if disks.len() != pool.copies as usize {
            let reason = format!("{} replicas, of {} copies", disks.len(), pool.copies);
            return Err(Refusal::invalid("replicas", reason, hint));
        }
        for (at, &disk) in disks.iter().enumerate() {
            self.check_target("replicas", pool, disk)?;
            let domain = self.domain(disk, pool.level);
            let shares = |other: &&DiskId| self.domain(**other, pool.level) == domain;
            if let Some(other) = disks[..at].iter().find(shares) {
                return Err(same_domain("replicas", disk, *other, pool.level));
            }
        }
        Ok(())
    }

    pub(super) fn reconfigure(
        &mut self,
        id: PgId,
        version: u32,
        change: Reconfigure,
    ) -> Result<Vec<Event>, Refusal> {
        let pg = self.pg(id).ok_or_else(|| no_pg(id))?;
        let pool = &self.pools[&pg.pool];
        if pg.version() == version {
            self.check_change(pg, pool, change)?;
        }
        let mut pg = pg.clone();
        let min_copies = pool.min_copies as usize;
        pg.configuration
            .apply(version, change, min_copies)
            .map_err(not_changed)?;
        pg.settle(change);
        self.put_pg(pg.clone());
        Ok(vec![Event::PgChanged { pg }])
    }

    /// What a configuration alone cannot see.
    fn check_change(&self, pg: &Pg, pool: &Pool, change: Reconfigure) -> Result<(), Refusal> {
        match change {
            Reconfigure::Add { disk } => {
                if !pg.has(disk) {
                    self.check_room("change", pg, pool)?;
                }
                self.check_target("change", pool, disk)?;
                self.check_domain("change", pg, pool, disk, pg.want.and_then(|want| want.from))
            }
            Reconfigure::Join { disk } | Reconfigure::Promote { disk, .. } => {
                let found = self.disk(disk);
                match found.is_some_and(|found| found.state.is_good()) {
                    true => Ok(()),
                    false => Err(not_good("change", disk)),
                }
            }
            Reconfigure::Remove { .. } | Reconfigure::Evict { .. } | Reconfigure::Empty { .. } => {
                Ok(())
            }
        }
    }

    /// Whether one more replica may be listed: one more than the pool has copies is on its way at a time.
    fn check_room(&self, field: &str, pg: &Pg, pool: &Pool) -> Result<(), Refusal> {
        let most = (pool.copies as usize + 1).min(REPLICAS_MAX);
        if pg.configuration.members().len() < most {
            return Ok(());
        }
        let reason = format!("it lists {most} replicas already");
        Err(Refusal::conflict(field, reason, "remove one first"))
    }

    /// Whether a disk takes replicas of a pool.
    fn check_target(&self, field: &str, pool: &Pool, id: DiskId) -> Result<(), Refusal> {
        let Some(disk) = self.disk(id).filter(|disk| disk.pool == pool.id) else {
            let reason = format!("the pool {} has no disk {id}", pool.name);
            return Err(Refusal::not_found(field, reason, "solve it again"));
        };
        if disk.state != DiskState::Serving || disk.weight() == 0 {
            return Err(not_good(field, id));
        }
        Ok(())
    }

    /// Whether a replica at `disk` would share a failure domain with another but `except`.
    fn check_domain(
        &self,
        field: &str,
        pg: &Pg,
        pool: &Pool,
        disk: DiskId,
        except: Option<DiskId>,
    ) -> Result<(), Refusal> {
        let domain = self.domain(disk, pool.level);
        let shares = |other: &DiskId| {
            *other != disk && Some(*other) != except && self.domain(*other, pool.level) == domain
        };
        match pg.disks().find(shares) {
            Some(other) => Err(same_domain(field, disk, other, pool.level)),
            None => Ok(()),
        }
    }

    pub(super) fn want_move(
        &mut self,
        id: PgId,
        version: u32,
        want: Move,
    ) -> Result<Vec<Event>, Refusal> {
        let pg = self.pg_at(id, version)?;
        let pool = &self.pools[&pg.pool];
        if pg.want.is_some() {
            let reason = "another change of it is under way";
            return Err(Refusal::conflict("pg", reason, "wait until that is done"));
        }
        if want.from.is_none() && want.to.is_none() {
            let reason = "nothing is to be made and nothing to end";
            return Err(Refusal::invalid("to", reason, "name a disk"));
        }
        if let Some(from) = want.from.filter(|&from| !pg.has(from)) {
            let reason = format!("it has no replica on disk {from}");
            return Err(Refusal::conflict("from", reason, "solve it again"));
        }
        if let Some(to) = want.to {
            if pg.has(to) {
                let reason = format!("it has a replica on disk {to} already");
                return Err(Refusal::conflict("to", reason, "solve it again"));
            }
            self.check_room("to", pg, pool)?;
            self.check_target("to", pool, to)?;
            self.check_domain("to", pg, pool, to, want.from)?;
        }
        self.set_want(id, Some(want))
    }

    pub(super) fn drop_move(&mut self, id: PgId, version: u32) -> Result<Vec<Event>, Refusal> {
        if self.pg_at(id, version)?.want.is_none() {
            let reason = "nothing is wanted of it";
            return Err(Refusal::conflict("pg", reason, "there is nothing to drop"));
        }
        self.set_want(id, None)
    }

    fn set_want(&mut self, id: PgId, want: Option<Move>) -> Result<Vec<Event>, Refusal> {
        let mut pg = self.pgs[&id].clone();
        pg.want = want;
        self.put_pg(pg.clone());
        Ok(vec![Event::PgChanged { pg }])
    }

    /// A PG that has this version.
    fn pg_at(&self, id: PgId, version: u32) -> Result<&Pg, Refusal> {
        let pg = self.pg(id).ok_or_else(|| no_pg(id))?;
        match pg.version() {
            now if now == version => Ok(pg),
            now => Err(not_changed(Refused::Version { now })),
        }
    }

    /// The failure domain of a disk. Nodes without a rack are together in one, so that nobody takes two of them for apart.
    pub fn domain(&self, disk: DiskId, level: Level) -> u32 {
        let node = self.disk(disk).and_then(|disk| self.node(disk.node));
        match level {
            Level::Disk => disk.0,
            Level::Node => node.map_or(0, |node| node.id.0),
            Level::Rack => node.and_then(|node| node.rack).unwrap_or_default().0,
        }
    }
}

pub(super) fn no_pg(id: PgId) -> Refusal {
    let reason = format!("there is no placement group {id}");
    Refusal::not_found("pg", reason, "`sarsen status` shows what there is")
}

fn not_good(field: &str, disk: DiskId) -> Refusal {
    let reason = format!("disk {disk} does not serve");
    Refusal::conflict(field, reason, "bring it back, or take another one")
}

fn same_domain(field: &str, disk: DiskId, other: DiskId, level: Level) -> Refusal {
    let reason = format!("the disks {disk} and {other} are in one failure domain ({level})");
    Refusal::conflict(field, reason, "take a disk of another one")
}

fn not_changed(refused: Refused) -> Refusal {
    let (field, hint) = match refused {
        Refused::Version { .. } => ("version", "look at it again and decide anew"),
        Refused::TooFew { .. } => ("change", "bring another replica back in sync first"),
        Refused::NoSuchReplica | Refused::IsReplica | Refused::WrongRole { .. } => {
            ("change", "look at it again and decide anew")
        }
        Refused::TooMany => ("change", "remove one first"),
    };
    Refusal::conflict(field, refused.to_string(), hint)
}
