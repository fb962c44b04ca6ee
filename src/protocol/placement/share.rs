//! Fair shares by filling water, and whole targets next to them.
//!
//! Of `P` PGs with `c` copies, `R = P c` replicas are shared out by weight. But no domain can hold more than `P`
//! of them, one of each PG: a domain whose share would be more is *capped*: it gets exactly `P`, and what it
//! cannot take is shared by the others, again by weight (which may cap the next one; at most `c - 1` are capped
//! so). Inside a domain the share is split by weight. This is the fair share under the cap, and what balance is
//! measured against.
//!
//! The target of a disk is its share rounded down or up: what it holds now, where that is one of the two, so
//! that nothing moves for a fraction. Whether such targets can be met is not a question: any whole numbers with
//! the sum `P c`, of which no domain has more than `P`, can be dealt out one domain after another, round and
//! round over the PGs (McNaughton's wrap-around rule of 1959, for machines and hours).
//!
//! Invariants: targets sum to `R`; no domain's exceed `P`; each is its disk's share rounded down or up. Nothing
//! here knows which PG is where.

use super::layout::Layout;
use crate::base::mix64;
use std::ops::Range;

/// The replicas that a disk should have, as an exact fraction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    numerator: u128,
    denominator: u128,
}

impl Share {
    const NONE: Share = Share {
        numerator: 0,
        denominator: 1,
    };

    pub fn floor(self) -> u32 {
        (self.numerator / self.denominator) as u32
    }

    pub fn ceil(self) -> u32 {
        self.numerator.div_ceil(self.denominator) as u32
    }

    pub fn value(self) -> f64 {
        // In two parts: 2^70 / 2^65 would lose the fraction of a large share otherwise.
        let rest = (self.numerator % self.denominator) as f64;
        f64::from(self.floor()) + rest / self.denominator as f64
    }

    fn fraction(self) -> f64 {
        (self.numerator % self.denominator) as f64 / self.denominator as f64
    }
}

/// The domains whose fair share is a replica of every PG, each by its first disk: those that are capped, and
/// those that have just as much.
pub(super) fn full_domains(layout: &Layout) -> Vec<u32> {
    let weights = domain_weights(layout);
    let capped = capped_domains(&weights, layout.copies());
    let taken = capped.iter().map(|&domain| weights[domain]).sum::<u128>();
    let rest = weights.iter().sum::<u128>() - taken;
    let copies_left = (layout.copies() - capped.len()) as u128;
    let is_full = |&domain: &usize| {
        capped.contains(&domain) || (rest > 0 && weights[domain] * copies_left >= rest)
    };
    let full = (0..weights.len()).filter(is_full);
    full.map(|domain| layout.domains[domain].start as u32)
        .collect()
}

/// The fair share of each disk, when `pgs` PGs are dealt out.
pub(super) fn fair_shares(layout: &Layout, pgs: usize) -> Vec<Share> {
    let weights = domain_weights(layout);
    let capped = capped_domains(&weights, layout.copies());
    let pgs = pgs as u128;
    let left = pgs * (layout.copies() - capped.len()) as u128;
    let all = weights.iter().sum::<u128>();
    let rest = all - capped.iter().map(|&domain| weights[domain]).sum::<u128>();
    let share = |at: usize| {
        let domain = layout.domain_of[at] as usize;
        let (replicas, of) = match capped.contains(&domain) {
            true => (pgs, weights[domain]),
            false => (left, rest),
        };
        match weight(layout, at) {
            0 => Share::NONE,
            weight => Share {
                numerator: weight * replicas,
                denominator: of,
            },
        }
    };
    (0..layout.disks.len()).map(share).collect()
}

/// What a disk weighs in the sharing out.
fn weight(layout: &Layout, at: usize) -> u128 {
    match layout.disks[at].takes() {
        true => u128::from(layout.disks[at].weight),
        false => 0,
    }
}

fn domain_weights(layout: &Layout) -> Vec<u128> {
    let of = |range: &Range<usize>| range.clone().map(|at| weight(layout, at)).sum();
    layout.domains.iter().map(of).collect()
}

/// The domains whose weight asks for more than one replica of each PG.
fn capped_domains(weights: &[u128], copies: usize) -> Vec<usize> {
    let mut order = (0..weights.len()).collect::<Vec<usize>>();
    order.sort_by_key(|&domain| (std::cmp::Reverse(weights[domain]), domain));
    let mut rest = weights.iter().sum::<u128>();
    let mut capped = Vec::new();
    for domain in order {
        let copies_left = (copies - capped.len()) as u128;
        if weights[domain] * copies_left <= rest {
            break;
        }
        rest -= weights[domain];
        capped.push(domain);
    }
    capped
}

/// How many replicas each disk is to have, when it keeps `kept` now and `pgs` PGs are dealt out: the targets with
/// the fewest moves among those that are shares rounded down or up.
pub(super) fn targets(layout: &Layout, shares: &[Share], kept: &[u32], pgs: usize) -> Vec<u32> {
    let clamped = shares.iter().zip(kept);
    let mut targets = clamped
        .map(|(share, &kept)| kept.clamp(share.floor(), share.ceil()))
        .collect::<Vec<u32>>();
    let mut of_domain = vec![0u64; layout.domains.len()];
    for (at, &target) in targets.iter().enumerate() {
        of_domain[layout.domain_of[at] as usize] += u64::from(target);
    }
    // Which disks are rounded up: by what they miss; between equals one disk of every node, then the next of
    // every node, so that nodes and racks stay even too.
    let mut order = (0..targets.len()).collect::<Vec<usize>>();
    let rank = ranks_in_node(layout);
    order.sort_by(|&a, &b| {
        let by_fraction = shares[b].fraction().total_cmp(&shares[a].fraction());
        let of_node = |at: usize| (rank[at], mix64(u64::from(layout.disks[at].node.0)), at);
        by_fraction.then(of_node(a).cmp(&of_node(b)))
    });
    let most = pgs as u64;
    let mut all = of_domain.iter().sum::<u64>();
    let wanted = most * layout.copies() as u64;
    // Domains first: what leaves a full one counts for the sum too.
    for for_the_sum in [false, true] {
        for &at in order.iter().rev() {
            let domain = layout.domain_of[at] as usize;
            let is_above = targets[at] > shares[at].floor();
            let is_over = of_domain[domain] > most || (for_the_sum && all > wanted);
            if is_above && is_over {
                targets[at] -= 1;
                of_domain[domain] -= 1;
                all -= 1;
            }
        }
    }
    for &at in &order {
        let domain = layout.domain_of[at] as usize;
        if all < wanted && targets[at] < shares[at].ceil() && of_domain[domain] < most {
            targets[at] += 1;
            of_domain[domain] += 1;
            all += 1;
        }
    }
    assert_eq!(all, wanted, "targets-sum-up: to the replicas of all PGs");
    targets
}

/// The how-manieth disk of its node each is.
fn ranks_in_node(layout: &Layout) -> Vec<u32> {
    let mut ranks = Vec::with_capacity(layout.disks.len());
    for (at, &node) in layout.node_of.iter().enumerate() {
        let same = at > 0 && layout.node_of[at - 1] == node;
        ranks.push(if same { ranks[at - 1] + 1 } else { 0 });
    }
    ranks
}
