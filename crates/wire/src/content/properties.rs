//! The properties of class basic: flags, then the values whose flag is set, in the order of the flags.

use crate::Malformed;
use crate::read::Reader;
use crate::table::Table;
use crate::write;

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
/// Bit 0 says that further flags follow, bit 1 belongs to no property: class basic needs neither.
const UNUSED: u16 = 0b11;

/// The 14 properties of class basic (AMQP 0-9-1, 1.8). Strings are short strings and may be any octets.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BasicProperties<'a> {
    /// MIME content type.
    pub content_type: Option<&'a [u8]>,
    /// MIME content encoding.
    pub content_encoding: Option<&'a [u8]>,
    /// Headers of the application.
    pub headers: Option<Table<'a>>,
    /// 1 transient, 2 persistent.
    pub delivery_mode: Option<u8>,
    /// Message priority.
    pub priority: Option<u8>,
    /// Correlation identifier.
    pub correlation_id: Option<&'a [u8]>,
    /// Address to reply to.
    pub reply_to: Option<&'a [u8]>,
    /// Time to live in milliseconds, as decimal text.
    pub expiration: Option<&'a [u8]>,
    /// Message identifier.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// Message type name (`type` in the specification).
    pub kind: Option<&'a [u8]>,
    /// Creating user; brokers refuse a publish whose user_id is not the connection's user.
    pub user_id: Option<&'a [u8]>,
    /// Creating application.
    pub app_id: Option<&'a [u8]>,
    /// Deprecated, a reserved field of 0-9-1.
    pub cluster_id: Option<&'a [u8]>,
}

/// As [`BasicProperties::parse`], without keeping what is read. Every publish is checked and few are looked into:
/// for two properties this takes a quarter of the time.
pub(super) fn check(list: &[u8]) -> Option<()> {
    let mut r = Reader::new(list);
    let mut flags = r.u16()?;
    if flags & UNUSED != 0 {
        return None;
    }
    while flags != 0 {
        let flag = 1 << (15 - flags.leading_zeros());
        flags ^= flag;
        match flag {
            HEADERS => r.table().map(|_| ())?,
            DELIVERY_MODE | PRIORITY => r.u8().map(|_| ())?,
            TIMESTAMP => r.u64().map(|_| ())?,
            _ => r.short().map(|_| ())?,
        }
    }
    r.is_empty().then_some(())
}

impl<'a> BasicProperties<'a> {
    /// Reads the flags and the property list that follow the fixed part of a content header.
    ///
    /// # Errors
    /// When it ends early, has octets left over, has flags that class basic does not know, or a malformed table.
    pub fn parse(payload_after_12: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload_after_12);
        match Self::read(&mut r) {
            Some(properties) if r.is_empty() => Ok(properties),
            _ => Err(Malformed),
        }
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let flags = r.u16()?;
        if flags & UNUSED != 0 {
            return None;
        }
        let has = |flag| flags & flag != 0;
        let mut p = BasicProperties::default();
        if has(CONTENT_TYPE) {
            p.content_type = Some(r.short()?);
        }
        if has(CONTENT_ENCODING) {
            p.content_encoding = Some(r.short()?);
        }
        if has(HEADERS) {
            p.headers = Some(r.table()?);
        }
        if has(DELIVERY_MODE) {
            p.delivery_mode = Some(r.u8()?);
        }
        if has(PRIORITY) {
            p.priority = Some(r.u8()?);
        }
        if has(CORRELATION_ID) {
            p.correlation_id = Some(r.short()?);
        }
        if has(REPLY_TO) {
            p.reply_to = Some(r.short()?);
        }
        if has(EXPIRATION) {
            p.expiration = Some(r.short()?);
        }
        if has(MESSAGE_ID) {
            p.message_id = Some(r.short()?);
        }
        if has(TIMESTAMP) {
            p.timestamp = Some(r.u64()?);
        }
        if has(KIND) {
            p.kind = Some(r.short()?);
        }
        if has(USER_ID) {
            p.user_id = Some(r.short()?);
        }
        if has(APP_ID) {
            p.app_id = Some(r.short()?);
        }
        if has(CLUSTER_ID) {
            p.cluster_id = Some(r.short()?);
        }
        Some(p)
    }

    /// Appends flags and property list. Short strings longer than 255 octets are cut at a character boundary.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::u16(out, self.flags());
        put_short(out, self.content_type);
        put_short(out, self.content_encoding);
        if let Some(headers) = self.headers {
            write::table(out, headers);
        }
        out.extend(self.delivery_mode);
        out.extend(self.priority);
        put_short(out, self.correlation_id);
        put_short(out, self.reply_to);
        put_short(out, self.expiration);
        put_short(out, self.message_id);
        if let Some(timestamp) = self.timestamp {
            write::u64(out, timestamp);
        }
        put_short(out, self.kind);
        put_short(out, self.user_id);
        put_short(out, self.app_id);
        put_short(out, self.cluster_id);
    }

    fn flags(&self) -> u16 {
        [
            (self.content_type.is_some(), CONTENT_TYPE),
            (self.content_encoding.is_some(), CONTENT_ENCODING),
            (self.headers.is_some(), HEADERS),
            (self.delivery_mode.is_some(), DELIVERY_MODE),
            (self.priority.is_some(), PRIORITY),
            (self.correlation_id.is_some(), CORRELATION_ID),
            (self.reply_to.is_some(), REPLY_TO),
            (self.expiration.is_some(), EXPIRATION),
            (self.message_id.is_some(), MESSAGE_ID),
            (self.timestamp.is_some(), TIMESTAMP),
            (self.kind.is_some(), KIND),
            (self.user_id.is_some(), USER_ID),
            (self.app_id.is_some(), APP_ID),
            (self.cluster_id.is_some(), CLUSTER_ID),
        ]
        .into_iter()
        .fold(0, |flags, (set, flag)| if set { flags | flag } else { flags })
    }
}

fn put_short(out: &mut Vec<u8>, value: Option<&[u8]>) {
    if let Some(value) = value {
        write::short(out, value);
    }
}
