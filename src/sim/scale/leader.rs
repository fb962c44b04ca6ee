//! The leader of a site's manager beside its leases: the shipped steward over the shipped catalog, in simulated time.
//!
//! ```text
//!   what happens ──► Steward ──Propose──► a log that takes 1 ms ──► Catalog ──Committed, Answered──► Steward
//!                       ▲                                              │ a replica joins
//!                       └──────────── Filled ◄──── Copies ◄────────────┘
//! ```
//!
//! Everybody else is there and does what it is told. A question to the solver is answered by the solver, 1 s later.

use super::fluid::{Copies, Limits, Place};
use super::site::{COPIES, Log};
use crate::base::{DiskId, NodeId, PgId, Time};
use crate::protocol::catalog::{Command, Event, Pg};
use crate::protocol::placement::{Plan, Refusal, solve};
use crate::protocol::replication::{Reconfigure, Role};
use crate::protocol::steward::{
    Input, NewPgs, Note, Outcome, Output, Parameters, RulesOff, Steward,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From a proposal to its commit.
const COMMIT: Duration = Duration::from_millis(1);
/// From a question to its answer.
const SOLVE: Duration = Duration::from_secs(1);

enum Due {
    Commit {
        proposal: u64,
        command: Command,
    },
    Solved {
        question: u64,
        plan: Result<Plan, Refusal>,
    },
}

/// Commands that were committed, by kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub evictions: u64,
    pub wants: u64,
    pub adds: u64,
    pub joins: u64,
    pub promotions: u64,
    pub removals: u64,
    pub disk_states: u64,
    pub others: u64,
    pub refused: u64,
    pub questions: u64,
    /// Changes in the answers, in all.
    pub planned: u64,
}

/// See the [module](self).
pub struct Leader {
    pub log: Log,
    steward: Steward,
    pub now: Time,
    queue: BTreeMap<(Time, u64), Due>,
    next: u64,
    pub copies: Copies,
    /// Of one replica, in bytes.
    replica_bytes: f64,
    /// The PGs that have fewer copies in sync than they should.
    pub short: BTreeSet<PgId>,
    pub counts: Counts,
    /// When the last of each happened.
    pub evicted: Time,
    pub planned: Time,
    pub begun: Time,
    clock: fn() -> Duration,
    /// What steward and catalog took, without the solver, and what the solver took.
    pub work: Duration,
    pub solving: Duration,
}

impl Leader {
    /// A leader whom everybody has told that it is there, and who has found nothing to do. `disk_bytes` are in use on each disk.
    pub fn new(
        log: Log,
        parameters: Parameters,
        limits: Limits,
        disk_bytes: f64,
        clock: fn() -> Duration,
    ) -> Leader {
        let now = Time(1);
        let parameters = Parameters {
            // The site has the PGs that it is measured with.
            new_pgs: NewPgs::Never,
            ..parameters
        };
        let steward = Steward::new(now, parameters, RulesOff::NONE);
        let replicas = log.catalog.pgs().len() as f64 * f64::from(COPIES);
        let disks = log.catalog.disks().count() as f64;
        let mut leader = Leader {
            log,
            steward: steward.expect("the parameters are sound"),
            now,
            queue: BTreeMap::new(),
            next: 0,
            copies: Copies::new(limits),
            replica_bytes: disk_bytes * disks / replicas,
            short: BTreeSet::new(),
            counts: Counts::default(),
            evicted: now,
            planned: now,
            begun: now,
            clock,
            work: Duration::ZERO,
            solving: Duration::ZERO,
        };
        leader.tell(Input::Lead);
        let nodes: Vec<NodeId> = leader.log.catalog.nodes().map(|node| node.id).collect();
        for node in nodes {
            leader.tell(Input::Live { node });
        }
        let disks: Vec<DiskId> = leader.log.catalog.disks().map(|disk| disk.id).collect();
        for disk in disks {
            leader.tell_opened(disk);
        }
        leader.run(Time(0) + Duration::from_secs(60));
        leader.start_over();
        leader
    }

    /// A node says that a disk is open, as it was.
    pub fn tell_opened(&mut self, disk: DiskId) {
        let Some(found) = self.log.catalog.disk(disk) else {
            return;
        };
        let (store, now) = (found.store, found.incarnation);
        self.tell(Input::DiskOpened {
            disk,
            store,
            before: now,
            now,
            start: now,
        });
    }

    /// Counts from here on.
    fn start_over(&mut self) {
        self.log.start_over();
        self.counts = Counts::default();
        (self.work, self.solving) = (Duration::ZERO, Duration::ZERO);
    }

    /// Tells the steward something now.
    pub fn tell(&mut self, input: Input<'_>) {
        let mut out = Vec::new();
        let began = (self.clock)();
        self.steward
            .step(self.now, &self.log.catalog, input, &mut out);
        self.work += (self.clock)() - began;
        self.take(out);
    }

    /// Lets time pass until `end`.
    pub fn run(&mut self, end: Time) {
        while self.step(end) {}
    }

