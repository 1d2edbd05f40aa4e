//! `docs/conformance.md`: what was found, side by side.

use crate::Finding;
use crate::cases::{Kind, Note, Section};
use std::path::PathBuf;
use warren_testkit::project_folder;

const INTRODUCTION: &str = "\
# Conformance

What a client sees of RabbitMQ 3.10 without Warren, and what it sees through Warren, for each method and for each input
that would do harm. `cargo test -p warren-testkit --test conformance` tries it all and holds this page against what it
found; `make docs` writes the page anew. Where nothing else is said, each input is sent by three clients: one with a
fresh channel, one whose channel has published, and one whose channel consumes and holds a delivery; a line stands for
all of them when they saw the same. Behind each input comes a barrier (`channel.flow`), so \"nothing\" means that the
channel went on working. After a channel.close, the channel is opened again.

The numbers behind a close are the class and the method that it names.

";

/// Where RabbitMQ says nothing, Warren says something: explained once.
const WITHOUT_A_WORD: &str = "RabbitMQ closes the socket without a word; Warren says why: 501 when it is not a frame or a \
                              method frame without a method, 502 when the fields of a method cannot be read, 503 when \
                              there is no such method";

/// How the socket's end is described.
const SILENT: &str = "the socket is closed without a word";

/// Fails when the page does not say what was found or a difference is not explained; writes it when
/// `WARREN_TEST_WRITE` is set.
pub(crate) fn check(sections: &[(&Section, Vec<Finding>)]) {
    let (path, page) = (path(), page(sections));
    if std::env::var_os("WARREN_TEST_WRITE").is_some() {
        std::fs::write(&path, &page).expect("our own page");
    }
    let surprises: Vec<String> = sections.iter().flat_map(|(_, f)| f).filter_map(surprise).collect();
    assert!(surprises.is_empty(), "not as it is explained:\n{}", surprises.join("\n"));
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == committed,
        "docs/conformance.md does not say what was found; `make docs` writes it anew. It would be:\n{page}"
    );
}

/// A difference without an explanation, or an explanation without a difference.
fn surprise(finding: &Finding) -> Option<String> {
    let same = finding.direct == finding.warren;
    let wrong = match finding.case.note {
        Note::Same => !same && !is_told(finding),
        Note::Differs(_) => same,
        Note::MayDiffer(_) => false,
    };
    let Finding { case, kind, direct, warren } = finding;
    wrong.then(|| format!("{} ({kind:?})\n   direct: {direct}\n   warren: {warren}", case.name))
}

/// Whether Warren says 501, 502 or 503 where RabbitMQ says nothing.
fn is_told(finding: &Finding) -> bool {
    let told = ["501", "502", "503"]
        .iter()
        .any(|code| finding.warren.starts_with(&format!("connection.close {code} ")));
    finding.direct == SILENT && told
}

fn path() -> PathBuf {
    project_folder().join("docs/conformance.md")
}

fn page(sections: &[(&Section, Vec<Finding>)]) -> String {
    let mut notes = Notes::default();
    let mut page = INTRODUCTION.to_owned();
    for (section, findings) in sections {
        page.push_str(&format!("## {}\n\n{}\n\n", section.title, section.introduction));
        page.push_str("| the client sends | without Warren | through Warren |\n|---|---|---|\n");
        for case in section.cases {
            let of_case: Vec<&Finding> = findings.iter().filter(|f| std::ptr::eq(f.case, case)).collect();
            page.push_str(&lines(&of_case, &mut notes));
        }
        page.push('\n');
    }
    for (n, note) in notes.0.iter().enumerate() {
        page.push_str(&format!("[^{}]: {note}.\n", n + 1));
    }
    page
}

/// One line when all clients saw the same, else one for each.
fn lines(findings: &[&Finding], notes: &mut Notes) -> String {
    let outcome = |f: &Finding| (f.direct.clone(), f.warren.clone());
    let alike = findings.iter().all(|f| outcome(f) == outcome(findings[0]));
    let shown = if alike { &findings[..1] } else { findings };
    let mut lines = String::new();
    for finding in shown {
        let who = match finding.kind {
            Kind::Published if !alike => ", published before",
            Kind::Consumes if !alike => ", consuming",
            _ => "",
        };
        let (name, direct) = (finding.case.name, cell(&finding.direct));
        let warren = through_warren(finding, notes);
        lines.push_str(&format!("| {name}{who} | {direct} | {warren} |\n"));
    }
    lines
}

fn through_warren(finding: &Finding, notes: &mut Notes) -> String {
    if finding.direct == finding.warren {
        return "same".to_owned();
    }
    let why = match finding.case.note {
        Note::Differs(why) | Note::MayDiffer(why) => why,
        Note::Same => WITHOUT_A_WORD,
    };
    format!("{} {}", cell(&finding.warren), notes.mark(why))
}

/// What a table in Markdown cannot hold as it is.
fn cell(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    plain.replace('|', "\\|").replace('<', "&lt;").replace('*', "\\*")
}

/// Footnotes, each text once.
#[derive(Default)]
struct Notes(Vec<&'static str>);

impl Notes {
    fn mark(&mut self, note: &'static str) -> String {
        let known = self.0.iter().position(|n| *n == note);
        let n = known.unwrap_or_else(|| {
            self.0.push(note);
            self.0.len() - 1
        });
        format!("[^{}]", n + 1)
    }
}
