//! Class connection (10): handshake, alarms and the end of a connection. Always on channel 0.

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::table::Table;
use crate::write;

/// `connection.start`.
pub const START: MethodId = id(10, 10);

/// `connection.start-ok`.
pub const START_OK: MethodId = id(10, 11);

/// `connection.secure`.
pub const SECURE: MethodId = id(10, 20);

/// `connection.secure-ok`.
pub const SECURE_OK: MethodId = id(10, 21);

/// `connection.tune`.
pub const TUNE: MethodId = id(10, 30);

/// `connection.tune-ok`.
pub const TUNE_OK: MethodId = id(10, 31);

/// `connection.open`.
pub const OPEN: MethodId = id(10, 40);

/// `connection.open-ok`.
pub const OPEN_OK: MethodId = id(10, 41);

/// `connection.close`.
pub const CLOSE: MethodId = id(10, 50);

/// `connection.close-ok`.
pub const CLOSE_OK: MethodId = id(10, 51);

/// `connection.blocked`.
pub const BLOCKED: MethodId = id(10, 60);

/// `connection.unblocked`.
pub const UNBLOCKED: MethodId = id(10, 61);

/// `connection.update-secret`.
pub const UPDATE_SECRET: MethodId = id(10, 70);

/// `connection.update-secret-ok`.
pub const UPDATE_SECRET_OK: MethodId = id(10, 71);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        START => Method::ConnectionStart(Start::read(r)?),
        START_OK => Method::ConnectionStartOk(StartOk::read(r)?),
        SECURE => Method::ConnectionSecure(Secure::read(r)?),
        SECURE_OK => Method::ConnectionSecureOk(SecureOk::read(r)?),
        TUNE => Method::ConnectionTune(Tune::read(r)?),
        TUNE_OK => Method::ConnectionTuneOk(TuneOk::read(r)?),
        OPEN => Method::ConnectionOpen(Open::read(r)?),
        OPEN_OK => {
            r.short()?; // reserved
            Method::ConnectionOpenOk
        }
        CLOSE => Method::ConnectionClose(Close::read(r)?),
        CLOSE_OK => Method::ConnectionCloseOk,
        BLOCKED => Method::ConnectionBlocked(Blocked::read(r)?),
        UNBLOCKED => Method::ConnectionUnblocked,
        UPDATE_SECRET => Method::ConnectionUpdateSecret(UpdateSecret::read(r)?),
        UPDATE_SECRET_OK => Method::ConnectionUpdateSecretOk,
        _ => return None,
    })
}

/// First frame of a broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Start<'a> {
    /// Protocol major version, 0.
    pub version_major: u8,
    /// Protocol minor version, 9.
    pub version_minor: u8,
    /// What the broker says of itself, `capabilities` among it.
    pub server_properties: Table<'a>,
    /// Mechanisms offered, separated by spaces.
    pub mechanisms: &'a [u8],
    /// Locales offered, separated by spaces.
    pub locales: &'a [u8],
}

impl<'a> Start<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let version_major = r.u8()?;
        let version_minor = r.u8()?;
        let server_properties = r.table()?;
        let mechanisms = r.long()?;
        let locales = r.long()?;
        Some(Start { version_major, version_minor, server_properties, mechanisms, locales })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u8(out, self.version_major);
        write::u8(out, self.version_minor);
        write::table(out, self.server_properties);
        write::long(out, self.mechanisms);
        write::long(out, self.locales);
    }
}

/// Answer to [`Start`]: the mechanism chosen and its first response.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StartOk<'a> {
    /// What the client says of itself, `capabilities` among it.
    pub client_properties: Table<'a>,
    /// Mechanism chosen.
    pub mechanism: &'a [u8],
    /// Security data in the form the mechanism wants.
    pub response: &'a [u8],
    /// Locale chosen.
    pub locale: &'a [u8],
}

