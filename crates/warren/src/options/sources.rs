//! Where a setting can be said: on the command line, in the environment, in a file. The first of these that says it
//! counts.

use std::ffi::OsString;
use std::fmt;

use super::ini::Ini;

/// The names of one setting. An empty name, or none, means that this source does not know it.
pub(super) struct Setting {
    /// Name on the command line, as a person writes it.
    pub(super) option: &'static str,
    /// Environment variable.
    pub(super) variable: &'static str,
    /// Sections and keys of the file; all of them mean the same.
    pub(super) keys: &'static [(&'static str, &'static str)],
}

/// Something that was said, and where.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) place: String,
}

/// A setting that cannot be used: where it was said, and what is allowed there.
#[derive(Debug, PartialEq)]
pub(crate) struct Invalid {
    pub(super) place: String,
    pub(super) problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl Invalid {
    pub(super) fn new(place: impl Into<String>, problem: impl Into<String>) -> Invalid {
        Invalid { place: place.into(), problem: problem.into() }
    }
}

/// A place on the command line, for people.
pub(super) fn on_command_line(option: &str) -> String {
    format!("{option} (command line)")
}

/// Everything that was said.
pub(super) struct Sources<'a> {
    /// Finds an option by its name.
    pub(super) options: &'a dyn Fn(&str) -> Option<String>,
    /// Finds an environment variable.
    pub(super) variables: &'a dyn Fn(&str) -> Option<OsString>,
    pub(super) file: Option<Ini>,
}

impl Sources<'_> {
    /// What the setting is, as `read` understands it; `None` when nobody says it.
    ///
    /// A file is a whole: what it says is checked even when another source overrides it. The environment is not:
    /// variables of these names may be there for other reasons.
    pub(super) fn find<T>(
        &self,
        setting: &Setting,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Invalid> {
        let read = |given: Given| read(&given.text).map_err(|problem| Invalid::new(given.place, problem));
        let in_file = self.in_file(setting)?.map(read).transpose()?;
        match self.on_command_line(setting).or(self.in_environment(setting)?) {
            Some(given) => read(given).map(Some),
            None => Ok(in_file),
        }
    }

    fn on_command_line(&self, setting: &Setting) -> Option<Given> {
        let text = (self.options)(setting.option)?;
        Some(Given { text, place: on_command_line(setting.option) })
    }

    /// An empty variable counts as one that is not set.
    fn in_environment(&self, setting: &Setting) -> Result<Option<Given>, Invalid> {
        let value = Some(setting.variable).filter(|name| !name.is_empty()).and_then(self.variables);
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let place = format!("{} (environment)", setting.variable);
        match value.into_string() {
            Ok(text) => Ok(Some(Given { text, place })),
            Err(_) => Err(Invalid::new(place, "the value is not UTF-8 text")),
        }
    }

    fn in_file(&self, setting: &Setting) -> Result<Option<Given>, Invalid> {
        match &self.file {
            Some(file) => file.find(setting.keys),
            None => Ok(None),
        }
    }
}
