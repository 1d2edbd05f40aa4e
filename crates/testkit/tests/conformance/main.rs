//! What a client sees with Warren and without it: each method, and each input that would do harm.
//!
//! A test program of its own, since it changes a limit of its node. What it finds is `docs/conformance.md`.

mod canaries;
mod cases;
mod contents;
mod crossing;
mod exclusive;
mod features;
mod framing;
mod handshakes;
mod methods;
mod page;
mod refusals;
mod seen;
mod states;

use cases::{Case, Kind, Section, Stage};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use warren_testkit::{Through, Way, rabbit, unique};

static SECTIONS: [Section; 7] = [
    framing::SECTION,
    methods::SECTION,
    contents::SECTION,
    refusals::SECTION,
    states::SECTION,
    handshakes::SECTION,
    features::SECTION,
];

/// Cases that one thread tries one after the other.
const CASES_IN_A_ROW: usize = 4;

/// What came of a case, for one kind of client.
pub(crate) struct Finding {
    pub(crate) case: &'static Case,
    pub(crate) kind: Kind,
    pub(crate) direct: String,
    pub(crate) warren: String,
}

/// Whether the cases of a section may cost the connection that they come on.
fn costs_the_connection(section: &Section) -> bool {
    section.title == states::SECTION.title
}

/// What each client saw: for each section its cases, for each case its clients. A few cases at a time go their way
/// together, since for some of them the broker takes seconds to say nothing.
fn outcomes(through: Through) -> Vec<Vec<String>> {
    let way = &Way::new(through, &[]);
    std::thread::scope(|scope| {
        let begin = |section: &'static Section| {
            let some = section.cases.chunks(CASES_IN_A_ROW);
            some.map(|cases| scope.spawn(|| section_outcomes(way, section, cases))).collect::<Vec<_>>()
        };
        let sections: Vec<_> = SECTIONS.iter().map(begin).collect();
        let end = |thread: ScopedJoinHandle<'_, Vec<String>>| thread.join().expect("a case that ends");
        sections.into_iter().map(|threads| threads.into_iter().flat_map(end).collect()).collect()
    })
}

fn section_outcomes(way: &Way, section: &Section, cases: &[Case]) -> Vec<String> {
    let mut seen = Vec::new();
    for case in cases {
        let own = costs_the_connection(section).then(|| unique("state"));
        if let Some(vhost) = &own {
            way.rabbit.add_vhost(vhost);
        }
        for kind in case.kinds {
            let vhost = own.as_ref().unwrap_or(&way.vhost);
            let mut stage = Stage::on(way.address(), vhost.clone(), *kind);
            (case.act)(&mut stage);
            seen.push(stage.outcome(case.answers));
        }
        if let Some(vhost) = &own {
            way.rabbit.delete_vhost(vhost);
        }
    }
    seen
}

/// One test at a time: one measures, the others have much to do.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The largest message that the node takes, so that a larger one is no burden.
fn lower_message_size() {
    rabbit::shared().eval("application:set_env(rabbit, max_message_size, 2000000).");
}

#[test]
fn clients_see_the_same_with_warren_and_without_it() {
    let _alone = alone();
    lower_message_size();
    let (direct, warren) = std::thread::scope(|scope| {
        let direct = scope.spawn(|| outcomes(Through::Nothing));
        let warren = outcomes(Through::Warren);
        (direct.join().expect("the run without Warren"), warren)
    });
    let mut sections = Vec::new();
    for (section, (direct, warren)) in SECTIONS.iter().zip(direct.into_iter().zip(warren)) {
        let tried = section.cases.iter().flat_map(|case| case.kinds.iter().map(move |kind| (case, *kind)));
        let seen = direct.into_iter().zip(warren);
        let findings =
            tried.zip(seen).map(|((case, kind), (direct, warren))| Finding { case, kind, direct, warren });
        sections.push((section, findings.collect()));
    }
    page::check(&sections);
}
