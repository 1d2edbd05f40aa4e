//! The fuzz corpora, replayed on stable: what once was found stays found.
//!
//! The files `seed-*` are made here, from one method of each kind and from tables and properties with something of
//! everything; the others were found by the fuzzer. After a change of [`seeds`] write them again with
//! `WARREN_WRITE_SEEDS=1 cargo test -p warren-wire --test corpus`.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use amq_protocol::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use common::sample::{self, Parts};
use warren_wire::content::write_content;
use warren_wire::frame::{FRAME_HEADER, HEARTBEAT_FRAME, next_frame};
use warren_wire::method::name;
use warren_wire::table::{MAX_TABLE_DEPTH, encode_table};
use warren_wire::{BasicProperties, Table, fuzz_entry};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

fn replay(target: &str, entry: fn(&[u8])) {
    let mut count = 0;
    for file in fs::read_dir(corpus(target)).expect("the corpus folder") {
        let path = file.expect("a folder entry").path();
        let data = fs::read(&path).expect("a corpus file");
        // A panic within names the input by the last line printed.
        println!("{}", path.display());
        entry(&data);
        count += 1;
    }
    assert!(count >= 10, "{count} files in the corpus of {target}");
}

#[test]
fn frames() {
    replay("frames", fuzz_entry::frames);
}

#[test]
fn methods() {
    replay("methods", fuzz_entry::methods);
}

#[test]
fn tables() {
    replay("tables", fuzz_entry::tables);
}

#[test]
fn content() {
    replay("content", fuzz_entry::content);
}

#[test]
fn seeds_are_what_is_generated() {
    let write = std::env::var_os("WARREN_WRITE_SEEDS").is_some();
    for (target, name, data) in seeds() {
        let path = corpus(target).join(format!("seed-{name}"));
        if write {
            fs::create_dir_all(corpus(target)).expect("the corpus folder");
            fs::write(&path, &data).expect("a seed written");
        }
        let there = fs::read(&path).unwrap_or_default();
        assert_eq!(there, data, "{} is not what is generated", path.display());
    }
}

