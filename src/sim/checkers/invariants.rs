//! *invariants*: no assertion of the shard's own fails.
//!
//! The pure rooms assert what must hold and abort where it does not. In a run that is a find like any other: it is
//! caught here, and the seed that led to it is named.

use super::{Checker, Failure};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `run`; an assertion that fails in it is a failure.
pub fn judge<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    // What it left half done is dropped with it.
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Failure::new(Checker::Invariants, text.unwrap_or("a panic without words"))
    })
}

/// Keeps failed assertions from printing where they are looked for.
pub fn quietly<T>(run: impl FnOnce() -> T) -> T {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let done = run();
    std::panic::set_hook(usual);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_assertion_is_a_failure_with_its_words() {
        let caught = judge(|| assert_eq!(1, 2, "a slot has one owner"));
        let failure = caught.unwrap_err();
        assert_eq!(failure.checker, Checker::Invariants);
        assert!(failure.what.contains("a slot has one owner"));
        assert_eq!(judge(|| 7), Ok(7));
    }
}
