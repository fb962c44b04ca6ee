#![forbid(unsafe_code)]
//! Placement: which disks hold the replicas of which PG of a pool.
//!
//! ```text
//!   Cluster { pool, disks, pgs with the replicas they have }
//!      │ layout    checked, numbered, sorted (refused: too few domains, and which level would do)
//!      │ share     fair shares under the cap, whole targets next to them
//!      │ keep      what may stay: good disks, one replica in a domain
//!      │ fill      holes, PG by PG, where it is least crowded
//!      │ shed      what disks have above their targets, by single moves
//!      │ repair    what is left, by chains of moves
//!      ▼ change    the difference, in order of need
//!   Plan { changes, moved, unavoidable, placed }          measure() judges any map
//! ```
//!
//! # Why an explicit map, and this solver
//!
//! Hashes place without a map: CRUSH (Weil 2006) and RUSH (Honicky and Miller 2004) compute a PG's disks from
//! its number. They need no memory, but loads scatter like random draws (with 30 replicas a disk, 18 % off is
//! one standard deviation), weights are not honoured where domains are few, a change moves more than it must,
//! and Ceph has grown a balancer that writes exceptions into a map after all ("upmap"). We have the map anyway:
//! the manager holds each PG's version and in-sync set. Swift's ring builder fills a map greedily by how much
//! each device still wants, under a limit per domain: from it come the caps. Vitastor solves linear programs
//! over combinations of disks for few moves: exact for one failure domain tree, but combinations grow with the
//! power of copies.
//!
//! Here the problem is taken as what it is, a flow: PGs send `copies` units through different domains into disks
//! of known targets. Targets come first, by filling water, so balance is not a matter of luck. Then greedy steps
//! with a free choice, used to spread partners; and what greed leaves undone is finished by augmenting paths,
//! which always exist. No step is random in its result: draws come from a generator with a fixed seed, over
//! sorted input, so the same question has the same answer in any order.
//!
//! # What holds
//!
//! 1. **The domain rule.** No two replicas of a PG in one failure domain of the pool's level. With fewer domains
//!    than copies [`solve()`] refuses and names the level that would do; nothing is half done. While a domain is
//!    missing after a failure, PGs stay as they are: a copy short.
//! 2. **Balance.** Every disk has its fair share rounded down or up, so it is less than one replica off: at most
//!    5 % where its share is 20 or more ([`REPLICAS_MIN`], which [`pgs_wanted`] sees to). The fair share is by
//!    weight, under the cap: no domain is asked for more than one replica of each PG; what a giant cannot take
//!    the others share by weight. Nodes and racks are sums of disks, so they are off by no larger part.
//! 3. **Movement.** *Unavoidable* is the highest of: what has to arrive, `sum of max(0, floor(share) - kept)`
//!    over disks (of a disk that came: its fair share; of weights: what shares grow by); what has to leave or is
//!    missing, replicas on disks that are gone or drained, more than one in a domain, missing copies, and `sum
//!    of max(0, kept - ceil(share))`; and for each PG the capped domains that it is not in. [`Plan::moved`] is
//!    at most 1.1 times that, where there are three times as many domains as copies or more (1.00 in all such
//!    that is benched). (Where copies are lowered it is counted after the choice of what is dropped, and may be
//!    above the least.) Among fewer domains the rule itself forces more: there `tests/least.rs` computes the true
//!    least by a flow of least cost, and plans come within 1 % of it in sum, never more than a tenth and 3
//!    replicas above.
//! 4. **Each step.** Changes come in order of need ([`Need`]), one replica of one PG each; none breaks the
//!    domain rule where it held, and the old replica is given up when the new one is in sync. The manager begins
//!    a PG's next change when the one before is done.
//! 5. **Old PGs spread too.** New PGs are dealt out after the old ones are balanced (see `solve`), since volumes
//!    hash over the PGs that there were when they were made.
//! 6. **Local volumes.** One hashes over the PGs that have a replica on its home node: about the node's fair
//!    share of replicas. With [`LOCAL_PGS_MIN`] of them none carries more than 5 %; [`measure()`] names nodes that
//!    have fewer (very light ones: see `count`).
//! 7. **Partners.** The other replicas of a node's PGs spread over all other nodes in proportion to their
//!    shares, so a rebuild, and the second copies of local volumes, are many to many. The bound that is held by
//!    tests, after any history they tried: two nodes have at most 4 PGs in common above 1.5 times what is
//!    expected of them (`measure` has the formula); seen are 3.1 above 0.9, and 2.4 above 7.6. Pairs of disks are
//!    evened out too in pools of up to 1,024 disks.
//!
//! Invariants by name, asserted where they are made: *one-replica-a-domain* (`assignment`), *targets-sum-up*
//! (`share`), *targets-can-be-met* (`repair`).
//!
//! It does not know time, bytes or versions; how fast changes are carried out, and which may run at once, is the
//! manager's.

mod assignment;
mod change;
mod cluster;
mod count;
mod fill;
mod layout;
mod measure;
mod pairs;
mod repair;
mod replicas;
mod share;
mod shed;
mod solve;
mod weighted;

#[cfg(test)]
mod tests;

pub use change::{Change, Need, apply};
pub use cluster::{
    COPIES_MAX, Cluster, DISKS_MAX, Disk, DiskState, Level, NODES_MAX, PGS_MAX, PgReplicas, Pool,
    REPLICAS_MAX, RackId, Refusal, WEIGHT_MAX,
};
pub use count::{GROWTH_MAX, LOCAL_PGS_MIN, REPLICAS_A_DISK, REPLICAS_MIN, pgs_wanted};
pub use measure::{Balance, Local, Measure, Partners, measure};
pub use solve::{Plan, solve};
