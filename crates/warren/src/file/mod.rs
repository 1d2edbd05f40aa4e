//! The configuration as a TOML file: [`model`] is what may be said, with [`values`] of its own; [`resolve`] checks it as a
//! whole and makes a [`Setup`] of it, or tells all that is wrong ([`problem`]).

mod model;
mod problem;
#[cfg(test)]
mod reference;
mod resolve;
pub(crate) mod schema;
mod values;

use std::path::Path;

pub(crate) use model::Model;
pub(crate) use problem::Problems;
use problem::{Problem, instead};

use crate::setup::Setup;

/// Reads and checks a file, and the files that it names.
pub(crate) fn load(path: &Path) -> Result<Setup, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| Problems::unreadable(path, &error))?;
    read(path, &text)
}

/// Checks the text of a file. Other files are looked for in its folder.
fn read(path: &Path, text: &str) -> Result<Setup, Problems> {
    let told = |problems| Problems::new(path, text, problems);
    let model: Model = toml::from_str(text).map_err(|error| told(vec![understand(&error)]))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    resolve::resolve(&model, folder).map_err(told)
}

/// What is wrong with the form of a file, for people.
fn understand(error: &toml::de::Error) -> Problem {
    let message = error.message().trim_end().replace('\n', " ");
    Problem { place: error.span(), text: propose(&message).unwrap_or(message) }
}

/// Of an unknown key or word, serde lists all that are known; the one that was probably meant is more use.
fn propose(message: &str) -> Option<String> {
    let (what, known) = message.split_once(", expected ")?;
    let said = what.strip_prefix("unknown field ").or_else(|| what.strip_prefix("unknown variant "))?;
    let names = known.split('`').skip(1).step_by(2);
    let kind = if what.starts_with("unknown field") { "is no key here" } else { "is not known here" };
    Some(format!("{said} {kind}; {}", instead(said.trim_matches('`'), names)))
}

#[cfg(test)]
mod tests;
