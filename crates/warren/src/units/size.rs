//! Sizes of memory, as people write them.

/// Units, the largest first: what is said in words is said in the largest that gives a whole number.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

/// A whole number and a unit, in any case, with or without a space between them. Without a unit it is octets.
pub(crate) fn read(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// The other way round.
pub(crate) fn in_words(octets: u64) -> String {
    let unit = UNITS.iter().find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&("B", 1));
    format!("{} {name}", octets / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_and_powers_of_two_are_told_apart() {
        for (text, octets) in [
            ("0", 0),
            ("268435456", 256 << 20),
            ("256MiB", 256 << 20),
            ("256 mib", 256 << 20),
            ("1GB", 1_000_000_000),
            ("3kB", 3000),
            ("3KiB", 3072),
            ("2TiB", 2 << 40),
            ("7B", 7),
        ] {
            assert_eq!(read(text), Some(octets), "{text}");
        }
        for text in ["", "MiB", "-1", "+1", "1.5GB", "1M", "1 G B", "1MiB ", "99999999999TiB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_in_words_can_be_read_again() {
        for (octets, words) in [
            (256 << 20, "256 MiB"),
            (1_000_000_000, "1 GB"),
            (1_234_567, "1234567 B"),
            (3 << 30, "3 GiB"),
            (0, "0 B"),
        ] {
            assert_eq!(in_words(octets), words);
            assert_eq!(read(words), Some(octets));
        }
    }
}
