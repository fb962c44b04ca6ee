//! The progress bar of import and export: on standard error, and only where a person looks at it.

use crate::cli::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// With a known length, how much of it is done; without, how much was done.
const KNOWN: &str = "{bar:40} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {eta}";
const UNKNOWN: &str = "{spinner} {binary_bytes} {binary_bytes_per_sec}";

pub(super) fn bar(output: Output, length: Option<u64>) -> ProgressBar {
    // indicatif draws nothing where standard error is no terminal.
    let target = match output.json {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let (bar, template) = match length {
        Some(length) => (ProgressBar::with_draw_target(Some(length), target), KNOWN),
        None => (ProgressBar::with_draw_target(None, target), UNKNOWN),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the templates above are right"))
}
