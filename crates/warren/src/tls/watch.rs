//! Files that are read again when they change. What they say is swapped as a whole; who uses the old keeps it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// How to make something of files. The error is a text for people.
type Make<T> = Box<dyn Fn() -> Result<Made<T>, String> + Send + Sync>;

/// What came of files.
pub(super) struct Made<T> {
    pub(super) value: T,
    /// What is wrong with it although it can be used: such as a certificate that has expired.
    pub(super) warning: Option<String>,
}

/// Something made of files: the newest that was good.
pub(super) struct Watched<T> {
    what: String,
    files: Vec<PathBuf>,
    make: Make<T>,
    now: ArcSwap<T>,
    warning: Option<String>,
    seen: Mutex<Seen>,
}

/// What the files looked like.
struct Seen {
    /// When they were read.
    read: Vec<Option<Stamp>>,
    /// When they were last looked at.
    last: Vec<Option<Stamp>>,
}

/// When one of these differs, a file may say something else.
#[derive(Clone, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    size: u64,
    inode: (u64, u64),
}

impl<T: Send + Sync> Watched<T> {
    /// Reads the files. `what` names it in the log.
    pub(super) fn new(what: String, files: Vec<PathBuf>, make: Make<T>) -> Result<Watched<T>, String> {
        // Looked at before they are read: what changes meanwhile is read again.
        let read = stamps(&files);
        let Made { value, warning } = make()?;
        let seen = Mutex::new(Seen { last: read.clone(), read });
        Ok(Watched { what, files, make, now: ArcSwap::from_pointee(value), warning, seen })
    }

    /// What holds now.
    pub(super) fn get(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// What was wrong at the start.
    pub(super) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// Something that can be asked to look at its files.
pub(crate) trait Watch: Send + Sync {
    /// Reads the files again if they have changed and, unless `at_once`, were left alone since the last look: a certificate
    /// and its key are seldom written in the same moment.
    fn look(&self, at_once: bool);
}

impl<T: Send + Sync> Watch for Watched<T> {
    fn look(&self, at_once: bool) {
        let stamps = stamps(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = seen.last == stamps || at_once;
        seen.last.clone_from(&stamps);
        if !quiet || seen.read == stamps {
            return;
        }
        seen.read = stamps;
        let what = &self.what;
        match (self.make)() {
            Ok(Made { value, warning: None }) => {
                self.now.store(Arc::new(value));
                tracing::info!(
                    "{what}: the files of TLS have changed; what they say holds for new connections"
                );
            }
            Ok(Made { warning: Some(problem), .. }) | Err(problem) => {
                tracing::error!(
                    "{what}: the files of TLS have changed, but the old ones stay in force: {problem}"
                );
            }
        }
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| stamp(file)).collect()
}

fn stamp(file: &Path) -> Option<Stamp> {
    let of = |data: Metadata| Stamp {
        modified: (data.mtime(), data.mtime_nsec()),
        size: data.size(),
        inode: (data.dev(), data.ino()),
    };
    std::fs::metadata(file).ok().map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_bad_does_not_replace_what_is_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("number");
        std::fs::write(&file, "1").expect("an own folder");
        let read = file.clone();
        let make = move || {
            let text = std::fs::read_to_string(&read).map_err(|error| error.to_string())?;
            let value = text.parse::<u32>().map_err(|error| error.to_string())?;
            Ok(Made { value, warning: (value == 13).then(|| "unlucky".to_owned()) })
        };
        let watched = Watched::new("test".into(), vec![file.clone()], Box::new(make)).expect("good");
        let after = |text: &str| {
            std::fs::write(&file, text).expect("an own folder");
            watched.look(false);
            watched.look(false);
            *watched.get()
        };
        assert_eq!(*watched.get(), 1);
        assert_eq!(after("22"), 22);
        assert_eq!(after("many"), 22, "what cannot be read");
        assert_eq!(after("13"), 22, "what has a fault");
        std::fs::remove_file(&file).expect("it is there");
        watched.look(true);
        assert_eq!(*watched.get(), 22, "a file that is gone");
        std::fs::write(&file, "333").expect("an own folder");
        watched.look(false);
        assert_eq!(*watched.get(), 22, "it may be half of it");
        watched.look(false);
        assert_eq!(*watched.get(), 333);
    }
}
