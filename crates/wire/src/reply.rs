//! Reply codes and texts of channel.close and connection.close (AMQP 0-9-1, 1.2).

/// Longest text that fits in a short string, in octets.
pub const MAX_TEXT: usize = 255;

/// Name of a reply code as brokers write it before the text, `NOT_FOUND` for 404.
/// `UNKNOWN_CODE` for a number that 0-9-1 does not define.
pub fn code_name(code: u16) -> &'static str {
    match code {
        200 => "REPLY_SUCCESS",
        311 => "CONTENT_TOO_LARGE",
        312 => "NO_ROUTE",
        313 => "NO_CONSUMERS",
        320 => "CONNECTION_FORCED",
        402 => "INVALID_PATH",
        403 => "ACCESS_REFUSED",
        404 => "NOT_FOUND",
        405 => "RESOURCE_LOCKED",
        406 => "PRECONDITION_FAILED",
        501 => "FRAME_ERROR",
        502 => "SYNTAX_ERROR",
        503 => "COMMAND_INVALID",
        504 => "CHANNEL_ERROR",
        505 => "UNEXPECTED_FRAME",
        506 => "RESOURCE_ERROR",
        530 => "NOT_ALLOWED",
        540 => "NOT_IMPLEMENTED",
        541 => "INTERNAL_ERROR",
        _ => "UNKNOWN_CODE",
    }
}

/// Reply text in the brokers' form, `NOT_FOUND - no exchange 'x'`; without a detail, the name of the code alone. May be
/// longer than a short string: [`cut`] it where its length matters; the encoders cut it anyway.
pub fn text(code: u16, detail: &str) -> String {
    if detail.is_empty() {
        return code_name(code).to_owned();
    }
    format!("{} - {detail}", code_name(code))
}

/// The beginning of `text` that fits in a short string, cut at a character boundary.
pub fn cut(text: &str) -> &str {
    &text[..cut_len(text.as_bytes())]
}

/// As [`cut`], for bytes that are probably UTF-8.
pub fn cut_bytes(text: &[u8]) -> &[u8] {
    &text[..cut_len(text)]
}

fn cut_len(text: &[u8]) -> usize {
    if text.len() <= MAX_TEXT {
        return text.len();
    }
    // A character has at most four octets, so a boundary is at most three back; else it is not UTF-8.
    (MAX_TEXT - 3..=MAX_TEXT).rev().find(|&at| text[at] & 0xC0 != 0x80).unwrap_or(MAX_TEXT)
}
