//! Lengths of time, as people write them.

use std::time::Duration;

/// Units in milliseconds, the largest first: what is said in words is said in the largest that gives a whole number.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A whole number and a unit, with or without a space between them. Only nothing needs no unit.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.parse::<u64>().ok()?;
    let factor = match unit.trim_start() {
        "" if number == 0 => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

/// The other way round; less than a millisecond is left out.
pub(crate) fn in_words(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unit = UNITS.iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(&("s", 1000));
    format!("{}{name}", millis / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, millis) in [
            ("0", 0),
            ("5s", 5000),
            ("5 s", 5000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(read(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "+1s", "1.5s", "5S", "1s ", "99999999999999999999d"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_said_in_words_can_be_read_again() {
        for (millis, words) in
            [(0, "0s"), (1500, "1500ms"), (60_000, "1m"), (90_000, "90s"), (86_400_000, "1d")]
        {
            let time = Duration::from_millis(millis);
            assert_eq!(in_words(time), words);
            assert_eq!(read(words), Some(time));
        }
    }
}
