//! A blocking AMQP client with one channel, as little as the load generator needs.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use amq_protocol_types::{AMQPValue, FieldTable};
use anyhow::{Context, Result, bail};
use rustls::{ClientConfig, ClientConnection};
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{Method, basic, channel, connection, queue};
use warren_wire::table::{Table, encode_table};

use crate::frames::{FRAME_MAX, FrameReader};
use crate::socket::{self, Reading, Writing};
use crate::tls;

/// The one channel that each client uses.
pub(crate) const CHANNEL: u16 = 1;
/// An answer that takes longer will not come: the measurement fails instead of hanging.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Where a client connects, and how.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) port: u16,
    /// Without it plain TCP.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    fn connect(&self) -> Result<(Reading, Writing)> {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).context("cannot connect")?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        socket.set_write_timeout(Some(ANSWER_WITHIN))?;
        let Some(config) = &self.tls else {
            return Ok(socket::plain(socket));
        };
        let session = ClientConnection::new(Arc::clone(config), tls::SERVER_NAME.try_into()?)?;
        socket::with_tls(socket, session.into()).context("TLS handshake")
    }
}

/// A connected client with its channel open.
pub(crate) struct Client {
    pub(crate) reader: FrameReader,
    writer: Writing,
    out: Vec<u8>,
}

impl Client {
    /// Connects, logs in as guest and opens the channel. `buffer` is that of an earlier client, or empty.
    pub(crate) fn connect(target: &Target, properties: &[u8], buffer: Vec<u8>) -> Result<Self> {
        let (reading, writer) = target.connect()?;
        let mut client = Client { reader: FrameReader::new(reading, buffer), writer, out: Vec::new() };
        client.handshake(properties).context("handshake")?;
        Ok(client)
    }

    fn handshake(&mut self, properties: &[u8]) -> Result<()> {
        self.send_bytes(&PROTOCOL_HEADER)?;
        match self.reader.next_method()?.1 {
            Method::ConnectionStart(_) => {}
            other => bail!("expected connection.start, not {other:?}"),
        }
        self.send(&[Method::ConnectionStartOk(connection::StartOk {
            client_properties: Table::from_encoded(properties).ok().context("client properties")?,
            mechanism: b"PLAIN",
            response: b"\0guest\0guest",
            locale: b"en_US",
        })])?;
        let (channel_max, frame_max) = match self.reader.next_method()?.1 {
            Method::ConnectionTune(tune) => (tune.channel_max, tune.frame_max),
            other => bail!("expected connection.tune, not {other:?}"),
        };
        let frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
        self.send(&[
            Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat: 0 }),
            Method::ConnectionOpen(connection::Open { virtual_host: b"/" }),
        ])?;
        self.expect("connection.open-ok", |m| matches!(m, Method::ConnectionOpenOk))?;
        self.send_on(CHANNEL, &[Method::ChannelOpen])?;
        self.expect("channel.open-ok", |m| matches!(m, Method::ChannelOpenOk))
    }

    /// Waits until the broker has taken in everything sent before on the channel.
    pub(crate) fn prove(&mut self) -> Result<()> {
        self.declare(crate::messages::QUEUE, true)
    }

    /// Declares a durable queue, or asks whether it is there.
    pub(crate) fn declare(&mut self, queue: &[u8], passive: bool) -> Result<()> {
        let declare = queue::Declare {
            queue,
            passive,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        self.send_on(CHANNEL, &[Method::QueueDeclare(declare)])?;
        self.expect("queue.declare-ok", |m| matches!(m, Method::QueueDeclareOk(_)))
    }

    /// Begins to consume without acknowledgements.
    pub(crate) fn consume(&mut self, queue: &[u8]) -> Result<()> {
        let consume = basic::Consume {
            queue,
            consumer_tag: b"bench",
            no_local: false,
            no_ack: true,
            exclusive: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        self.send_on(CHANNEL, &[Method::BasicConsume(consume)])?;
        self.expect("basic.consume-ok", |m| matches!(m, Method::BasicConsumeOk(_)))
    }

    /// Sends `first` and closes channel and connection, each answer awaited. Gives the read buffer back.
    pub(crate) fn close(mut self, first: &[u8]) -> Result<Vec<u8>> {
        self.out.extend_from_slice(first);
        let close = channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.send_on(CHANNEL, &[Method::ChannelClose(close)])?;
        self.expect("channel.close-ok", |m| matches!(m, Method::ChannelCloseOk))?;
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.send(&[Method::ConnectionClose(close)])?;
        self.expect("connection.close-ok", |m| matches!(m, Method::ConnectionCloseOk))?;
        Ok(self.reader.into_buffer())
    }

    /// Sends bytes made elsewhere.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).context("cannot send")
    }

    fn send(&mut self, methods: &[Method<'_>]) -> Result<()> {
        self.send_on(0, methods)
    }

    fn send_on(&mut self, channel: u16, methods: &[Method<'_>]) -> Result<()> {
        for method in methods {
            method.write(channel, &mut self.out);
        }
        let out = std::mem::take(&mut self.out);
        let sent = self.send_bytes(&out);
        self.out = out;
        self.out.clear();
        sent
    }

    fn expect(&mut self, wanted: &str, is_it: impl Fn(&Method<'_>) -> bool) -> Result<()> {
        let (_, method) = self.reader.next_method().with_context(|| format!("waiting for {wanted}"))?;
        if !is_it(&method) {
            bail!("expected {wanted}, not {method:?}");
        }
        Ok(())
    }
}

/// Client properties as a well-behaved client announces them, encoded.
pub(crate) fn properties() -> Vec<u8> {
    let mut capabilities = FieldTable::default();
    for name in ["authentication_failure_close", "basic.nack", "connection.blocked", "consumer_cancel_notify"]
    {
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("warren-bench".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    encode_table(&properties)
}
