//! Sizes as people write them. Units are binary: `10G` is 10 GiB, as in lsblk, QEMU and LVM. `10GB` could mean
//! either, so it is refused rather than guessed.

const UNITS: [&str; 6] = ["", "K", "M", "G", "T", "P"];

/// The bytes that `text` means: digits, perhaps a fraction, perhaps a unit (K M G T P, or KiB and so on).
pub fn parse(text: &str) -> Result<u64, String> {
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let upper = unit.to_ascii_uppercase();
    let name = match upper.strip_suffix("IB") {
        Some(name) => name,
        None if upper.len() == 2 && upper.ends_with('B') => {
            let binary = &upper[..1];
            return Err(format!(
                "{unit} could mean 1000 or 1024: write {binary} or {binary}iB"
            ));
        }
        None if upper == "B" => "",
        None => &upper,
    };
    let power = UNITS.iter().position(|known| *known == name);
    let power = power.ok_or_else(|| format!("{unit:?} is no unit: use K, M, G, T or P"))?;
    scale(number, 10 * power as u32)
        .ok_or_else(|| format!("{text:?} is no size: write it like 512M, 10G or 1.5T"))
}

/// `number`, with at most nine digits behind the point, times two to the `shift`.
fn scale(number: &str, shift: u32) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
    let ends_in_point = number.ends_with('.');
    if whole.is_empty()
        || ends_in_point
        || fraction.len() > 9
        || !digits(whole)
        || !digits(fraction)
    {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) << shift;
    let part = match fraction {
        "" => 0,
        fraction => {
            let scaled = u128::from(fraction.parse::<u64>().ok()?) << shift;
            scaled / 10u128.pow(fraction.len() as u32)
        }
    };
    u64::try_from(whole + part).ok()
}

/// A size for people: at most one digit behind the point.
pub fn human(bytes: u64) -> String {
    let mut power = 0;
    while power + 1 < UNITS.len() && bytes >> (10 * (power + 1)) > 0 {
        power += 1;
    }
    let unit = match power {
        0 => return format!("{bytes} B"),
        power => format!("{}iB", UNITS[power]),
    };
    // In tenths, rounded down: a size never looks larger than it is.
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("4k", 4096),
            ("512M", 512 << 20),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("1.5T", 3 << 39),
            ("16P", 16 << 50),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_could_be_two_is_refused() {
        let odd = [
            "",
            "G",
            "-1",
            "1 G",
            "1.G",
            ".5G",
            "1..5G",
            "10GB",
            "10kb",
            "1X",
            "17179869184G",
            "99999999999999999999",
            "1.0000000001G",
            "1e3",
            "10Gi",
            "\u{e4}",
        ];
        for text in odd {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("10GB").unwrap_err().contains("GiB"));
    }

    #[test]
    fn a_size_for_people_is_short_and_never_too_large() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((10 << 30) - 1, "9.9 GiB"),
            (16 << 50, "16 PiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
