#![forbid(unsafe_code)]
//! Liveness of nodes: one lease a node with the manager (R17, R18, promise 5), and who is believed when nodes accuse one
//! another (the first half of R11).
//!
//! ```text
//!     a node                          a member of the manager
//!   ┌────────┐   Ask (numbered)     ┌─────────┐  Confirm   ┌──────────────────┐
//!   │ Holder │ ───────────────────► │ Grantor │ ─────────► │ a majority of    │
//!   │        │ ◄─────────────────── │         │ ◄───────── │ the members      │
//!   └────────┘   Granted, NotLeader │         │ Confirmed  └──────────────────┘
//!    Held, Extended, Fenced         │         │ ──► Live, Expired   (leases)
//!    is_valid(now): one comparison  │         │ ──► Verdict         (R11)
//!                                   └─────────┘ ──► ClockOutOfBounds
//! ```
//!
//! # What is promised
//! - *never-two*: from the moment that a grantor says [`Expired`](GrantorOutput::Expired) for a lease, no start of that node
//!   believes in it, or ever will. Two starts of a node never believe at once.
//! - *no-false-expiry*: a holder whose round trips fit in one retry keeps its lease without a break, through an election too.
//! - *comes-back*: when the network and the manager work, everyone with a sound clock soon holds a lease.
//!
//! # Why it holds
//! 1. The holder counts from its send, the grantor from its receipt, which is later; drift is taken off at one and added at the
//!    other (the arithmetic is with [`Parameters`]). What the network does to an answer makes it worth less, never more.
//! 2. Leases have numbers ([`LeaseNumber`]). An extension keeps the number, a break gives a new one, and a holder takes none that
//!    it has fenced. So an answer that was held up cannot bring back what was called expired, and whoever keeps state under a
//!    number knows that it is void under the next (as O2 has it for sites; O3 ends a node's lease with its site's).
//! 3. A new leader presumes that everybody's lease began as it was elected (R18), and answers, as well as the word
//!    *expired*, leave only after a majority confirmed that their speaker leads. So at no time do two leaders speak.
//! 4. A lease ends early only by its holder's own word: it stopped ([`End::Released`]) or says with its next ask that it
//!    had to fence itself ([`End::GivenUp`]).
//! 5. A later start of a node waits until the earlier one's lease is over: that one may be a stopped process that wakes.
//!
//! A machine that was suspended, or a process that was stopped, wakes with the same count: CLOCK_BOOTTIME ran on, and the first
//! [`Holder::is_valid`] says no. A process that is stopped between that check and its reply is covered too: the value was the
//! newest when it was checked, which is between the request and the reply.
//!
//! # Clocks
//! No time of day is compared, and none has to agree: only durations on each machine's own CLOCK_BOOTTIME count, at rates within
//! `drift_ppm` of true time. That is believed only while it can be checked: each ask carries how long the asker's clock has
//! run and how long its last round trip was, and a rate that no delay explains is proof, after which the node is refused, fences
//! itself at once, and is waited out for two leases (`clock.rs` has the inequalities, how soon they see what, and what
//! they cannot see). Before it is proven, a clock that is slower than the bound by `e` believes for `e * lease` too long: at
//! chronyd's fastest default slew (8.3 %) 33 ms, for the two renewals until it is proven.
//!
//! # What it costs
//! A renewal is one ask, one answer, and a share of a round: no allocation, no search. 1,000 nodes at one renewal each 100 ms are
//! 10,000 asks a second, and with 200 us for a round 4,000 confirmations: 14,000 steps, of some 200 ns each, measured at 2.5 to 7 ms
//! of a core a second on a busy machine, so under 1 % (`a_thousand_nodes_cost_a_grantor_less_than_one_percent_of_a_core`).
//!
//! # The driver's duties
//! 1. Hand in the time that was read after the messages were received and before the step.
//! 2. Call `expire` at `deadline`; late is safe, and looks like a slow network.
//! 3. Send what is said, when it is said. A message that was kept back and sent later is safe.
//! 4. For `Confirm`, ask a majority by messages that leave after it; for `Record`, commit.
//! 5. Let the one who serves ask `is_valid` with the value in hand, and drop on `Fenced` what it holds under that number.

mod accusations;
mod answer;
mod ask;
mod clock;
mod ending;
mod entry;
mod grantor;
mod holder;
mod message;
mod parameters;
mod rounds;
mod rule;

#[cfg(test)]
mod tests;

pub use accusations::{ACCUSATIONS_MAX, OF_ONE_MAX, Verdict, Why};
pub use grantor::{End, Grantor, GrantorInput, GrantorOutput, NODES_MAX};
pub use holder::{Holder, HolderInput, HolderOutput, Loss, MEMBERS_MAX};
pub use message::{Answer, Answered, Ask, Incarnation, LeaseNumber, Refusal, Standing, Term, Want};
pub use parameters::{Parameters, Unsound};
pub use rule::{Rule, RulesOff};
