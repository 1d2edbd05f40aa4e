//! Eleven clients do the same without and with Warren, and must see the same. `docs/clients.md` is what came out.
//!
//! The cases are in `tests/clients/README.md`. All cases of a client run at the same time, both ways.

mod amqprs;
mod lapin;
mod page;

use serde_json::{Map, Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::time::Duration;
use warren_testkit::clients::{self, Case, Client, Login};
use warren_testkit::{Through, Way, both_ways_are_chosen, eventually, ways};

const MESSAGES: usize = 1000;
const CHANNELS: usize = 20;
/// Seconds.
const HEARTBEAT: u16 = 2;
const HEARTBEATS_FOR: Duration = Duration::from_secs(10);
/// A busy publisher sends so many messages and then pauses.
const BURST: usize = 5;
const PAUSE: Duration = Duration::from_millis(5);
const PROOF: &[u8] = b"still here";
/// Of 10 MiB in which octet i is i modulo 251.
const LARGE_SHA256: &str = "44f9296993796e201208c6c245b9515d36b62c87d0be4459ff347bfa054cd527";

/// One of the clients, and what was found of it: once per process, whoever asks first.
struct Subject {
    name: &'static str,
    kind: Kind,
    found: OnceLock<Result<Vec<Finding>, String>>,
}

enum Kind {
    Script(Client),
    Rust(fn(Case, &Login) -> Vec<Value>),
}

/// How a step went.
#[derive(Clone, Debug)]
struct Finding {
    step: &'static str,
    went: Went,
}

#[derive(Clone, Debug)]
enum Went {
    /// As it should, but for what the note says the client cannot tell.
    Same(Option<String>),
    /// As it should, yet not quite as without Warren, for this reason.
    Differs(&'static str),
    /// The client cannot do it, for this reason.
    NotApplicable(String),
}

/// A difference that is known and wanted, or not worth its price.
struct Difference {
    client: &'static str,
    step: &'static str,
    /// What the client says without Warren, and through it.
    says: [&'static str; 2],
    why: &'static str,
}

const DIFFERENCES: [Difference; 1] = [Difference {
    client: "amqprs",
    step: "wrong password",
    says: ["Connection reset by peer", "peer shutdown"],
    why: "The client does not announce that it understands a refusal, so it gets none: the connection ends without a word. \
          RabbitMQ resets it and Warren closes it, which the client reports in other words.",
}];

const fn script(name: &'static str, client: Client) -> Subject {
    Subject { name, kind: Kind::Script(client), found: OnceLock::new() }
}

static PIKA: Subject = script("pika", Client::Pika);
static AIO_PIKA: Subject = script("aio-pika", Client::AioPika);
static KOMBU: Subject = script("kombu", Client::Kombu);
static CELERY: Subject = script("Celery", Client::Celery);
static AMQPLIB: Subject = script("amqplib", Client::Amqplib);
static CLOUD_AMQP: Subject = script("@cloudamqp/amqp-client", Client::CloudAmqp);
static PHP_AMQPLIB: Subject = script("php-amqplib", Client::PhpAmqplib);
static PHP_AMQP: Subject = script("php-amqp", Client::PhpAmqp);
static AMQP_TOOLS: Subject = script("amqp-tools", Client::AmqpTools);
static LAPIN: Subject = Subject { name: "lapin", kind: Kind::Rust(lapin::run), found: OnceLock::new() };
static AMQPRS: Subject = Subject { name: "amqprs", kind: Kind::Rust(amqprs::run), found: OnceLock::new() };

/// In the order of the page.
static SUBJECTS: [&Subject; 11] = [
    &PIKA,
    &AIO_PIKA,
    &KOMBU,
    &CELERY,
    &AMQPLIB,
    &CLOUD_AMQP,
    &PHP_AMQPLIB,
    &PHP_AMQP,
    &AMQP_TOOLS,
    &LAPIN,
    &AMQPRS,
];

#[test]
fn pika_works_through_warren_as_without_it() {
    PIKA.findings();
}

#[test]
fn aio_pika_works_through_warren_as_without_it() {
    AIO_PIKA.findings();
}

#[test]
fn kombu_works_through_warren_as_without_it() {
    KOMBU.findings();
}

#[test]
fn celery_works_through_warren_as_without_it() {
    CELERY.findings();
}

#[test]
fn amqplib_works_through_warren_as_without_it() {
    AMQPLIB.findings();
}

#[test]
fn cloudamqp_works_through_warren_as_without_it() {
    CLOUD_AMQP.findings();
}

#[test]
fn php_amqplib_works_through_warren_as_without_it() {
    PHP_AMQPLIB.findings();
}

#[test]
fn php_amqp_works_through_warren_as_without_it() {
    PHP_AMQP.findings();
}

#[test]
fn amqp_tools_work_through_warren_as_without_it() {
    AMQP_TOOLS.findings();
}

#[test]
fn lapin_works_through_warren_as_without_it() {
    LAPIN.findings();
}

#[test]
fn amqprs_works_through_warren_as_without_it() {
    AMQPRS.findings();
}

#[test]
fn clients_work_in_dedicated_mode_as_without_warren() {
    for subject in [&PIKA, &AMQPLIB, &PHP_AMQPLIB, &LAPIN] {
        subject.measure(&[Way::new(Through::Nothing, &[]), super::dedicated::way("")]);
    }
}

#[test]
fn the_page_says_what_was_found() {
    // From the end, since the tests above begin at the beginning: whoever comes first does the work.
    SUBJECTS.iter().rev().for_each(|subject| _ = subject.findings());
    if both_ways_are_chosen() {
        page::check(&SUBJECTS);
    }
}

impl Subject {
    /// What was found; fails when a step did not go as it should.
    fn findings(&self) -> &[Finding] {
        let found = self.found.get_or_init(|| {
            let run = catch_unwind(AssertUnwindSafe(|| self.measure(&ways())));
            run.map_err(|panic| match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => "it panicked without a text".to_owned(),
            })
        });
        found.as_ref().unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    /// Runs all cases both ways, and holds each step against what must come and against the other way.
    fn measure(&self, ways: &[Way]) -> Vec<Finding> {
        let reports: Vec<Vec<Value>> = std::thread::scope(|scope| {
            let runs: Vec<_> = ways.iter().map(|way| scope.spawn(|| self.report(way))).collect();
            runs.into_iter().map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        ways.iter().for_each(check_what_is_left);
        let expected = expected();
        for report in &reports {
            assert_eq!(report.len(), expected.len(), "{}: {report:?}", self.name);
        }
        let judge = |(n, expected): (usize, &Expected)| {
            let steps: Vec<&Value> = reports.iter().map(|report| &report[n]).collect();
            Finding { step: expected.step, went: self.judge(&steps, expected) }
        };
        expected.iter().enumerate().map(judge).collect()
    }

    /// The steps of all cases, in the order of `expected`. What differs by nature is replaced in texts.
    fn report(&self, way: &Way) -> Vec<Value> {
        let login = Login { address: way.address(), vhost: way.vhost.clone(), password: "guest".to_owned() };
        let wrong_password = Login { password: "wrong".to_owned(), ..login.clone() };
        let missing_vhost = Login { vhost: format!("{}-missing", way.vhost), ..login.clone() };
        let cases = [
            (Case::Job, &login, None),
            (Case::Channels, &login, None),
            (Case::Busy, &login, None),
            (Case::Idle, &login, None),
            (Case::Refused, &wrong_password, Some("wrong password")),
            (Case::Refused, &missing_vhost, Some("missing vhost")),
        ];
        let run = |(case, login, name): (Case, &Login, Option<&str>)| {
            let steps = match self.kind {
                Kind::Script(client) => clients::run(client, case, login),
                Kind::Rust(run) => run(case, login),
            };
            assert!(!steps.is_empty(), "{} said nothing at {case:?}", self.name);
            steps.into_iter().map(|step| neutral(&step, way, name)).collect::<Vec<Value>>()
        };
        std::thread::scope(|scope| {
            let runs = cases.map(|case| scope.spawn(move || run(case)));
            runs.into_iter().flat_map(|run| run.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    /// Compares what a step was without and through Warren, and with what it must be.
    fn judge(&self, steps: &[&Value], expected: &Expected) -> Went {
        let went: Vec<Went> = steps.iter().map(|step| self.judge_one(step, expected)).collect();
        if steps.windows(2).all(|pair| pair[0] == pair[1]) {
            return went.into_iter().next().expect("at least one way is gone");
        }
        let known = DIFFERENCES.iter().find(|d| (d.client, d.step) == (self.name, expected.step));
        let as_known =
            |d: &&Difference| steps.iter().zip(d.says).all(|(s, says)| s.to_string().contains(says));
        let difference = known.filter(as_known).unwrap_or_else(|| {
            panic!("{}: not the same without Warren (first) and through it: {steps:#?}", self.name)
        });
        Went::Differs(difference.why)
    }

    fn judge_one(&self, step: &Value, expected: &Expected) -> Went {
        assert_eq!(step["step"], expected.step, "{}: {step}", self.name);
        let text = |key: &str| step[key].as_str().map(str::to_owned);
        if let Some(reason) = text("skipped") {
            return Went::NotApplicable(reason);
        }
        let note = text("note");
        for (key, value) in &expected.fields {
            let untold = step.get(key).is_some_and(Value::is_null) && note.is_some();
            let right = match value {
                // An error's text is the client's own: it must be there, and be the same both ways.
                Value::Null => text(key).is_some_and(|t| !t.is_empty()),
                value => step[key] == *value,
            };
            assert!(right || untold, "{}: {key} should be {value} in {step}", self.name);
        }
        Went::Same(note)
    }
}

/// Each run has its own port and virtual host, and may be asked for the same case under two names.
fn neutral(step: &Value, way: &Way, name: Option<&str>) -> Value {
    let text = step.to_string();
    let text = text.replace(&way.vhost, "VHOST").replace(&way.address().to_string(), "ADDRESS");
    let mut step: Value = serde_json::from_str(&text).expect("nothing was replaced but text");
    if let Some(name) = name {
        step["step"] = json!(name);
    }
    step
}

/// Only the queue that is neither exclusive nor deleted outlives a client.
fn check_what_is_left(way: &Way) {
    let left = || -> Vec<String> {
        let names = way.rabbit.queues(&way.vhost).into_iter().map(|q| q.name);
        names.filter(|name| !name.starts_with("amq")).collect()
    };
    eventually(&format!("no queues to be left: {:?}", left()), Duration::from_secs(60), || left().is_empty());
}

struct Expected {
    step: &'static str,
    fields: Map<String, Value>,
}

fn expected() -> Vec<Expected> {
    let step = |step, fields: Value| {
        let Value::Object(fields) = fields else { panic!("fields have names") };
        Expected { step, fields }
    };
    vec![
        step("connect", json!({"product": "RabbitMQ"})),
        step(
            "declare",
            json!({"durable": "durable", "exclusive": "exclusive", "generated": true, "locked": 405}),
        ),
        step("publish", json!({"confirmed": MESSAGES, "nacked": 0})),
        step("consume", json!({"received": MESSAGES, "in_order": true, "redelivered": 0, "left": 0})),
        step("get", json!({"body": "got", "count": 0, "empty": true})),
        step(
            "return",
            json!({"code": 312, "text": "NO_ROUTE", "exchange": "", "key": "nowhere", "body": "lost"}),
        ),
        step("large", json!({"size": 10 * 1024 * 1024, "sha256": LARGE_SHA256})),
        step("close", json!({"clean": true})),
        step("channels", json!({"open": CHANNELS, "received": CHANNELS, "right": true})),
        step("busy", json!({"alive": true})),
        step("idle", json!({"alive": true})),
        step("wrong password", json!({"error": null})),
        step("missing vhost", json!({"error": null})),
    ]
}

/// Runs what a client in Rust does, on a thread of its own, for at most two minutes.
fn until_done<T>(client: &str, job: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limited = async { tokio::time::timeout(Duration::from_secs(120), job).await };
    runtime.block_on(limited).unwrap_or_else(|_| panic!("{client} does not come to an end"))
}

fn large_body() -> Vec<u8> {
    (0..=250).cycle().take(10 * 1024 * 1024).collect()
}
