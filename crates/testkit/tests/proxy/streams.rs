//! Consumers of streams go on where they were when their connection is lost.

use std::time::Duration;

use warren_testkit::peer::{CONSUME, DECLARE};
use warren_testkit::{Peer, Through, Way, eventually, unique};
use warren_wire::Table;
use warren_wire::method::{basic, queue};
use warren_wire::table::Value;

const SOON: Duration = Duration::from_secs(15);

/// Arguments with a string, or with a number of eight octets.
fn with(key: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut entries = vec![u8::try_from(key.len()).expect("a short key")];
    entries.extend_from_slice(key.as_bytes());
    entries.push(kind);
    if kind == b'S' {
        entries.extend_from_slice(&u32::try_from(value.len()).expect("a short value").to_be_bytes());
    }
    entries.extend_from_slice(value);
    entries
}

fn table(entries: &[u8]) -> Table<'_> {
    Table::from_encoded(entries).expect("a table")
}

fn declare_stream(peer: &mut Peer, name: &str) {
    let arguments = with("x-queue-type", b'S', b"stream");
    let declare =
        queue::Declare { queue: name.as_bytes(), durable: true, arguments: table(&arguments), ..DECLARE };
    peer.declare_with(1, &declare);
}

fn read(peer: &mut Peer, name: &str, from: &[u8]) {
    let consume =
        basic::Consume { queue: name.as_bytes(), consumer_tag: b"reader", arguments: table(from), ..CONSUME };
    peer.qos(1, 10);
    peer.consume_with(1, &consume);
}

fn publish(way: &Way, name: &str, numbers: std::ops::Range<u32>) {
    let mut peer = way.observer();
    peer.confirm_select(1);
    let count = u64::from(numbers.end - numbers.start);
    numbers.for_each(|n| peer.publish(1, name, format!("message {n}").as_bytes()));
    peer.expect_confirms(1, 1, count);
    peer.close();
}

/// Reads messages; each is the next one, and stands where its number says. Acknowledges every other.
fn expect(peer: &mut Peer, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let message = peer.delivery(1);
        assert_eq!(message.text(), format!("message {n}"));
        let offset = message.properties().headers.and_then(|headers| headers.get(b"x-stream-offset"));
        assert_eq!(offset, Some(Value::Int(i64::from(n))));
        if n % 2 == 1 {
            peer.ack(1, message.tag(), true);
        }
    }
}

fn lose(way: &Way) {
    let warren = way.warren.as_ref().expect("through Warren");
    let lost = || warren.metric("warren_upstream_closes_total");
    let before = lost();
    way.rabbit.cut_connections(&way.vhost);
    eventually("Warren has noticed", SOON, || lost() > before);
}

#[test]
fn a_reader_goes_on_after_the_last_offset() {
    let way = Way::new(Through::Warren, &[]);
    let name = unique("stream");
    let mut peer = way.connect_channel();
    declare_stream(&mut peer, &name);
    publish(&way, &name, 0..7);
    read(&mut peer, &name, &with("x-stream-offset", b'l', &2_i64.to_be_bytes()));
    expect(&mut peer, 2..7);
    for round in 0..3 {
        lose(&way);
        publish(&way, &name, 7 + round * 4..11 + round * 4);
        expect(&mut peer, 7 + round * 4..11 + round * 4);
    }
    peer.expect_no_delivery(1, Duration::from_millis(300));
    peer.delete_queue(1, &name);
    peer.close();
}

#[test]
fn a_reader_that_has_got_nothing_begins_again_where_that_is_the_same() {
    let way = Way::new(Through::Warren, &[]);
    let (first, next) = (unique("stream"), unique("stream"));
    let mut patient = way.connect_channel();
    declare_stream(&mut patient, &first);
    read(&mut patient, &first, &with("x-stream-offset", b'S', b"first"));
    let mut uncertain = way.connect_channel();
    declare_stream(&mut uncertain, &next);
    read(&mut uncertain, &next, &with("x-stream-offset", b'S', b"next"));
    lose(&way);
    // What comes next is something else by now.
    assert_eq!(uncertain.expect_connection_close().code, 320);
    publish(&way, &first, 0..3);
    expect(&mut patient, 0..3);
    patient.delete_queue(1, &first);
    patient.close();
}

#[test]
fn a_stream_that_was_declared_elsewhere_is_known_by_its_messages() {
    let way = Way::new(Through::Warren, &[]);
    let name = unique("stream");
    let mut elsewhere = way.observer();
    declare_stream(&mut elsewhere, &name);
    elsewhere.close();
    let mut peer = way.connect_channel();
    read(&mut peer, &name, &[]);
    publish(&way, &name, 0..3);
    expect(&mut peer, 0..3);
    lose(&way);
    publish(&way, &name, 3..6);
    expect(&mut peer, 3..6);
    peer.delete_queue(1, &name);
    peer.close();
}
