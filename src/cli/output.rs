//! What a command prints: one JSON document for programs, tables for people.

use super::Failure;
use crate::api::size::human;
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::Write;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `people` makes of it.
    pub fn show<T: Serialize>(
        self,
        value: &T,
        people: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => self.document(value),
            false => say(&people(value)),
        }
    }

    /// Prints `value` as one JSON document.
    pub fn document<T: Serialize>(self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::local("the answer cannot be written as JSON", error))?;
        say(&text)
    }
}

/// Prints a text and ends its line. Unlike `println!`, does not panic where nobody reads it.
pub fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end())
        .and_then(|()| out.flush())
        .map_err(Failure::output)
}

/// A table without rules, as other tools print it.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    // The first column begins at the left edge.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// Names and values below one another.
pub fn fields<const N: usize>(fields: [(&str, String); N]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = fields
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A size for people, with the exact number where that says more.
pub fn exact(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", human(bytes))
}

/// A time as people write it, in seconds.
pub fn seconds(text: &str) -> Result<u64, String> {
    let odd = || format!("{text:?} is no time like 90s, 30m, 1h or 7d");
    let unit = text.chars().last().ok_or_else(odd)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(odd()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| odd())?;
    count.checked_mul(each).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (text, is) in [("90s", 90), ("30m", 1_800), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(is));
        }
        for odd in [
            "",
            "1",
            "h",
            "1 h",
            "-1h",
            "1w",
            "1é",
            "99999999999999999999d",
        ] {
            assert!(seconds(odd).is_err(), "{odd}");
        }
    }
}
