//! Property tables that Warren itself sends (AMQP 0-9-1 section 4.2.5.5), encoded by hand: they are few and fixed.

fn put_key(table: &mut Vec<u8>, key: &str, kind: u8) {
    debug_assert!(key.len() < 256);
    table.push(u8::try_from(key.len()).unwrap_or(0));
    table.extend_from_slice(key.as_bytes());
    table.push(kind);
}

fn put_long(table: &mut Vec<u8>, bytes: &[u8]) {
    table.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes());
    table.extend_from_slice(bytes);
}

/// Adds a long string.
pub(crate) fn put_str(table: &mut Vec<u8>, key: &str, value: &str) {
    put_key(table, key, b'S');
    put_long(table, value.as_bytes());
}

/// Adds a signed integer of eight octets.
pub(crate) fn put_int(table: &mut Vec<u8>, key: &str, value: i64) {
    put_key(table, key, b'l');
    table.extend_from_slice(&value.to_be_bytes());
}

/// Adds a table.
pub(crate) fn put_table(table: &mut Vec<u8>, key: &str, entries: &[u8]) {
    put_key(table, key, b'F');
    put_long(table, entries);
}

fn put_bool(table: &mut Vec<u8>, key: &str, value: bool) {
    put_key(table, key, b't');
    table.push(u8::from(value));
}

/// What Warren tells a broker of itself: all capabilities, so that everything a client may want gets through.
pub(crate) fn client_properties(name: &str) -> Vec<u8> {
    let mut capabilities = Vec::new();
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ] {
        put_bool(&mut capabilities, capability, true);
    }
    let mut table = Vec::new();
    put_str(&mut table, "product", "Warren");
    put_str(&mut table, "version", env!("CARGO_PKG_VERSION"));
    put_str(&mut table, "platform", "Rust");
    put_str(&mut table, "connection_name", name);
    put_table(&mut table, "capabilities", &capabilities);
    table
}

/// What clients are told as long as no broker of the farm has been seen.
pub(crate) fn unknown_broker() -> Vec<u8> {
    let mut capabilities = Vec::new();
    for capability in [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ] {
        put_bool(&mut capabilities, capability, true);
    }
    let mut table = Vec::new();
    put_table(&mut table, "capabilities", &capabilities);
    put_str(&mut table, "product", "RabbitMQ");
    table
}
