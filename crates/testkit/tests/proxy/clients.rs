//! The four clients do the same job without and with Warren, and must see the same.

use crate::lapin_client;
use serde_json::{Value, json};
use std::net::SocketAddr;
use warren_testkit::both_ways;
use warren_testkit::clients::{self, Client};

#[test]
fn pika_works_through_warren_as_without_it() {
    compare(|address, vhost| clients::run(Client::Pika, address, vhost));
}

#[test]
fn amqplib_works_through_warren_as_without_it() {
    compare(|address, vhost| clients::run(Client::Amqplib, address, vhost));
}

#[test]
fn php_amqplib_works_through_warren_as_without_it() {
    compare(|address, vhost| clients::run(Client::PhpAmqplib, address, vhost));
}

#[test]
fn lapin_works_through_warren_as_without_it() {
    compare(lapin_client::run);
}

/// Runs a client both ways. What each step must report is known, so that a job that does nothing is found too.
fn compare(run: impl Fn(SocketAddr, &str) -> Vec<Value>) {
    let expected = expected();
    both_ways(|way| {
        let report = run(way.address(), &way.vhost);
        assert_eq!(report.len(), expected.len(), "{report:?}");
        for (step, expected) in report.iter().zip(&expected) {
            assert_eq!(step, expected, "through {:?}", way.through);
        }
        let left: Vec<String> = way.rabbit.queues(&way.vhost).into_iter().map(|q| q.name).collect();
        assert_eq!(left.len(), 1, "only the server-named queue outlives the client: {left:?}");
    });
}

fn expected() -> Vec<Value> {
    vec![
        json!({"step": "connect", "product": "RabbitMQ"}),
        json!({"step": "declare", "durable": "durable", "exclusive": "exclusive", "generated": true, "locked": 405}),
        json!({"step": "publish", "confirmed": 1000, "nacked": 0}),
        json!({"step": "consume", "received": 1000, "in_order": true, "redelivered": 0, "left": 0}),
        json!({"step": "get", "body": "got", "count": 0, "empty": true}),
        json!({
            "step": "return", "code": 312, "text": "NO_ROUTE", "exchange": "", "key": "nowhere", "body": "lost"
        }),
        json!({"step": "large", "size": 10 * 1024 * 1024, "sha256": LARGE_SHA256}),
        json!({"step": "close", "clean": true}),
    ]
}

/// Of 10 MiB in which octet i is i modulo 251 (`tests/clients/README.md`).
pub(crate) const LARGE_SHA256: &str = "44f9296993796e201208c6c245b9515d36b62c87d0be4459ff347bfa054cd527";
