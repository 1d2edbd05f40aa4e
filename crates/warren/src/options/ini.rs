//! The configuration file of amqproxy: sections `[main]` and `[listen]`, keys and values.

use std::path::Path;

use ::ini::{Ini as Parsed, ParseOption};

use super::sources::{Given, Invalid, Setting, on_command_line};

/// Keys without a section belong here.
const MAIN: &str = "main";

/// A file that was read: each entry has a known name.
pub(super) struct Ini {
    /// Section, key, what is said.
    entries: Vec<(String, String, Given)>,
}

impl Ini {
    /// Reads a file. Refused are: one that cannot be read, lines that are no entries, sections and keys that none
    /// of `settings` has.
    pub(super) fn load(path: &Path, settings: &[&Setting]) -> Result<Ini, Invalid> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let problem = format!("cannot read {}: {error}", path.display());
            Invalid::new(on_command_line("--config"), problem)
        })?;
        Ini::parse(&text, &path.display().to_string(), settings)
    }

    fn parse(text: &str, file: &str, settings: &[&Setting]) -> Result<Ini, Invalid> {
        // Neither escapes nor quotes: a value is what stands there, as amqproxy reads it.
        let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
        let parsed = Parsed::load_from_str_opt(text, options)
            .map_err(|error| Invalid::new(file, format!("line {}: {}", error.line, error.msg)))?;
        let mut entries = Vec::new();
        for (section, properties) in &parsed {
            let section = section.unwrap_or(MAIN).trim();
            for (key, value) in properties.iter() {
                let place = format!("[{section}] {key} (file {file})");
                let known: Vec<&str> = keys(settings, section).collect();
                if known.is_empty() {
                    return Err(Invalid::new(place, "unknown section; there are [main] and [listen]"));
                }
                if !known.contains(&key) {
                    let problem = format!("unknown setting; [{section}] has {}", known.join(", "));
                    return Err(Invalid::new(place, problem));
                }
                entries.push((section.to_owned(), key.to_owned(), Given { text: value.to_owned(), place }));
            }
        }
        Ok(Ini { entries })
    }

    /// What the file says under any of these names. Said twice, it must be the same.
    pub(super) fn find(&self, keys: &[(&str, &str)]) -> Result<Option<Given>, Invalid> {
        let wanted = |(section, key, _): &&(String, String, Given)| keys.contains(&(section, key));
        let mut found = self.entries.iter().filter(wanted).map(|(_, _, given)| given);
        let Some(first) = found.next() else {
            return Ok(None);
        };
        match found.find(|other| other.text != first.text) {
            Some(other) => {
                let problem = format!("contradicts {}; say it once", first.place);
                Err(Invalid::new(other.place.clone(), problem))
            }
            None => Ok(Some(first.clone())),
        }
    }
}

fn keys<'a>(settings: &'a [&Setting], section: &'a str) -> impl Iterator<Item = &'a str> {
    let all = settings.iter().flat_map(|setting| setting.keys);
    all.filter(move |(s, _)| *s == section).map(|(_, key)| *key)
}
