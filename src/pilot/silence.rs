//! When a lease has ended before its time, nothing is asked until the time is over.
//!
//! A manager that refuses a lease that is held (a clock out of bounds, a later start) ends it at once at the holder. The holder's next ask says so, and its grantor
//! may give what was served here to others. In the machine that is right: it is fenced as it asks. But shards are told by orders, which take a while; until
//! then they go by the end that they were told before. So that end is waited for. A lease that ran out waits for nothing, because shards read the same clock, and one
//! that was replaced by another is held on.

use crate::base::Time;

/// What shards were told of the lease's end, and what follows for asks.
#[derive(Debug, Default)]
pub(super) struct Silence {
    /// The latest end that shards were told.
    told: Time,
    until: Time,
}

impl Silence {
    /// Shards were told that the lease lasts until then.
    pub fn told(&mut self, until: Time) {
        self.told = self.told.max(until);
    }

    /// The lease has ended.
    pub fn ended(&mut self) {
        self.until = self.told;
    }

    /// Another one is held.
    pub fn held(&mut self) {
        self.until = Time(0);
    }

    /// The shards have ended: they believe in nothing.
    pub fn shards_have_ended(&mut self) {
        (self.told, self.until) = (Time(0), Time(0));
    }

    pub fn may_ask(&self, now: Time) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_lease_that_ended_early_nothing_is_asked_until_shards_do_not_believe_in_it() {
        let mut silence = Silence::default();
        assert!(silence.may_ask(Time(1)));
        silence.told(Time(400));
        silence.told(Time(500));
        assert!(silence.may_ask(Time(300)), "it is renewed");
        silence.ended();
        assert!(!silence.may_ask(Time(300)) && !silence.may_ask(Time(499)));
        assert!(silence.may_ask(Time(500)), "it has run out");
    }

    #[test]
    fn a_lease_that_ran_out_or_was_replaced_waits_for_nothing() {
        let mut silence = Silence::default();
        silence.told(Time(400));
        silence.ended();
        assert!(silence.may_ask(Time(400)));
        silence.told(Time(900));
        silence.ended();
        silence.held();
        assert!(silence.may_ask(Time(500)));
    }
}
