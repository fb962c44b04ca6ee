//! What both worlds count and draw alike: things that have names, faults injected and consumed, and the habits of swarm testing.

use crate::base::Prng;
use std::marker::PhantomData;

/// Makes an enum whose variants have names, and can be listed.
macro_rules! named {
    ($(#[$of:meta])* $one:ident: $($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $one {
            $($(#[$doc])* $variant,)*
        }

        impl $one {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$one] = &[$($one::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $($one::$variant => $name,)* }
            }
        }

        impl From<$one> for usize {
            /// Its place in the list.
            fn from(one: $one) -> usize {
                one as usize
            }
        }
    };
}

pub(crate) use named;

/// How many faults of each of `N` classes there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally<F, const N: usize> {
    injected: [u64; N],
    consumed: [u64; N],
    classes: PhantomData<F>,
}

impl<F, const N: usize> Default for Tally<F, N> {
    fn default() -> Tally<F, N> {
        Tally {
            injected: [0; N],
            consumed: [0; N],
            classes: PhantomData,
        }
    }
}

impl<F: Copy + Into<usize>, const N: usize> Tally<F, N> {
    pub fn injected(&mut self, fault: F) {
        self.injected[fault.into()] += 1;
    }

    pub fn consumed(&mut self, fault: F) {
        self.consumed[fault.into()] += 1;
    }

    /// A fault that is consumed as it happens.
    pub fn both(&mut self, fault: F) {
        self.injected(fault);
        self.consumed(fault);
    }

    /// How many were injected, and how many of them consumed.
    pub fn of(&self, fault: F) -> (u64, u64) {
        (self.injected[fault.into()], self.consumed[fault.into()])
    }

    pub fn all_consumed(&self) -> u64 {
        self.consumed.iter().sum()
    }

    pub fn add(&mut self, other: &Tally<F, N>) {
        for class in 0..N {
            self.injected[class] += other.injected[class];
            self.consumed[class] += other.consumed[class];
        }
    }
}

/// How often one thing is drawn against others; 0: never.
pub type Weight = u64;

/// Draws with swarm testing's habits: some things are left out of a run altogether, so that others meet more often.
pub struct Draw(pub Prng);

impl Draw {
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.below(of.len() as u64) as usize]
    }

    /// A weight, or nothing one time in four.
    pub fn weight(&mut self, usual: Weight) -> Weight {
        match self.0.below(4) {
            0 => 0,
            _ => 1 + self.0.below(usual * 2),
        }
    }

    /// A rate about this, or never half of the time.
    pub fn rate(&mut self, rate: u64) -> u64 {
        match self.0.one_in(2) {
            true => 0,
            false => rate / 2 + self.0.below(rate),
        }
    }
}
