//! A run: one node that serves volumes, is cut off from power, comes back, and serves on.
//!
//! A node lives many lives. In each it opens its disks and volumes, everything that was ever written is read and
//! judged, and then the load goes on, until the power is cut between any two outputs of the shard, or the node
//! closes in good order. Some lives end while they are still opening. The run ends when it did enough
//! operations and met enough faults; then it drops every volume and looks whether the disks are empty.
//!
//! `load.rs` asks and judges requests, `errands.rs` control operations.

use super::checkers::answered::Outstanding;
use super::checkers::{Checker, Failure, atomic, bounded, intact, pins};
use super::crash_states;
use super::disk::Disk;
use super::errands::Errand;
use super::fault::{Fault, Tally};
use super::formatting::formatted;
use super::load::Asked;
use super::medium::Medium;
use super::model::Model;
use super::node::{Happened, Machine, Node};
use super::replicas::ReplicaLoad;
use super::swarm::Knobs;
use super::trace::{Trace, TraceHash};
use super::volumes::Volumes;
use super::workload::Workload;
use crate::base::{BLOCK, Breaks, Prng, Time};
use crate::store::{APPLYING_BLOCKS_MAX, Closing, Note};
use std::ops::Range;
use std::time::Duration;

/// What a run must have done at least.
pub const OPERATIONS_MIN: u64 = 2000;
pub const FAULTS_MIN: u64 = 20;
/// Where it gives up, if the faults do not come.
const OPERATIONS_MAX: u64 = 20_000;

/// What a life of the node is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    OpeningDisks,
    OpeningVolumes,
    /// Reading everything that was ever written.
    Verifying,
    Load,
    /// No more requests; the node closes when all are answered.
    Draining,
    Closing,
    /// All volumes are being dropped.
    Dropping,
    Ended,
}

/// What a run did, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub seeds: u64,
    pub operations: u64,
    pub steps: u64,
    pub lives: u64,
    pub verified: u64,
    pub checkpoints: u64,
    pub wraps: u64,
    pub snapshots: u64,
    pub started_over: u64,
    pub faults: Tally,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.operations += other.operations;
        self.steps += other.steps;
        self.lives += other.lives;
        self.verified += other.verified;
        self.checkpoints += other.checkpoints;
        self.wraps += other.wraps;
        self.snapshots += other.snapshots;
        self.started_over += other.started_over;
        self.faults.add(&other.faults);
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<(), Failure>,
    pub counts: Counts,
    pub hash: TraceHash,
}

impl Outcome {
    /// Of a run that came to no end of its own.
    pub fn of_failure(failure: Failure) -> Outcome {
        let counts = Counts {
            seeds: 1,
            ..Counts::default()
        };
        Outcome {
            result: Err(failure),
            counts,
            hash: TraceHash(0),
        }
    }
}

/// One run.
pub struct World<M> {
    pub(super) knobs: Knobs,
    pub(super) breaks: Breaks,
    pub(super) prng: Prng,
    pub(super) node: Node<M>,
    pub(super) model: Model,
    pub(super) volumes: Volumes,
    pub(super) workload: Workload,
    pub(super) replica: Option<ReplicaLoad>,
    pub(super) requests: Outstanding<Asked>,
    pub(super) controls: Outstanding<Errand>,
    /// Names of requests and control operations, never used twice.
    pub(super) next_name: u64,
    pub(super) phase: Phase,
    /// What is left to read of everything that was written.
    pub(super) to_verify: Vec<(usize, Range<u64>)>,
    pub(super) counts: Counts,
    /// Operations until this life ends in good order, where it does.
    pub(super) close_in: Option<u64>,
    pub(super) paused_until: Time,
    /// Recoveries that were cut off one after the other.
    cut_recoveries: u64,
    /// The disks are beyond repair: new ones come with the next life.
    pub(super) start_over: bool,
    /// The last life: it ends with everything dropped.
    last: bool,
    turns: u64,
    /// Turns one after the other in which nothing was under way.
    pub(super) idle_turns: u32,
    /// Something was trimmed since the last checkpoint.
    pub(super) trimmed: bool,
}

