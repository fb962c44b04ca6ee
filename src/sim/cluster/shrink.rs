//! A failing plan, made small: fewer strokes, fewer operations, fewer nodes.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the list of strokes, halving over the number of operations, one by one over the
//! nodes, and all of it again as long as anything becomes smaller. A smaller plan is taken only where it fails by the same
//! promise: another failure is another story. A run is a function of its plan, so what is found is what is replayed.

use super::checkers::Failure;
use super::plan::{Plan, Planned};

/// Nodes of the smallest cluster: a manager of three members needs them.
const NODES_MIN: u32 = 3;

/// A plan that could not be made smaller, or not in so many tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    pub plan: Plan,
    pub failure: Failure,
    /// How many plans were run.
    pub tries: u32,
}

struct Shrinker<R> {
    run: R,
    best: Shrunk,
    tries_max: u32,
}

/// Makes `plan`, which fails by `failure`, smaller; runs at most `tries_max` plans.
pub fn shrink(
    plan: Plan,
    failure: Failure,
    tries_max: u32,
    run: impl FnMut(&Plan) -> Option<Failure>,
) -> Shrunk {
    let best = Shrunk {
        plan,
        failure,
        tries: 0,
    };
    let mut shrinker = Shrinker {
        run,
        best,
        tries_max,
    };
    loop {
        let before = shrinker.best.plan.clone();
        shrinker.strokes();
        shrinker.operations();
        shrinker.nodes();
        if shrinker.best.plan == before || shrinker.is_over() {
            return shrinker.best;
        }
    }
}

impl<R: FnMut(&Plan) -> Option<Failure>> Shrinker<R> {
    fn is_over(&self) -> bool {
        self.best.tries >= self.tries_max
    }

    /// Takes a plan in the place of the best, if it fails by the same promise; whether it does.
    fn fails(&mut self, plan: Plan) -> bool {
        if self.is_over() {
            return false;
        }
        self.best.tries += 1;
        let same = (self.run)(&plan).filter(|failure| failure.promise == self.best.failure.promise);
        match same {
            Some(failure) => {
                (self.best.plan, self.best.failure) = (plan, failure);
                true
            }
            None => false,
        }
    }

    fn fails_with(&mut self, strokes: Vec<Planned>) -> bool {
        let plan = Plan {
            strokes,
            ..self.best.plan.clone()
        };
        self.fails(plan)
    }

    /// Leaves out parts of the strokes, ever smaller ones, until no single one can be left out.
    fn strokes(&mut self) {
        if self.best.plan.strokes.is_empty() || self.fails_with(Vec::new()) {
            return;
        }
        let mut part = self.best.plan.strokes.len().div_ceil(2);
        loop {
            let mut from = 0;
            while from < self.best.plan.strokes.len() && !self.is_over() {
                let mut strokes = self.best.plan.strokes.clone();
                strokes.drain(from..strokes.len().min(from + part));
                // What follows has moved here, if it was left out.
                if !self.fails_with(strokes) {
                    from += part;
                }
            }
            if part == 1 || self.is_over() {
                return;
            }
            part = part.div_ceil(2);
        }
    }

    /// Finds a number of operations of which one less does not fail, if failing goes on once it has begun.
    fn operations(&mut self) {
        let mut passes = 0;
        while self.best.plan.operations > passes + 1 && !self.is_over() {
            let operations = passes + (self.best.plan.operations - passes) / 2;
            let plan = Plan {
                operations,
                ..self.best.plan.clone()
            };
            if !self.fails(plan) {
                passes = operations;
            }
        }
    }

    fn nodes(&mut self) {
        while self.best.plan.nodes > NODES_MIN {
            let fewer = self.best.plan.with_nodes(self.best.plan.nodes - 1);
            if !self.fails(fewer) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::cluster::checkers::Promise;
    use crate::sim::cluster::plan::Stroke;
    use std::time::Duration;

    fn failure(promise: Promise) -> Failure {
        Failure::new(promise, "toy")
    }

    fn plan(strokes: u64) -> Plan {
        let lasts = Duration::from_millis(1);
        let stroke = |n: u64| match n % 3 {
            0 => Stroke::Depose,
            1 => Stroke::Pause {
                node: (n % 8) as u32,
                lasts,
            },
            _ => Stroke::Rot {
                disk: ((n % 8) as u32, 0),
                pick: n,
            },
        };
        let at = Duration::from_millis;
        Plan {
            seed: 1,
            nodes: 8,
            operations: 5_000,
            strokes: (0..strokes)
                .map(|n| Planned {
                    at: at(n),
                    stroke: stroke(n),
                })
                .collect(),
        }
    }

    /// Fails where a pause of node 1 comes before the rot 40 before a leader is deposed, from 137 operations on.
    fn toy(plan: &Plan) -> Option<Failure> {
        let find = |from: usize, is: &dyn Fn(&Stroke) -> bool| {
            let place = plan.strokes[from..]
                .iter()
                .position(|planned| is(&planned.stroke))?;
            Some(from + place + 1)
        };
        let at = find(0, &|stroke| matches!(stroke, Stroke::Pause { node: 1, .. }))?;
        let at = find(at, &|stroke| matches!(stroke, Stroke::Rot { pick: 41, .. }))?;
        find(at, &|stroke| *stroke == Stroke::Depose)?;
        (plan.operations >= 137).then(|| failure(Promise::Durable))
    }

    #[test]
    fn what_is_left_is_what_the_failure_needs() {
        let whole = plan(200);
        let found = toy(&whole).unwrap();
        let shrunk = shrink(whole, found, 2_000, toy);
        assert_eq!(shrunk.plan.strokes.len(), 3, "{shrunk:?}");
        assert_eq!((shrunk.plan.operations, shrunk.plan.nodes), (137, 3));
        assert!(
            toy(&shrunk.plan).is_some() && shrunk.tries < 300,
            "{} tries",
            shrunk.tries
        );
    }

    #[test]
    fn another_failure_is_not_taken_for_it() {
        let run = |plan: &Plan| match plan.strokes.len() {
            5.. => Some(failure(Promise::Durable)),
            _ => Some(failure(Promise::Heals)),
        };
        let shrunk = shrink(plan(60), failure(Promise::Durable), 2_000, run);
        assert_eq!(
            (shrunk.plan.strokes.len(), shrunk.failure.promise),
            (5, Promise::Durable)
        );
    }

    #[test]
    fn it_stops_after_so_many_tries_with_the_best_so_far() {
        let mut runs = 0;
        let shrunk = shrink(plan(200), failure(Promise::Durable), 20, |plan| {
            runs += 1;
            toy(plan)
        });
        assert_eq!((runs, shrunk.tries), (20, 20));
        assert!(shrunk.plan.strokes.len() < 200 && toy(&shrunk.plan).is_some());
    }

    #[test]
    fn a_failure_that_needs_no_fault_has_none_left() {
        let shrunk = shrink(plan(200), failure(Promise::Heals), 100, |_| {
            Some(failure(Promise::Heals))
        });
        assert!(shrunk.plan.strokes.is_empty());
        assert_eq!((shrunk.plan.operations, shrunk.plan.nodes), (1, 3));
    }
}
