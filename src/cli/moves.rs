//! What a drain would move, for people.

use super::output::table;
use crate::api::model::Moves;
use crate::api::size::human;

/// How many volumes are named.
const NAMES_MAX: usize = 5;

/// What is said to `disk drain --dry-run` and `node drain --dry-run`.
pub(super) fn for_people(moves: &Moves) -> String {
    let about = |bytes: Option<u64>| bytes.map_or_else(|| "not known".to_owned(), human);
    let mut text = match moves.copies {
        0 => "nothing would move".to_owned(),
        copies => format!(
            "{copies} copies of placement groups would move, with about {}",
            match moves.bytes {
                Some(bytes) => human(bytes),
                None => "as many bytes as nobody says now: a node does not answer, or is of an older version".into(),
            }
        ),
    };
    if moves.staying > 0 {
        text += &format!("; {} would end without being made elsewhere", moves.staying);
    }
    let short = moves.to.iter().filter(|to| to.has_room == Some(false));
    let short: Vec<String> = short
        .map(|to| format!("disk {} of node {}", to.disk, to.node))
        .collect();
    if !short.is_empty() {
        text += &format!("\nNOT ENOUGH ROOM at {}: add disks first", short.join(", "));
    }
    if !moves.volumes_lacking.is_empty() {
        let (some, rest) = moves
            .volumes_lacking
            .split_at(moves.volumes_lacking.len().min(NAMES_MAX));
        let more = match rest.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        text += &format!(
            "\ncopies are lacking now of {}{more}: these are made first",
            some.join(", ")
        );
    }
    if moves.to.is_empty() {
        return text;
    }
    let rows = moves.to.iter().map(|to| {
        [
            to.disk.to_string(),
            to.node.clone(),
            to.copies.to_string(),
            about(to.bytes),
            about(to.free_bytes),
        ]
    });
    let rows = table(["TO DISK", "NODE", "COPIES", "ABOUT", "FREE"], rows);
    format!("{text}\n\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::MoveTo;

    #[test]
    fn a_dry_run_says_how_much_goes_where_and_where_there_is_no_room() {
        let to = |disk, copies, bytes, free_bytes| MoveTo {
            disk,
            node: format!("n{disk}"),
            copies,
            bytes,
            free_bytes,
            has_room: bytes
                .zip(free_bytes)
                .map(|(bytes, free): (u64, u64)| bytes <= free),
        };
        let moves = Moves {
            copies: 3,
            bytes: Some(3 << 30),
            staying: 0,
            to: vec![
                to(2, 2, Some(2 << 30), Some(1 << 30)),
                to(3, 1, Some(1 << 30), None),
            ],
            volumes_lacking: Vec::new(),
        };
        let text = for_people(&moves);
        for words in [
            "3 copies of placement groups would move, with about 3 GiB",
            "NOT ENOUGH ROOM at disk 2 of node n2: add disks first",
            "not known",
        ] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
    }
}