impl<M: Machine> World<M> {
    pub fn new(seed: u64, knobs: Knobs, breaks: Breaks, print: bool) -> World<M> {
        let mut prng = Prng::new(seed);
        let workload = Workload::new(&knobs, prng.fork());
        let mut world = World {
            node: Node::new(Vec::new(), breaks, Trace::new(print)),
            breaks,
            prng,
            model: Model::new(),
            volumes: Volumes::default(),
            workload,
            replica: knobs
                .replica
                .then(|| ReplicaLoad::new(Prng::new(seed ^ 0x7265_706c_6963_6173))),
            requests: Outstanding::default(),
            controls: Outstanding::default(),
            next_name: 1,
            phase: Phase::OpeningDisks,
            to_verify: Vec::new(),
            counts: Counts::default(),
            close_in: None,
            paused_until: Time(0),
            cut_recoveries: 0,
            start_over: false,
            last: false,
            turns: 0,
            idle_turns: 0,
            trimmed: false,
            knobs,
        };
        world.counts.seeds = 1;
        world
            .node
            .trace
            .say(Time(0), || format!("{:#?}", world.knobs));
        world.new_disks();
        world
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        let mut result = self.begin_life();
        while result.is_ok() && self.phase != Phase::Ended {
            result = self.turn();
        }
        Outcome {
            result,
            counts: self.counts(),
            hash: self.node.trace.hash(),
        }
    }

    /// Runs until `done` says so or the run has ended, for those who look at the states on the way.
    pub fn run_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> Result<(), Failure> {
        if self.counts.lives == 0 {
            self.begin_life()?;
        }
        while self.phase != Phase::Ended && !done(self) {
            self.turn()?;
        }
        Ok(())
    }

    /// A world of its own that finds this one's disk as `image`, in the moment of a power cut.
    pub(super) fn on_image(&self, image: Medium, seed: u64, trace: bool) -> World<M> {
        let mut prng = Prng::new(seed);
        let mut knobs = self.knobs.clone();
        knobs.cut_after = 60;
        knobs.cut_recovery_one_in = 2;
        knobs.close_one_in = u64::MAX;
        let like = &self.node.disks[0];
        let disk = crash_states::disk_of(image, like, &knobs, prng.fork());
        let mut model = self.model.clone();
        let writes: Vec<u32> = self
            .requests
            .iter()
            .filter_map(|asked| asked.write)
            .collect();
        model.power_cut(&writes);
        let mut volumes = self.volumes.clone();
        volumes.power_cut();
        World {
            node: Node::new(vec![disk], self.breaks, Trace::new(trace)),
            breaks: self.breaks,
            model,
            volumes,
            workload: Workload::new(&knobs, prng.fork()),
            replica: self
                .replica
                .as_ref()
                .map(|load| load.on_image(Prng::new(seed ^ 1))),
            prng,
            requests: Outstanding::default(),
            controls: Outstanding::default(),
            next_name: self.next_name,
            phase: Phase::OpeningDisks,
            to_verify: Vec::new(),
            counts: Counts::default(),
            close_in: None,
            paused_until: Time(0),
            cut_recoveries: 0,
            start_over: false,
            last: false,
            turns: 0,
            idle_turns: 0,
            trimmed: false,
            knobs,
        }
    }

    /// Opens, reads and judges everything, writes, cuts the power, and does that once more.
    pub(super) fn judge_image(&mut self) -> Result<(), Failure> {
        self.run_until(|world| world.counts.verified >= 2)
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    pub(super) fn serves(&self) -> bool {
        self.phase == Phase::Load
    }

    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.node.disks[0]
    }

    /// Whether a crash state of now has a wrapped journal, several layers, a trim that no checkpoint covers.
    pub(super) fn kinds(&self) -> [bool; 3] {
        let layered = |volume: &super::volumes::Volume| volume.meta.layers.len() > 1;
        let layers = self.volumes.living().any(|(_, volume)| layered(volume));
        [self.counts.wraps > 0, layers, self.trimmed]
    }

