//! Arguments of declares: the types RabbitMQ sees in them, checks, and equivalence.

use warren_wire::table::{Table, Value};

use crate::fault::{Fault, Outcome};
use crate::names::show;
use crate::queue::Overflow;

/// Largest time in an argument, milliseconds: ten years.
const MAX_EXPIRY: i64 = 315_360_000_000;

/// Highest `x-max-priority`.
const MAX_PRIORITY: i64 = 255;

/// The queue types there are. Quorum queues are classic ones here, but refuse what RabbitMQ's quorum queues refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Classic,
    Quorum,
}

impl QueueKind {
    /// The name in RabbitMQ's texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            QueueKind::Classic => "rabbit_classic_queue",
            QueueKind::Quorum => "rabbit_quorum_queue",
        }
    }

    pub(crate) fn of(table: Table<'_>) -> QueueKind {
        match table.get(b"x-queue-type") {
            Some(Value::Str(b"quorum")) => QueueKind::Quorum,
            _ => QueueKind::Classic,
        }
    }

    /// Arguments that the type knows, and that two declares must agree on.
    fn arguments(self) -> &'static [&'static [u8]] {
        match self {
            QueueKind::Classic => &[
                b"x-expires",
                b"x-message-ttl",
                b"x-dead-letter-exchange",
                b"x-dead-letter-routing-key",
                b"x-max-length",
                b"x-max-length-bytes",
                b"x-max-priority",
                b"x-overflow",
                b"x-queue-mode",
                b"x-queue-version",
                b"x-single-active-consumer",
                b"x-queue-type",
                b"x-queue-master-locator",
            ],
            QueueKind::Quorum => &[
                b"x-dead-letter-exchange",
                b"x-dead-letter-routing-key",
                b"x-dead-letter-strategy",
                b"x-expires",
                b"x-max-length",
                b"x-max-length-bytes",
                b"x-max-in-memory-length",
                b"x-max-in-memory-bytes",
                b"x-overflow",
                b"x-single-active-consumer",
                b"x-queue-type",
                b"x-quorum-initial-group-size",
                b"x-delivery-limit",
                b"x-message-ttl",
                b"x-queue-leader-locator",
            ],
        }
    }
}

/// Arguments of streams alone.
const STREAM_ARGUMENTS: [&[u8]; 3] =
    [b"x-max-age", b"x-stream-max-segment-size-bytes", b"x-initial-cluster-size"];

/// Whether some type of queue knows the argument: only such are refused where they do not belong.
fn is_known(key: &[u8]) -> bool {
    let of = |kind: QueueKind| kind.arguments().contains(&key);
    of(QueueKind::Classic) || of(QueueKind::Quorum) || STREAM_ARGUMENTS.contains(&key)
}

/// One argument with the letter of its type on the wire, which [`Value`] does not keep.
#[derive(Clone, Copy, PartialEq)]
struct Arg<'a> {
    letter: u8,
    value: Value<'a>,
}

impl Arg<'_> {
    /// The name Erlang has for the type.
    fn type_name(self) -> &'static str {
        match self.letter {
            b'S' => "longstr",
            b't' => "bool",
            b'b' => "byte",
            b'B' => "unsignedbyte",
            b's' => "short",
            b'u' => "unsignedshort",
            b'I' => "signedint",
            b'i' => "unsignedint",
            b'l' | b'L' => "long",
            b'f' => "float",
            b'd' => "double",
            b'T' => "timestamp",
            b'D' => "decimal",
            b'F' => "table",
            b'A' => "array",
            b'x' => "binary",
            _ => "void",
        }
    }

    fn value_text(self) -> String {
        match self.value {
            Value::Bool(v) => v.to_string(),
            Value::Int(v) => v.to_string(),
            Value::Float(v) => v.to_string(),
            Value::Timestamp(v) => v.to_string(),
            Value::Str(v) => show(v).into_owned(),
            Value::Table(_) | Value::Array(_) | Value::Other => "...".to_owned(),
        }
    }
}

fn get<'a>(table: Table<'a>, key: &[u8]) -> Option<Arg<'a>> {
    let letter = letter_of(table.as_bytes(), key)?;
    let value = table.get(key)?;
    Some(Arg { letter, value })
}

