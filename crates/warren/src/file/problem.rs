//! What is wrong with a file, and where.

use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Something wrong in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Octets of the file that are meant; `None`: what is missing is nowhere.
    pub(super) place: Option<Range<usize>>,
    /// What is wrong, and what to write instead.
    pub(super) text: String,
}

impl Problem {
    /// At a place.
    pub(super) fn at(place: Range<usize>, text: impl Into<String>) -> Problem {
        Problem { place: Some(place), text: text.into() }
    }

    /// Of the whole file.
    pub(super) fn of_file(text: impl Into<String>) -> Problem {
        Problem { place: None, text: text.into() }
    }
}

/// All that is wrong with a file: one line for each, with the file's name and the line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problems {
    lines: Vec<String>,
}

impl Problems {
    /// In the order of the file.
    pub(super) fn new(file: &Path, text: &str, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by_key(|p| p.place.as_ref().map_or(usize::MAX, |place| place.start));
        let file = file.display();
        let line = |problem: Problem| match problem.place {
            Some(place) => {
                let before = text.get(..place.start).unwrap_or(text);
                format!("{file}:{}: {}", 1 + before.matches('\n').count(), problem.text)
            }
            None => format!("{file}: {}", problem.text),
        };
        Problems { lines: problems.into_iter().map(line).collect() }
    }

    /// A file that cannot be read at all.
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> Problems {
        Problems { lines: vec![format!("{}: cannot be read: {error}", file.display())] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// The name among `known` that was probably meant, or all of them when there are not many: for the end of a sentence.
pub(super) fn instead<'a>(said: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(said, name), name)).min();
    match near {
        None => "none is defined".to_owned(),
        Some((distance, name)) if distance <= 1 + said.len() / 4 => format!("did you mean {name:?}?"),
        Some(_) => format!("write one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_near_is_proposed() {
        assert_eq!(instead("rabit1", ["rabbit1", "rabbit2"]), "did you mean \"rabbit1\"?");
        assert_eq!(instead("orders", ["a", "b"]), "write one of a, b");
        assert_eq!(instead("orders", []), "none is defined");
    }
}
