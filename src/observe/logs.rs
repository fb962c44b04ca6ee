//! Logs of the daemon: structured, on standard error.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter that is no filter, or logs that were started before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsError(String);

impl std::fmt::Display for LogsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogsError {}

/// Starts logging for the whole process. `filter` as of tracing ("info", "sarsen=debug"). openraft says nothing unless it is named there:
/// it calls each message to a member that is away an error, twenty times a second. What matters of it the manager says.
pub fn start_logs(format: LogFormat, filter: &str) -> Result<(), LogsError> {
    let wrong = |e: &dyn std::fmt::Display| LogsError(format!("log filter {filter:?}: {e}"));
    let whole = match filter.contains("openraft") {
        true => filter.to_owned(),
        false => format!("openraft=off,{filter}"),
    };
    let parsed = EnvFilter::try_new(whole).map_err(|e| wrong(&e))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_is_named() {
        let wrong = start_logs(LogFormat::Text, "sarsen=loud").unwrap_err();
        assert!(wrong.to_string().contains("sarsen=loud"), "{wrong}");
    }
}
