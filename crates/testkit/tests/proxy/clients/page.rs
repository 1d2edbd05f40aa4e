//! `docs/clients.md`: what was found, as a table for people.

use super::{Subject, Went};
use std::path::PathBuf;
use warren_testkit::project_folder;

const INTRODUCTION: &str = "\
# Clients

These clients are tested: each does the same without Warren and through it, against the same RabbitMQ, and what it
reports must be the same. `cargo test -p warren-testkit --test proxy clients::` does it and holds this page against what
it found; `make docs` writes the page anew. What each step is in detail stands in `tests/clients/README.md`.

";

/// What stands over a column, and what it means.
const CASES: [(&str, &str); 13] = [
    ("connect", "logs in, opens a channel, and reads the name of the broker from its properties"),
    (
        "declare",
        "a durable queue, one named by the server, one that is exclusive and closed to another connection, an exchange, \
         a binding",
    ),
    ("publish", "1,000 persistent messages with a header each, all confirmed"),
    ("consume", "the same messages in order, with prefetch and acks"),
    ("get", "a message from a queue, and then from the empty queue"),
    ("return", "a mandatory message that no queue takes comes back"),
    ("large", "a message of 10 MiB there and back, unharmed"),
    ("close", "queue and exchange deleted, channel and connection closed"),
    ("channels", "20 channels at once on one connection, each with a consumer and a publish"),
    ("busy", "heartbeats of 2 s, and 10 s of publishing without a pause and without confirms"),
    ("idle", "heartbeats of 2 s, and 10 s of nothing"),
    ("wrong password", "the client reports the same error"),
    ("missing vhost", "the client reports the same error"),
];

/// Where a client comes from.
enum Source {
    Pip(&'static str),
    Npm(&'static str),
    Cargo(&'static str),
    /// The version is the distribution's, and not shown: the page would differ from one to the next.
    Distribution(&'static str),
}

fn source(name: &str) -> (&'static str, Source) {
    match name {
        "pika" => ("Python", Source::Pip("pika")),
        "aio-pika" => ("Python", Source::Pip("aio-pika")),
        "kombu" => ("Python", Source::Pip("kombu")),
        "Celery" => ("Python", Source::Pip("celery")),
        "amqplib" => ("Node", Source::Npm("amqplib")),
        "@cloudamqp/amqp-client" => ("Node", Source::Npm("@cloudamqp/amqp-client")),
        "php-amqplib" => ("PHP", Source::Distribution("php-amqplib")),
        "php-amqp" => ("PHP, an extension in C", Source::Distribution("php-amqp")),
        "amqp-tools" => ("C, command line", Source::Distribution("amqp-tools")),
        "lapin" => ("Rust", Source::Cargo("lapin")),
        "amqprs" => ("Rust", Source::Cargo("amqprs")),
        other => panic!("where does {other} come from?"),
    }
}

impl Source {
    fn version(&self) -> String {
        match self {
            Source::Pip(package) => pinned("tests/clients/requirements.txt", &format!("\n{package}=="), "\n"),
            Source::Npm(package) => pinned("tests/clients/package.json", &format!("\"{package}\": \""), "\""),
            Source::Cargo(package) => {
                pinned("Cargo.lock", &format!("name = \"{package}\"\nversion = \""), "\"")
            }
            Source::Distribution(package) => format!("Debian's `{package}`"),
        }
    }
}

/// What stands between two texts of a file of the project.
fn pinned(file: &str, before: &str, after: &str) -> String {
    let text = std::fs::read_to_string(project_folder().join(file)).expect("a file of the project");
    let rest = text.split_once(before).map(|(_, rest)| rest);
    let version = rest.and_then(|rest| rest.split(after).next());
    version.unwrap_or_else(|| panic!("{file} does not say {before:?}")).to_owned()
}

/// Fails when the page does not say what was found; writes it when `WARREN_TEST_WRITE` is set.
pub(super) fn check(subjects: &[&Subject]) {
    let (path, page) = (path(), page(subjects));
    if std::env::var_os("WARREN_TEST_WRITE").is_some() {
        std::fs::write(&path, page).expect("our own page");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == committed,
        "docs/clients.md does not say what was found; `make docs` writes it anew. It would be:\n{page}"
    );
}

fn path() -> PathBuf {
    project_folder().join("docs/clients.md")
}

fn page(subjects: &[&Subject]) -> String {
    let mut notes = Notes::default();
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| case | what the client does |\n|---|---|\n");
    for (name, meaning) in CASES {
        page.push_str(&format!("| {name} | {meaning} |\n"));
    }
    page.push_str("\n\"Same\" means: as without Warren, and as it should be. A dash: it does not apply.\n\n");
    let columns: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    page.push_str(&format!("| client | {} |\n", columns.join(" | ")));
    page.push_str(&format!("|---|{}\n", "---|".repeat(columns.len())));
    for subject in subjects {
        page.push_str(&format!("| {} |{}\n", subject.name, cells(subject, &columns, &mut notes)));
    }
    page.push_str("\n| client | language | version |\n|---|---|---|\n");
    for subject in subjects {
        let (language, source) = source(subject.name);
        page.push_str(&format!("| {} | {language} | {} |\n", subject.name, source.version()));
    }
    page.push('\n');
    for (n, note) in notes.0.iter().enumerate() {
        page.push_str(&format!("[^{}]: {note}\n", n + 1));
    }
    page
}

fn cells(subject: &Subject, columns: &[&str], notes: &mut Notes) -> String {
    let findings = subject.findings();
    let steps: Vec<&str> = findings.iter().map(|finding| finding.step).collect();
    assert_eq!(steps, columns, "the page has a column for each step");
    let cell = |went: &Went| match went {
        Went::Same(None) => " same |".to_owned(),
        Went::Same(Some(note)) => format!(" same {} |", notes.mark(note)),
        Went::Differs(why) => format!(" differs {} |", notes.mark(why)),
        Went::NotApplicable(reason) => format!(" – {} |", notes.mark(reason)),
    };
    findings.iter().map(|finding| &finding.went).map(cell).collect()
}

/// Footnotes, each text once.
#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn mark(&mut self, note: &str) -> String {
        let known = self.0.iter().position(|n| n == note);
        let n = known.unwrap_or_else(|| {
            self.0.push(note.to_owned());
            self.0.len() - 1
        });
        format!("[^{}]", n + 1)
    }
}
