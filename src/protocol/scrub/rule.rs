//! The rules of repair and comparison by name, so that each can be switched off and is then missed.

use crate::base::switches;

switches! {
    /// A rule of repair, or of comparison.
    Rule,
    /// The rules that are switched off.
    RulesOff:
    /// Bytes count only with the checksum that they should have: at who gives them, at who asks, and in the store.
    Checksum = "mend-checksum",
    /// The store compares at the moment when it takes them, so that a write which came between stays.
    Newer = "mend-newer",
    /// A chunk of which something is in flight is not compared.
    Quiet = "compare-quiet",
}
