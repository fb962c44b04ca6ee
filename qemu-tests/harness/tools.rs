//! Other people's programs, run with a time limit.

use super::{Step, ensure};
use std::process::Command;

/// How long one run of a tool may take, in seconds.
const TOOL_SECONDS_MAX: u32 = 120;

/// Runs a program where it must succeed; what it printed.
pub fn run(program: &str, arguments: &[&str]) -> Step<String> {
    run_within(TOOL_SECONDS_MAX, program, arguments)
}

/// The same with another time limit, in seconds.
pub fn run_within(seconds: u32, program: &str, arguments: &[&str]) -> Step<String> {
    let (code, text) = attempt_within(seconds, program, arguments)?;
    ensure!(
        code == Some(0),
        "{program} {}: exit {code:?}: {text}",
        arguments.join(" ")
    );
    Ok(text)
}

/// Runs a program: its exit code, and what it printed, errors last.
pub fn attempt(program: &str, arguments: &[&str]) -> Step<(Option<i32>, String)> {
    attempt_within(TOOL_SECONDS_MAX, program, arguments)
}

fn attempt_within(seconds: u32, program: &str, arguments: &[&str]) -> Step<(Option<i32>, String)> {
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=5", &seconds.to_string(), program])
        .args(arguments);
    let output = command
        .output()
        .map_err(|error| format!("timeout {program}: {error}"))?;
    let code = output.status.code();
    ensure!(code != Some(127), "{program} is not installed");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok((code, text))
}
