//! The rules of repair by name, so that each can be switched off and is then missed.

use crate::base::switches;

switches! {
    /// A rule of repair.
    Rule,
    /// The rules that are switched off.
    RulesOff:
    /// Bytes count only with the checksum that they should have: at who gives them, at who asks, and in the store.
    Checksum = "mend-checksum",
    /// The store compares at the moment when it takes them, so that a write which came between stays.
    Newer = "mend-newer",
}