impl<'a> StartOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let client_properties = r.table()?;
        let mechanism = r.short()?;
        let response = r.long()?;
        let locale = r.short()?;
        Some(StartOk { client_properties, mechanism, response, locale })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::table(out, self.client_properties);
        write::short(out, self.mechanism);
        write::long(out, self.response);
        write::short(out, self.locale);
    }
}

/// A further challenge of the mechanism.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Secure<'a> {
    /// Security data in the form the mechanism wants.
    pub challenge: &'a [u8],
}

impl<'a> Secure<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let challenge = r.long()?;
        Some(Secure { challenge })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::long(out, self.challenge);
    }
}

/// Answer to [`Secure`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecureOk<'a> {
    /// Security data in the form the mechanism wants.
    pub response: &'a [u8],
}

impl<'a> SecureOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let response = r.long()?;
        Some(SecureOk { response })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::long(out, self.response);
    }
}

/// Limits proposed by the broker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tune {
    /// Highest channel number; 0 for no limit.
    pub channel_max: u16,
    /// Largest frame in octets, header and end octet included; 0 for no limit.
    pub frame_max: u32,
    /// Heartbeat interval in seconds; 0 for none.
    pub heartbeat: u16,
}

impl Tune {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let channel_max = r.u16()?;
        let frame_max = r.u32()?;
        let heartbeat = r.u16()?;
        Some(Tune { channel_max, frame_max, heartbeat })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.channel_max);
        write::u32(out, self.frame_max);
        write::u16(out, self.heartbeat);
    }
}

/// Limits chosen by the client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TuneOk {
    /// Highest channel number; 0 for no limit.
    pub channel_max: u16,
    /// Largest frame in octets, header and end octet included; 0 for no limit.
    pub frame_max: u32,
    /// Heartbeat interval in seconds; 0 for none.
    pub heartbeat: u16,
}

impl TuneOk {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let channel_max = r.u16()?;
        let frame_max = r.u32()?;
        let heartbeat = r.u16()?;
        Some(TuneOk { channel_max, frame_max, heartbeat })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.channel_max);
        write::u32(out, self.frame_max);
        write::u16(out, self.heartbeat);
    }
}

/// Choice of the virtual host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Open<'a> {
    /// Virtual host name.
    pub virtual_host: &'a [u8],
}

impl<'a> Open<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let virtual_host = r.short()?;
        r.short()?; // reserved
        r.u8()?; // reserved
        Some(Open { virtual_host })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.virtual_host);
        write::short(out, b""); // reserved
        write::u8(out, 0); // reserved
    }
}

/// End of the connection, from either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Close<'a> {
    /// Reply code, see [`crate::reply`].
    pub reply_code: u16,
    /// Reply text for people, at most 255 octets.
    pub reply_text: &'a [u8],
    /// Class of the method that caused it, or 0.
    pub class_id: u16,
    /// Method that caused it, or 0.
    pub method_id: u16,
}

impl<'a> Close<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let reply_code = r.u16()?;
        let reply_text = r.short()?;
        let class_id = r.u16()?;
        let method_id = r.u16()?;
        Some(Close { reply_code, reply_text, class_id, method_id })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.reply_code);
        write::short(out, self.reply_text);
        write::u16(out, self.class_id);
        write::u16(out, self.method_id);
    }
}

/// The broker reads no publishes for now (RabbitMQ extension); sent to those that announced `connection.blocked`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blocked<'a> {
    /// Reason, for people.
    pub reason: &'a [u8],
}

impl<'a> Blocked<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let reason = r.short()?;
        Some(Blocked { reason })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.reason);
    }
}

/// A new password or token for the connection (RabbitMQ extension).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateSecret<'a> {
    /// The new secret. Never log it.
    pub new_secret: &'a [u8],
    /// Reason, for people.
    pub reason: &'a [u8],
}

impl<'a> UpdateSecret<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let new_secret = r.long()?;
        let reason = r.short()?;
        Some(UpdateSecret { new_secret, reason })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::long(out, self.new_secret);
        write::short(out, self.reason);
    }
}
