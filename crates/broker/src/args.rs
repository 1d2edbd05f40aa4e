//! Arguments of declares: the types RabbitMQ sees in them, checks, and equivalence.

use warren_wire::table::{Table, Value};

use crate::fault::{Fault, Outcome};
use crate::names::show;
use crate::queue::Overflow;

/// Largest time in an argument, milliseconds: ten years.
const MAX_EXPIRY: i64 = 315_360_000_000;

/// Highest `x-max-priority`.
const MAX_PRIORITY: i64 = 255;

/// Arguments that two declares of a queue must agree on.
const QUEUE_ARGUMENTS: [&[u8]; 13] = [
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
];

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
    for key in QUEUE_ARGUMENTS {
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
    pub(crate) max_length: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) single_active: bool,
}

/// Checks the arguments of a new queue, in RabbitMQ's order.
pub(crate) fn check_queue_arguments(table: Table<'_>, entity: &str) -> Outcome<QueueArguments> {
    let invalid = |key: &[u8], problem: String| {
        Fault::precondition(format!("invalid arg '{}' for {entity}: {problem}", show(key)))
    };
    let check = |key: &'static [u8], test: fn(Arg<'_>) -> Result<(), String>| match get(table, key) {
        Some(arg) => test(arg).map_err(|problem| invalid(key, problem)),
        None => Ok(()),
    };
    check(b"x-queue-type", |arg| one_of(arg, "queue type", &["classic", "quorum"]))?;
    check(b"x-expires", |arg| match integer(arg)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => expiry(arg),
    })?;
    check(b"x-message-ttl", expiry)?;
    check(b"x-dead-letter-exchange", string)?;
    check(b"x-dead-letter-routing-key", string)?;
    if get(table, b"x-dead-letter-routing-key").is_some() && get(table, b"x-dead-letter-exchange").is_none() {
        let problem = "routing_key_but_no_dlx_defined".to_owned();
        return Err(invalid(b"x-dead-letter-routing-key", problem));
    }
    check(b"x-max-length", |arg| non_negative(arg).map(drop))?;
    check(b"x-max-length-bytes", |arg| non_negative(arg).map(drop))?;
    check(b"x-max-priority", |arg| match non_negative(arg)? {
        number if number > MAX_PRIORITY => Err(format!("{{max_value_exceeded,{number}}}")),
        _ => Ok(()),
    })?;
    check(b"x-overflow", |arg| match arg.value {
        Value::Str(b"drop-head" | b"reject-publish" | b"reject-publish-dlx") => Ok(()),
        Value::Str(_) => Err("invalid_overflow".to_owned()),
        _ => Err(unacceptable(arg)),
    })?;
    check(b"x-queue-mode", |arg| one_of(arg, "queue mode", &["default", "lazy"]))?;
    check(b"x-single-active-consumer", |arg| match arg.value {
        Value::Bool(_) => Ok(()),
        _ => Err(unacceptable(arg)),
    })?;
    let max_length = match table.get(b"x-max-length") {
        Some(Value::Int(max)) => u64::try_from(max).ok(),
        _ => None,
    };
    let overflow = match table.get(b"x-overflow") {
        Some(Value::Str(mode)) if mode.starts_with(b"reject-publish") => Overflow::RejectPublish,
        _ => Overflow::DropHead,
    };
    Ok(QueueArguments {
        max_length,
        overflow,
        single_active: table.get(b"x-single-active-consumer") == Some(Value::Bool(true)),
    })
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