type Seed = (&'static str, String, Vec<u8>);

fn seeds() -> Vec<Seed> {
    [frame_seeds(), method_seeds(), table_seeds(), content_seeds()].concat()
}

fn parts() -> Parts {
    Parts {
        short: ["orders".into(), "amq.topic".into(), "eu.#".into()],
        long: [b"PLAIN AMQPLAIN".to_vec(), b"\0guest\0guest".to_vec()],
        table: encode_table(&everything()),
        bit: [true, false, true, false, true, true],
        n16: [404, 60, 40],
        n32: [131_072, 7],
        n64: 42,
    }
}

fn text(s: &str) -> AMQPValue {
    AMQPValue::LongString(s.into())
}

fn table(entries: Vec<(&str, AMQPValue)>) -> FieldTable {
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect::<BTreeMap<_, _>>().into()
}

/// Every field type, and nesting.
fn everything() -> FieldTable {
    let inner = table(vec![("basic.nack", AMQPValue::Boolean(true)), ("count", AMQPValue::LongLongInt(-3))]);
    table(vec![
        ("b", AMQPValue::ShortShortInt(-1)),
        ("B", AMQPValue::ShortShortUInt(200)),
        ("s", AMQPValue::ShortInt(-300)),
        ("u", AMQPValue::ShortUInt(60_000)),
        ("I", AMQPValue::LongInt(-70_000)),
        ("i", AMQPValue::LongUInt(4_000_000_000)),
        ("f", AMQPValue::Float(0.5)),
        ("d", AMQPValue::Double(-0.25)),
        ("D", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("T", AMQPValue::Timestamp(1_700_000_000)),
        ("x", AMQPValue::ByteArray(vec![0, 255].into())),
        ("V", AMQPValue::Void),
        ("x-queue-type", text("quorum")),
        ("A", AMQPValue::FieldArray(FieldArray::from(vec![text("a"), AMQPValue::FieldTable(inner.clone())]))),
        ("capabilities", AMQPValue::FieldTable(inner)),
    ])
}

fn frame_seeds() -> Vec<Seed> {
    let parts = parts();
    let mut stream = Vec::new();
    for method in sample::all(&parts).iter().skip(40).take(8) {
        method.write(1, &mut stream);
    }
    write_content(2, &BasicProperties::default(), &[b'x'; 300], 128, &mut stream);
    stream.extend_from_slice(&HEARTBEAT_FRAME);
    let seed = |name: &str, max: u16, cut: u8, stream: &[u8]| {
        let mut data = max.to_be_bytes().to_vec();
        data.push(cut);
        data.extend_from_slice(stream);
        ("frames", name.to_owned(), data)
    };
    let mut bad_end = HEARTBEAT_FRAME.repeat(2);
    bad_end[15] = 0xCD;
    vec![
        seed("stream", 4088, 255, &stream),
        seed("stream-cut", 4088, 130, &stream),
        seed("too-large", 120, 255, &stream),
        seed("heartbeats", 0, 200, &HEARTBEAT_FRAME.repeat(3)),
        seed("bad-end", 100, 255, &bad_end),
        seed("bad-type", 100, 255, b"AMQP\0\0\x09\x01"),
        seed("half-header", 100, 255, &[1, 0, 1, 0]),
        seed("empty-body", 100, 255, &[3, 0, 1, 0, 0, 0, 0, 0xCE]),
        seed("announces-4-gib", 0xFFFF, 255, &[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0]),
        seed("nothing", 0, 0, b""),
    ]
}

fn method_seeds() -> Vec<Seed> {
    let parts = parts();
    let mut seeds = Vec::new();
    for method in sample::all(&parts) {
        let mut frame = Vec::new();
        method.write(1, &mut frame);
        let found = next_frame(&frame, 0, u32::MAX).expect("a frame").expect("a whole frame");
        seeds.push((
            "methods",
            name(method.id()).expect("a name").to_owned(),
            found.payload(&frame).to_vec(),
        ));
    }
    seeds
}

fn table_seeds() -> Vec<Seed> {
    let nested = |depth: usize| {
        let mut entries = Vec::new();
        for _ in 1..depth {
            let mut outer = b"\x01kF".to_vec();
            outer.extend_from_slice(&u32::try_from(entries.len()).expect("a small table").to_be_bytes());
            outer.extend_from_slice(&entries);
            entries = outer;
        }
        entries
    };
    let seed = |name: &str, entries: &[u8]| ("tables", name.to_owned(), entries.to_vec());
    vec![
        seed("everything", &encode_table(&everything())),
        seed("empty", b""),
        seed("deepest", &nested(MAX_TABLE_DEPTH)),
        seed("too-deep", &nested(MAX_TABLE_DEPTH + 1)),
        seed("same-key-twice", b"\x01aV\x01at\x01"),
        seed("key-not-utf8", b"\x02\xC3\x28V"),
        seed("no-key", b"\x00t\x02"),
        seed("type-of-the-specification", b"\x01aU\x00\x01"),
        seed("unknown-type", b"\x01aZ"),
        seed("nan", b"\x01ad\x7F\xF8\0\0\0\0\0\0"),
        seed("infinity", b"\x01af\x7F\x80\0\0"),
        seed("string-too-long", b"\x01aS\0\0\0\x09abc"),
        seed("table-not-filled", b"\x01aF\0\0\0\x01\x00\x01bV"),
        seed("array-of-voids", b"\x01aA\0\0\0\x05VVVVV"),
        seed("announces-4-gib", b"\x01ax\xFF\xFF\xFF\xFF"),
    ]
}

fn content_seeds() -> Vec<Seed> {
    let entries = encode_table(&everything());
    let all = BasicProperties {
        content_type: Some(b"application/json"),
        content_encoding: Some(b"gzip"),
        headers: Some(Table::from_encoded(&entries).expect("a well-formed table")),
        delivery_mode: Some(2),
        priority: Some(5),
        correlation_id: Some(b"c"),
        reply_to: Some(b"amq.rabbitmq.reply-to"),
        expiration: Some(b"60000"),
        message_id: Some(b"m"),
        timestamp: Some(1_700_000_000),
        kind: Some(b"order"),
        user_id: Some(b"guest"),
        app_id: Some(b"shop"),
        cluster_id: Some(b""),
    };
    let one = BasicProperties { delivery_mode: Some(2), ..Default::default() };
    let seed = |name: &str, properties: &BasicProperties<'_>| {
        let mut frame = Vec::new();
        warren_wire::content::write_header(1, 100, properties, &mut frame);
        let found = next_frame(&frame, 0, u32::MAX).expect("a frame").expect("a whole frame");
        assert_eq!(found.kind, FRAME_HEADER);
        ("content", name.to_owned(), found.payload(&frame).to_vec())
    };
    let mut seeds = vec![
        seed("none", &BasicProperties::default()),
        seed("delivery-mode", &one),
        seed("all", &all),
        seed("all-but-headers", &BasicProperties { headers: None, ..all }),
    ];
    let whole = seeds[2].2.clone();
    for (name, at) in
        [("fixed-part-cut", 11), ("flags-cut", 13), ("list-cut", 40), ("list-cut-late", whole.len() - 1)]
    {
        seeds.push(("content", name.to_owned(), whole[..at].to_vec()));
    }
    let mut extra = seeds[1].2.clone();
    extra.push(0);
    seeds.push(("content", "octet-left-over".to_owned(), extra));
    for (name, bits) in [("more-flags", 1), ("unused-flag", 2)] {
        let mut odd = seeds[1].2.clone();
        odd[13] |= bits;
        seeds.push(("content", name.to_owned(), odd));
    }
    seeds
}
