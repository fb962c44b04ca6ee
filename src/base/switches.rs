//! Things that the simulator can switch, by name: planted breaks, and rules of protocols that are left out.
//!
//! Outside a build with the feature `sim` there is no way to switch one: a set of them is then an empty type whose question is
//! answered `false` at compile time.

/// Makes an enum of what can be switched, each with its name, and a type for a set of them.
macro_rules! switches {
    ($(#[$of:meta])* $one:ident, $(#[$ofs:meta])* $set:ident:
     $($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $one {
            $($(#[$doc])* $variant,)*
        }

        impl $one {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [$one] = &[$($one::$variant),*];

            pub fn name(self) -> &'static str {
                match self { $($one::$variant => $name,)* }
            }

            pub fn from_name(name: &str) -> Option<$one> {
                match name { $($name => Some($one::$variant),)* _ => None }
            }
        }

        $(#[$ofs])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set {
            #[cfg(feature = "sim")]
            on: u64,
        }

        impl $set {
            /// None: what every build but the simulator's has.
            pub const NONE: $set = $set {
                #[cfg(feature = "sim")]
                on: 0,
            };

            /// One, for the simulator.
            #[cfg(feature = "sim")]
            pub fn only(which: $one) -> $set {
                $set {
                    on: 1 << which as u8,
                }
            }

            /// Whether this one is among them.
            #[inline(always)]
            pub fn on(self, which: $one) -> bool {
                #[cfg(feature = "sim")]
                {
                    self.on & (1 << which as u8) != 0
                }
                #[cfg(not(feature = "sim"))]
                {
                    let _ = which;
                    false
                }
            }
        }
    };
}

pub(crate) use switches;