/// Walks encoded entries, which were checked when they were parsed, as far as the type of `key`.
fn letter_of(mut entries: &[u8], key: &[u8]) -> Option<u8> {
    while let Some((&name_len, rest)) = entries.split_first() {
        let (name, rest) = rest.split_at_checked(name_len.into())?;
        let (&letter, rest) = rest.split_first()?;
        if name == key {
            return Some(letter);
        }
        let size = match letter {
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'l' | b'L' | b'd' | b'T' => 8,
            _ => 4 + u32::from_be_bytes(*rest.first_chunk()?) as usize,
        };
        entries = rest.get(size..)?;
    }
    None
}

/// 406 unless `wanted` and `current` agree on the arguments of queues.
pub(crate) fn check_queue_equivalence(current: Table<'_>, wanted: Table<'_>, entity: &str) -> Outcome {
    for key in QueueKind::of(current).arguments() {
        check_equivalence(current, wanted, key, entity)?;
    }
    Ok(())
}

/// 406 unless both have equal values for `key`, or both none.
pub(crate) fn check_equivalence(current: Table<'_>, wanted: Table<'_>, key: &[u8], entity: &str) -> Outcome {
    let (received, shown) = match (get(current, key), get(wanted, key)) {
        (None, None) => return Ok(()),
        (Some(a), Some(b)) if a.value == b.value => return Ok(()),
        // A classic queue need not say so.
        (Some(a), None) | (None, Some(a)) if is_classic(key, a) => return Ok(()),
        (Some(a), Some(b)) => (format!("'{}'", b.value_text()), format!("'{}'", a.value_text())),
        (a, b) => (value_or_none(b), value_or_none(a)),
    };
    Err(inequivalent(&show(key), entity, &received, &shown))
}

fn is_classic(key: &[u8], arg: Arg<'_>) -> bool {
    key == b"x-queue-type" && arg.value == Value::Str(b"classic")
}

fn value_or_none(arg: Option<Arg<'_>>) -> String {
    match arg {
        None => "none".to_owned(),
        Some(arg) => format!("the value '{}' of type '{}'", arg.value_text(), arg.type_name()),
    }
}

/// 406 in RabbitMQ's words.
pub(crate) fn inequivalent(what: &str, entity: &str, received: &str, current: &str) -> Fault {
    Fault::precondition(format!(
        "inequivalent arg '{what}' for {entity}: received {received} but current is {current}"
    ))
}

/// 406 unless two flags agree.
pub(crate) fn check_flag(what: &str, entity: &str, received: bool, current: bool) -> Outcome {
    if received == current {
        return Ok(());
    }
    let quoted = |flag: bool| format!("'{flag}'");
    Err(inequivalent(what, entity, &quoted(received), &quoted(current)))
}

/// What a queue takes from its arguments.
pub(crate) struct QueueArguments {
    pub(crate) kind: QueueKind,
    pub(crate) max_length: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) single_active: bool,
}

type Check = fn(Arg<'_>) -> Result<(), String>;

/// Checks of single arguments, in RabbitMQ's order.
const CHECKS: [(&[u8], Check); 11] = [
    (b"x-expires", |arg| match integer(arg)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => expiry(arg),
    }),
    (b"x-message-ttl", expiry),
    (b"x-dead-letter-exchange", string),
    (b"x-dead-letter-routing-key", string),
    (b"x-max-length", |arg| non_negative(arg).map(drop)),
    (b"x-max-length-bytes", |arg| non_negative(arg).map(drop)),
    (b"x-max-priority", |arg| match non_negative(arg)? {
        number if number > MAX_PRIORITY => Err(format!("{{max_value_exceeded,{number}}}")),
        _ => Ok(()),
    }),
    (b"x-overflow", |arg| match arg.value {
        Value::Str(b"drop-head" | b"reject-publish" | b"reject-publish-dlx") => Ok(()),
        Value::Str(_) => Err("invalid_overflow".to_owned()),
        _ => Err(unacceptable(arg)),
    }),
    (b"x-queue-mode", |arg| one_of(arg, "queue mode", &["default", "lazy"])),
    (b"x-queue-version", |arg| match non_negative(arg)? {
        1 | 2 => Ok(()),
        other => Err(format!("\"unsupported queue version '{other}'\"")),
    }),
    (b"x-single-active-consumer", boolean),
];

