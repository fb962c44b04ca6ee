//! What people and monitoring see of a node: counters, histograms, logs.

/// All metrics of a process.
#[derive(Debug, Default)]
pub struct Registry {}
