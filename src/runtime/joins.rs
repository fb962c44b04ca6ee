//! Requests that lie on several shards: cut where the shard changes, which is at extents, and put together again.
//!
//! A part is a stretch of a request on one shard, as long as it goes. So many parts are in flight at most; the
//! first error wins, and no further part is begun after it. What a map finds is joined in the order of the
//! parts, and ends where a part was answered for its beginning only.

use super::desk::{Desk, Pending, Wanted};
use super::post::{Letter, PartOf};
use crate::base::{IoError, MapRun, Request, RequestKind, Token};

/// Parts of one request in flight. A map has no more parts than that at all: a client asks again for the rest.
const PARTS: u32 = 64;

/// A request whose parts are in flight.
#[derive(Debug)]
pub(super) struct Join {
    whole: Request,
    /// Where the next part begins, and where the last one ends.
    next: u64,
    end: u64,
    /// Parts that were begun, and those of them that are not answered.
    begun: u32,
    in_flight: u32,
    error: Option<IoError>,
    /// Of a map, by part: its length in bytes, and what was found.
    maps: Vec<(u64, Vec<MapRun>)>,
}

/// A request that is answered: what it was, and the answer.
pub(super) type Whole = (Pending, Result<(), IoError>, Vec<MapRun>);

impl Desk {
    /// Begins a request that lies on several shards.
    pub(super) fn submit_split(&mut self, wanted: Wanted) -> Result<(), IoError> {
        let whole = self.enter(wanted, None)?;
        let join = Join {
            whole,
            next: whole.offset,
            end: whole.offset + whole.len,
            begun: 0,
            in_flight: 0,
            error: None,
            maps: Vec::new(),
        };
        let join = self.joins.insert(join);
        let join = join.expect("there are as many places for joins as for requests");
        self.requests[whole.token.0 as u32].join = Some(join);
        self.begin_parts(join);
        if self.joins[join].in_flight > 0 {
            return Ok(());
        }
        // Not even the first part could be begun.
        self.answered(whole.token);
        let error = self.joins.remove(join).and_then(|join| join.error);
        Err(error.unwrap_or(IoError::Busy))
    }

    /// Begins the next parts, as many as may be in flight. An error here comes back as that of a part.
    fn begin_parts(&mut self, key: u32) {
        loop {
            let join = &mut self.joins[key];
            if join.next >= join.end || join.in_flight >= PARTS || join.error.is_some() {
                return;
            }
            let Some(routes) = self.router.volume(join.whole.volume) else {
                join.error = Some(IoError::Closed);
                return;
            };
            let (shard, until) = routes.run(join.next, join.end);
            let part = PartOf {
                origin: self.me,
                whole: join.whole.token.0 as u32,
                place: join.begun,
            };
            let len = until - join.next;
            let request = join.whole.part(Token(0), join.next, len);
            join.next = until;
            join.begun += 1;
            join.in_flight += 1;
            if join.whole.kind == RequestKind::Map {
                join.maps.push((len, Vec::new()));
                if join.begun == PARTS {
                    join.end = join.next; // the beginning of the range is an answer too
                }
            }
            if shard != self.me {
                self.trays.put(shard, Letter::Ask { part, request });
            } else if let Err(error) = self.take_part(part, request) {
                let join = &mut self.joins[key];
                join.in_flight -= 1;
                join.error = Some(error);
            }
        }
    }

    /// A part was answered. The request, where that was the last of it.
    pub fn part_answered(
        &mut self,
        part: PartOf,
        result: Result<(), IoError>,
        map: Vec<MapRun>,
    ) -> Option<Whole> {
        let token = Token(u64::from(part.whole));
        let pending = self.requests.get(part.whole);
        let pending = pending.expect("a part is answered while its request is in flight");
        let Some(key) = pending.join else {
            return Some((self.answered(token), result, map));
        };
        let join = &mut self.joins[key];
        join.in_flight -= 1;
        if let Err(error) = result {
            join.error.get_or_insert(error);
        }
        if let Some((_, found)) = join.maps.get_mut(part.place as usize) {
            *found = map;
        }
        self.begin_parts(key);
        if self.joins[key].in_flight > 0 {
            return None;
        }
        let join = self.joins.remove(key)?;
        let result = join.error.map_or(Ok(()), Err);
        Some((self.answered(token), result, joined(join.maps)))
    }
}

/// The runs of all parts one after another, neighbours of one kind as one, as far as they follow one another.
fn joined(parts: Vec<(u64, Vec<MapRun>)>) -> Vec<MapRun> {
    let mut all: Vec<MapRun> = Vec::new();
    for (len, runs) in parts {
        let mut left = len;
        for run in runs {
            let len = run.len.min(left);
            left -= len;
            match all.last_mut() {
                Some(last) if (last.zero, last.hole) == (run.zero, run.hole) => last.len += len,
                _ if len > 0 => all.push(MapRun { len, ..run }),
                _ => {}
            }
        }
        if left > 0 {
            break;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(len: u64, zero: bool) -> MapRun {
        let hole = zero;
        MapRun { len, zero, hole }
    }

    #[test]
    fn a_map_is_joined_in_order_and_ends_where_a_part_does_not_reach_its_end() {
        let parts = vec![
            (10, vec![run(4, false), run(6, true)]),
            (5, vec![run(5, true)]),
            (8, vec![run(3, false)]),
            (8, vec![run(8, false)]),
        ];
        assert_eq!(joined(parts), [run(4, false), run(11, true), run(3, false)]);
    }

    #[test]
    fn a_part_that_answers_nothing_ends_the_map() {
        assert_eq!(joined(vec![(10, vec![]), (5, vec![run(5, true)])]), []);
    }
}