/// Checks the arguments of a new queue, in RabbitMQ's order.
pub(crate) fn check_queue_arguments(table: Table<'_>, entity: &str) -> Outcome<QueueArguments> {
    check_argument(table, b"x-queue-type", entity, |arg| one_of(arg, "queue type", &["classic", "quorum"]))?;
    let kind = QueueKind::of(table);
    for (key, test) in CHECKS {
        if kind.arguments().contains(&key) {
            check_argument(table, key, entity, test)?;
        }
    }
    if get(table, b"x-dead-letter-routing-key").is_some() && get(table, b"x-dead-letter-exchange").is_none() {
        let problem = "routing_key_but_no_dlx_defined";
        return Err(invalid(b"x-dead-letter-routing-key", entity, problem));
    }
    for (key, _) in table.iter() {
        if is_known(key) && !kind.arguments().contains(&key) {
            return Err(not_of_kind(key, entity, kind));
        }
    }
    let max_length = match table.get(b"x-max-length") {
        Some(Value::Int(max)) => u64::try_from(max).ok(),
        _ => None,
    };
    let overflow = match table.get(b"x-overflow") {
        Some(Value::Str(mode)) if mode.starts_with(b"reject-publish") => Overflow::RejectPublish,
        _ => Overflow::DropHead,
    };
    Ok(QueueArguments {
        kind,
        max_length,
        overflow,
        single_active: table.get(b"x-single-active-consumer") == Some(Value::Bool(true)),
    })
}

/// Checks the arguments of `basic.consume`; returns the priority.
pub(crate) fn check_consume_arguments(table: Table<'_>, entity: &str, kind: QueueKind) -> Outcome<i64> {
    check_argument(table, b"x-priority", entity, |arg| integer(arg).map(drop))?;
    if kind == QueueKind::Classic {
        check_argument(table, b"x-cancel-on-ha-failover", entity, boolean)?;
    }
    for (key, _) in table.iter() {
        let failover = key == b"x-cancel-on-ha-failover" && kind != QueueKind::Classic;
        if failover || key == b"x-stream-offset" {
            return Err(not_of_kind(key, entity, kind));
        }
    }
    match table.get(b"x-priority") {
        Some(Value::Int(priority)) => Ok(priority),
        _ => Ok(0),
    }
}

fn check_argument(table: Table<'_>, key: &[u8], entity: &str, test: Check) -> Outcome {
    match get(table, key) {
        Some(arg) => test(arg).map_err(|problem| invalid(key, entity, &problem)),
        None => Ok(()),
    }
}

fn invalid(key: &[u8], entity: &str, problem: &str) -> Fault {
    Fault::precondition(format!("invalid arg '{}' for {entity}: {problem}", show(key)))
}

fn not_of_kind(key: &[u8], entity: &str, kind: QueueKind) -> Fault {
    let detail = format!("invalid arg '{}' for {entity} of queue type {}", show(key), kind.name());
    Fault::precondition(detail)
}

fn boolean(arg: Arg<'_>) -> Result<(), String> {
    match arg.value {
        Value::Bool(_) => Ok(()),
        _ => Err(unacceptable(arg)),
    }
}

fn integer(arg: Arg<'_>) -> Result<i64, String> {
    match arg.value {
        Value::Int(number) => Ok(number),
        _ => Err(format!("\"expected integer, got {}\"", arg.type_name())),
    }
}

fn non_negative(arg: Arg<'_>) -> Result<i64, String> {
    match integer(arg)? {
        number if number < 0 => Err(format!("{{value_negative,{number}}}")),
        number => Ok(number),
    }
}

fn expiry(arg: Arg<'_>) -> Result<(), String> {
    match non_negative(arg)? {
        number if number > MAX_EXPIRY => Err(format!("{{value_too_large,{number}}}")),
        _ => Ok(()),
    }
}

fn string(arg: Arg<'_>) -> Result<(), String> {
    match arg.value {
        Value::Str(_) => Ok(()),
        _ => Err(unacceptable(arg)),
    }
}

fn one_of(arg: Arg<'_>, what: &str, known: &[&str]) -> Result<(), String> {
    match arg.value {
        Value::Str(value) if known.iter().any(|k| k.as_bytes() == value) => Ok(()),
        Value::Str(value) => Err(format!("\"unsupported {what} '{}'\"", show(value))),
        _ => Err(unacceptable(arg)),
    }
}

fn unacceptable(arg: Arg<'_>) -> String {
    format!("{{unacceptable_type,{}}}", arg.type_name())
}