    /// What it did so far.
    pub fn counts(&mut self) -> Counts {
        self.collect_faults();
        self.counts.steps = self.node.steps;
        self.counts
    }

    /// Everything the disks met goes into the counts.
    fn collect_faults(&mut self) {
        for disk in &mut self.node.disks {
            self.counts.faults.add(&std::mem::take(&mut disk.tally));
        }
    }

    /// New disks and volumes; what there was is forgotten.
    fn new_disks(&mut self) {
        self.collect_faults();
        let Knobs { disks, rates, .. } = &self.knobs;
        self.node.disks = (0..*disks)
            .map(|_| {
                let (medium, layout) =
                    formatted(&self.knobs, &mut self.prng).expect("the knobs leave room for slots");
                Disk::new(medium, layout, rates.clone(), self.prng.fork())
            })
            .collect();
        self.node.damage = Default::default();
        for volume in 0..self.volumes.list.len() {
            if !self.volumes.list[volume].gone {
                self.model.drop_volume(self.volumes.list[volume].model);
                self.volumes.dropped(volume);
            }
        }
        for _ in 0..self.knobs.volumes {
            self.decide_volume();
        }
    }

    /// The power comes on.
    fn begin_life(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.start_over) {
            self.counts.started_over += 1;
            self.new_disks();
        }
        self.counts.lives += 1;
        self.phase = Phase::OpeningDisks;
        let cut_off = self.prng.one_in(self.knobs.cut_recovery_one_in);
        if cut_off && self.cut_recoveries < 3 && !self.last {
            self.node.cut_in = Some(self.prng.below(60));
        }
        self.open_disks()
    }

    /// One turn: time goes on, what has ended is delivered, what is wanted is asked.
    fn turn(&mut self) -> Result<(), Failure> {
        self.turns += 1;
        let may_ask = self.may_ask();
        if !may_ask || self.prng.one_in(2) {
            self.pass_time(may_ask)?;
        }
        self.handle_all()?;
        if self.may_ask() {
            self.ask_some()?;
        }
        if self.phase == Phase::Load && self.close_in != Some(0) {
            self.ask_replica()?;
            self.handle_all()?;
        }
        self.node.end_turn()?;
        self.handle_all()?;
        self.note_room();
        self.strike();
        if self.node.dead {
            return self.power_cut();
        }
        self.proceed()?;
        if self.turns.is_multiple_of(64) {
            self.requests.judge(self.node.now(), false)?;
            self.controls.judge(self.node.now(), false)?;
            self.judge_replica_waits(false)?;
            self.judge_memory()?;
        }
        Ok(())
    }

    fn pass_time(&mut self, may_ask: bool) -> Result<(), Failure> {
        let now = self.node.now();
        let resume = (self.paused_until > now).then_some(self.paused_until);
        let next = [self.node.next(), resume].into_iter().flatten().min();
        let Some(next) = next else {
            // What was asked at the end of a turn is taken up in the next.
            self.idle_turns += 1;
            let stuck = !may_ask && self.idle_turns > 2;
            self.requests.judge(now, stuck)?;
            self.judge_replica_waits(stuck)?;
            return self.controls.judge(now, stuck);
        };
        self.idle_turns = 0;
        // A little more, so that several completions come in one turn.
        let more = Duration::from_nanos(self.prng.below(4000));
        self.node.advance(next.max(now) + more)
    }

    fn judge_memory(&self) -> Result<(), Failure> {
        let of_disk = self.knobs.overlay_bytes / BLOCK + APPLYING_BLOCKS_MAX;
        let of_replica = self.replica.as_ref().map_or(0, ReplicaLoad::in_flight) * 16;
        let asked: u64 = self.requests.iter().map(Asked::blocks).sum::<u64>() + of_replica;
        bounded::judge_pinned(
            self.node.buffers.pinned(),
            of_disk * self.knobs.disks + asked * 4,
        )
    }

    /// Takes everything that left the shard.
    pub(super) fn handle_all(&mut self) -> Result<(), Failure> {
        let mut happened = std::mem::take(&mut self.node.happened);
        for one in happened.drain(..) {
            match one {
                Happened::Replied { token, result, map } => self.replied(token.0, result, &map)?,
                Happened::Controlled { id, result } => self.controlled(id.0, result)?,
                Happened::Noted(note) => self.noted(note)?,
                Happened::Answered { name, answer } => self.replica_answered(name, answer)?,
            }
        }
        if self.node.happened.is_empty() {
            self.node.happened = happened;
        }
        Ok(())
    }

    fn noted(&mut self, note: Note) -> Result<(), Failure> {
        match note {
            Note::Checkpoint { .. } => {
                self.counts.checkpoints += 1;
                self.trimmed = false;
            }
            Note::JournalWrapped { .. } => self.counts.wraps += 1,
            Note::Opened { .. } | Note::TableLoaded { .. } | Note::Scrubbed { bad: 0, .. } => {}
            Note::DamagedJournal { .. } if !self.node.damage.is_empty() => {
                self.node.damage.journal = true;
            }
            alarm if self.node.damage.is_empty() => {
                let what = format!("{alarm:?} was noted, and no disk is to blame");
                return Err(Failure::new(Checker::Intact, what));
            }
            Note::RottenBlock { layer, block, .. } | Note::UnreadableBlock { layer, block, .. } => {
                intact::judge_alarm(&mut self.node.damage, layer, block)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Faults that come from outside the disks' operations.
    fn strike(&mut self) {
        let Knobs {
            rot_one_in,
            gone_one_in,
            ..
        } = self.knobs;
        let disk = self.prng.below(self.knobs.disks) as usize;
        if self.phase != Phase::Load || !self.knobs.hostile {
            return;
        }
        if rot_one_in > 0 && self.prng.one_in(rot_one_in) {
            self.node.disks[disk].rot();
        }
        if gone_one_in > 0 && self.prng.one_in(gone_one_in) && !self.node.disks[disk].gone {
            self.node.disks[disk].go();
            self.node.damage.disk_failed = true;
        }
        // A disk that failed is out of service until the next life: that should come soon.
        if self.node.damage.disk_failed && self.node.cut_in.is_none_or(|left| left > 2000) {
            self.node.cut_in = Some(500 + self.prng.below(1500));
        }
    }

    /// The power was cut.
    fn power_cut(&mut self) -> Result<(), Failure> {
        let recovering = !matches!(self.phase, Phase::Load | Phase::Draining | Phase::Closing);
        self.counts.faults.both(match recovering {
            true => Fault::CrashInRecovery,
            false => Fault::Crash,
        });
        self.cut_recoveries = if recovering {
            self.cut_recoveries + 1
        } else {
            0
        };
        self.end_life();
        self.begin_life()
    }

    fn end_life(&mut self) {
        let writes: Vec<u32> = self
            .requests
            .forget()
            .filter_map(|asked| asked.write)
            .collect();
        self.controls.forget().for_each(drop);
        self.model.power_cut(&writes);
        self.volumes.power_cut();
        if let Some(load) = &mut self.replica {
            load.power_cut();
        }
        self.node.cut_power(self.breaks);
        self.node
            .disks
            .iter_mut()
            .for_each(|disk| disk.gone = false);
        self.to_verify.clear();
        self.close_in = None;
        self.paused_until = Time(0);
    }

    /// Goes to the next phase where this one is done.
    fn proceed(&mut self) -> Result<(), Failure> {
        if !self.controls.is_empty() {
            return Ok(());
        }
        match self.phase {
            Phase::OpeningDisks | Phase::OpeningVolumes if self.start_over => {
                self.end_hopeless_life()
            }
            Phase::OpeningDisks => {
                self.judge_replica()?;
                self.phase = Phase::OpeningVolumes;
                self.open_volumes()
            }
            Phase::OpeningVolumes => {
                self.phase = Phase::Verifying;
                self.plan_verification();
                Ok(())
            }
            Phase::Verifying if self.to_verify.is_empty() && self.requests.is_empty() => {
                self.verified()
            }
            Phase::Load if self.close_in == Some(0) => {
                self.phase = Phase::Draining;
                self.node.cut_in = None;
                Ok(())
            }
            Phase::Draining | Phase::Dropping if !self.is_replica_idle() => Ok(()),
            Phase::Draining if self.requests.is_empty() || self.prng.one_in(8) => {
                self.phase = Phase::Closing;
                // Not drawn, so that seeds tell the stories that they told.
                let how = match self.counts.verified % 2 {
                    0 => Closing::Whole,
                    _ => Closing::Quick,
                };
                // Every other quick close is cut short, so that its superblocks are met half written too.
                let quick = self.counts.verified / 2;
                if how == Closing::Quick && quick % 2 == 1 {
                    self.node.cut_in = Some(1 + quick / 2 % 32);
                }
                self.close(how)
            }
            Phase::Closing if self.requests.is_empty() => self.closed(),
            // What was dropped is swept in the background, and that ends.
            Phase::Dropping if !self.node.levels().any(|levels| levels.sweeping) => {
                self.dropped_all()
            }
            _ => Ok(()),
        }
    }

    fn is_replica_idle(&self) -> bool {
        self.replica.as_ref().is_none_or(ReplicaLoad::is_idle)
    }

    fn end_hopeless_life(&mut self) -> Result<(), Failure> {
        self.end_life();
        self.begin_life()
    }

    /// Everything was read.
    fn verified(&mut self) -> Result<(), Failure> {
        self.counts.verified += 1;
        if !self.node.damage.journal {
            atomic::judge(&mut self.model)?;
        }
        self.cut_recoveries = 0;
        if self.node.damage.journal || (self.node.damage.metadata && self.prng.one_in(4)) {
            self.start_over = true;
            return self.end_hopeless_life();
        }
        if self.last {
            self.phase = Phase::Dropping;
            return self.drop_all();
        }
        self.phase = Phase::Load;
        let usual = self.knobs.cut_after;
        self.node.cut_in = Some(1 + self.prng.below(usual * 2));
        if self.prng.one_in(self.knobs.close_one_in) {
            self.node.cut_in = None;
            self.close_in = Some(1 + self.prng.below(usual / 8));
        }
        Ok(())
    }

    /// The disks are closed: nothing is held, and a power cut loses nothing.
    fn closed(&mut self) -> Result<(), Failure> {
        if self.node.damage.is_empty() {
            // One of each store, and the shard's.
            let own = self.node.disks.len() + 1;
            pins::judge_at_rest(&self.node.buffers, own)?;
            pins::judge_let_go(self.node.in_flight())?;
        }
        if self.last {
            self.phase = Phase::Ended;
            return match self.node.damage.is_empty() {
                true => self.judge_empty(),
                false => Ok(()),
            };
        }
        self.end_life();
        if self.done() {
            self.last = true;
        }
        self.begin_life()
    }

    /// Whether the run did enough.
    pub(super) fn done(&self) -> bool {
        let met = |tally: &Tally| tally.all_consumed();
        let disks: u64 = self.node.disks.iter().map(|disk| met(&disk.tally)).sum();
        let faults = met(&self.counts.faults) + disks;
        let operations = self.counts.operations;
        (operations >= OPERATIONS_MIN && faults >= FAULTS_MIN) || operations >= OPERATIONS_MAX
    }

    /// Whether requests may be asked for now.
    fn may_ask(&self) -> bool {
        let room = self.requests.len() < self.knobs.depth as usize;
        let wanted = match self.phase {
            Phase::Verifying => !self.to_verify.is_empty(),
            Phase::Load => self.paused_until <= self.node.now() && self.close_in != Some(0),
            _ => false,
        };
        wanted && room && !self.node.dead
    }
}
