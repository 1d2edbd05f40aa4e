//! The program as an operator meets it: ports, HTTP, signals. No broker is needed here. What can be set is in
//! `options.rs`.

mod support;

use std::io::Read;
use std::net::TcpStream;

use rustix::process::Signal;

use support::{NO_BROKER, Running, refused};

#[test]
fn a_port_in_use_ends_it_with_status_1() {
    let running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 {NO_BROKER}"));
    let port = running.clients[0].rsplit_once(':').expect("address").1;
    let output = refused(&format!("-l 127.0.0.1 -p {port} -b 0 {NO_BROKER}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).expect("text").contains(&format!("127.0.0.1:{port}")));
}

#[test]
fn ports_open_without_a_broker() {
    let running = Running::start(&format!("-p 0 -b 0 --workers 2 {NO_BROKER}"));
    for address in running.clients.iter().chain(&running.http) {
        TcpStream::connect(address).expect(address);
    }
}

#[test]
fn health_and_metrics_are_served() {
    let running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 --workers 2 {NO_BROKER}"));
    let health = running.get("/healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\r\n\r\nok"), "{health}");
    let metrics = running.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\nwarren_client_connections 0\n"), "{metrics}");
    assert!(metrics.contains("\nwarren_published_messages_total 0\n"), "{metrics}");
    assert!(running.get("/nothing").starts_with("HTTP/1.1 404"));
}

#[test]
fn term_and_int_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 --workers 3 {NO_BROKER}"));
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(0));
        TcpStream::connect(&running.clients[0]).expect_err("nobody listens any more");
        let mut log = String::new();
        running.log.read_to_string(&mut log).expect("readable");
        assert!(log.contains("everything is closed"), "{log}");
    }
}
