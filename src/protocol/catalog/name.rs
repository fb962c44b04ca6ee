//! What may be a name. Names stand in paths, URIs, labels of metrics and device links, so only characters that
//! need no quoting in any of them are taken.

use super::Refusal;

/// The longest name of a volume or node, in bytes (superblocks keep it in a field of this size).
pub const NAME_MAX: usize = 128;

const HINT: &str = "use 1 to 128 of the characters A-Z a-z 0-9 . _ -, and begin with none of - .";

/// Refuses `name` where it is not a name; `what` is the thing that it would name.
pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let bad = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    let reason = if name.is_empty() {
        format!("the name of a {what} cannot be empty")
    } else if name.len() > NAME_MAX {
        format!("the name has {} bytes, of at most {NAME_MAX}", name.len())
    } else if let Some(bad) = bad {
        format!("the name has the character {bad:?}")
    } else if name.starts_with(['-', '.']) {
        format!("the name begins with {:?}", &name[..1])
    } else {
        return Ok(());
    };
    Err(Refusal::invalid("name", reason, HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_taken() {
        for name in ["a", "vm-1.root_disk", "_x", "0", &"n".repeat(NAME_MAX)] {
            assert_eq!(check_name("volume", name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_that_would_need_quoting_is_refused() {
        let long = "n".repeat(NAME_MAX + 1);
        for name in ["", "-a", ".a", "..", "a/b", "a b", "ä", "a\0", "a\n", &long] {
            let refusal = check_name("volume", name).expect_err(name);
            assert_eq!(refusal.field, "name");
            assert!(!refusal.hint.is_empty());
        }
    }
}