    /// Lets time pass until all PGs are whole and nothing is left to do, or until `end`; whether they are.
    pub fn run_until_whole(&mut self, end: Time) -> bool {
        loop {
            let is_quiet = self.short.is_empty() && self.queue.is_empty();
            if is_quiet && self.log.catalog.wanted().next().is_none() {
                return true;
            }
            if !self.step(end) {
                return false;
            }
        }
    }

    /// The next thing that happens until `end`; whether there was one.
    fn step(&mut self, end: Time) -> bool {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let copied = self.copies.next().map(|wait| self.now + wait);
        let parts = [queued, copied, self.steward.deadline()];
        let next = parts.into_iter().flatten().min();
        let at = next.filter(|at| *at <= end).unwrap_or(end).max(self.now);
        let done = self.copies.pass(at.since(self.now));
        self.now = at;
        if next.is_none_or(|next| next > end) {
            return false;
        }
        for done in done {
            self.tell(Input::Filled {
                pg: done.pg,
                disk: done.disk,
                session: done.session,
            });
        }
        if self.steward.deadline().is_some_and(|due| due <= at) {
            let mut out = Vec::new();
            let began = (self.clock)();
            self.steward.expire(at, &self.log.catalog, &mut out);
            self.work += (self.clock)() - began;
            self.take(out);
        } else if queued.is_some_and(|due| due <= at)
            && let Some((_, due)) = self.queue.pop_first()
        {
            match due {
                Due::Commit { proposal, command } => self.commit(proposal, &command),
                Due::Solved { question, plan } => self.solved(question, plan),
            }
        }
        true
    }

    fn put(&mut self, at: Time, due: Due) {
        self.next += 1;
        self.queue.insert((at, self.next), due);
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Propose { proposal, command } => {
                    self.put(self.now + COMMIT, Due::Commit { proposal, command });
                }
                Output::Solve { question, cluster } => {
                    let began = (self.clock)();
                    let plan = solve(&cluster);
                    self.solving += (self.clock)() - began;
                    self.put(self.now + SOLVE, Due::Solved { question, plan });
                }
                Output::Note(Note::CannotPlace { refusal, .. }) => {
                    panic!("the pool that is left holds everything: {refusal}")
                }
                Output::Note(_) => {}
            }
        }
    }

    fn solved(&mut self, question: u64, plan: Result<Plan, Refusal>) {
        self.counts.questions += 1;
        if let Ok(plan) = &plan
            && !plan.changes.is_empty()
        {
            self.counts.planned += plan.changes.len() as u64;
            self.planned = self.now;
        }
        self.tell(Input::Solved { question, plan });
    }

    fn commit(&mut self, proposal: u64, command: &Command) {
        let began = (self.clock)();
        let result = self.log.catalog.apply(command);
        self.work += (self.clock)() - began;
        let outcome = match result {
            Ok(events) => {
                self.log.count(command, &events);
                self.count(command);
                for event in &events {
                    self.look(event);
                }
                self.tell(Input::Committed(&events));
                Outcome::Accepted
            }
            Err(refusal) => {
                self.counts.refused += 1;
                Outcome::Refused(refusal)
            }
        };
        self.tell(Input::Answered { proposal, outcome });
    }

    fn count(&mut self, command: &Command) {
        let counts = &mut self.counts;
        match command {
            Command::WantMove { .. } => {
                counts.wants += 1;
                self.begun = self.now;
            }
            Command::SetDiskState { .. } => counts.disk_states += 1,
            Command::Reconfigure { change, .. } => match change {
                Reconfigure::Add { .. } => counts.adds += 1,
                Reconfigure::Remove { .. } => counts.removals += 1,
                Reconfigure::Join { .. } => counts.joins += 1,
                Reconfigure::Promote { .. } => counts.promotions += 1,
                Reconfigure::Evict { .. } | Reconfigure::Empty { .. } => {
                    counts.evictions += 1;
                    self.evicted = self.now;
                }
            },
            _ => counts.others += 1,
        }
    }

    /// What a change means for the copies.
    fn look(&mut self, event: &Event) {
        let Event::PgChanged { pg } = event else {
            return;
        };
        match pg.configuration.in_sync().count() < COPIES as usize {
            true => self.short.insert(pg.id),
            false => self.short.remove(&pg.id),
        };
        for member in pg.configuration.members() {
            if let Role::Joining { session, .. } = member.role
                && self.copies.session(pg.id, member.disk) != Some(session)
                && let Some(from) = self.source(pg, member.disk)
                && let Some(to) = self.place(member.disk)
            {
                self.copies
                    .begin(pg.id, session, from, to, self.replica_bytes);
            }
        }
    }

    /// Whom a joiner asks, as `replication::replica` chooses: by its disk's number among those in sync.
    fn source(&self, pg: &Pg, joiner: DiskId) -> Option<Place> {
        let count = pg.configuration.in_sync().count();
        let source = pg
            .configuration
            .in_sync()
            .nth(joiner.0 as usize % count.max(1));
        self.place(source?)
    }

    fn place(&self, disk: DiskId) -> Option<Place> {
        Some((disk, self.log.catalog.disk(disk)?.node))
    }
}
