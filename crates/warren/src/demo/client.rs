//! An AMQP client as short-lived programs use one: it waits for every answer, and does the least.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use warren_wire::content::write_content;
use warren_wire::frame::{FRAME_METHOD, FRAME_MIN_SIZE, PROTOCOL_HEADER, next_frame};
use warren_wire::method::{self, basic, channel, connection, queue};
use warren_wire::{BasicProperties, Method, MethodId, Table};

/// The channel it uses.
const CHANNEL: u16 = 1;

/// A client that is logged in.
pub(super) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    /// How much of `input` was read as frames.
    at: usize,
    out: Vec<u8>,
}

impl Client {
    /// Connects and logs in as guest.
    pub(super) async fn connect(address: SocketAddr) -> anyhow::Result<Client> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let mut client =
            Client { stream, input: Vec::with_capacity(1024), at: 0, out: PROTOCOL_HEADER.to_vec() };
        client.send().await?;
        client.expect(connection::START).await?;
        let start_ok = connection::StartOk {
            client_properties: Table::EMPTY,
            mechanism: b"PLAIN",
            response: b"\0guest\0guest",
            locale: b"en_US",
        };
        client.write(0, &Method::ConnectionStartOk(start_ok));
        client.send().await?;
        let (channel_max, frame_max) = match client.expect(connection::TUNE).await? {
            Method::ConnectionTune(tune) => (tune.channel_max, tune.frame_max),
            _ => (0, FRAME_MIN_SIZE),
        };
        let tune_ok = connection::TuneOk { channel_max, frame_max, heartbeat: 0 };
        client.write(0, &Method::ConnectionTuneOk(tune_ok));
        client.write(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" }));
        client.send().await?;
        client.expect(connection::OPEN_OK).await?;
        Ok(client)
    }

    /// Opens its channel.
    pub(super) async fn open_channel(&mut self) -> anyhow::Result<()> {
        self.call(CHANNEL, &Method::ChannelOpen, channel::OPEN_OK).await
    }

    /// Declares a queue that lives as long as the broker.
    pub(super) async fn declare(&mut self, name: &str) -> anyhow::Result<()> {
        let declare = queue::Declare {
            queue: name.as_bytes(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        self.call(CHANNEL, &Method::QueueDeclare(declare), queue::DECLARE_OK).await
    }

    /// Publishes a small message to a queue.
    pub(super) async fn publish(&mut self, queue: &str, body: &str) -> anyhow::Result<()> {
        let publish = basic::Publish {
            exchange: b"",
            routing_key: queue.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        self.write(CHANNEL, &Method::BasicPublish(publish));
        let properties = BasicProperties::default();
        write_content(CHANNEL, &properties, body.as_bytes(), FRAME_MIN_SIZE, &mut self.out);
        self.send().await
    }

    /// Closes the channel and then the connection, as client libraries do.
    pub(super) async fn close(mut self) -> anyhow::Result<()> {
        let close = channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.call(CHANNEL, &Method::ChannelClose(close), channel::CLOSE_OK).await?;
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.call(0, &Method::ConnectionClose(close), connection::CLOSE_OK).await
    }

    async fn call(&mut self, channel: u16, method: &Method<'_>, answer: MethodId) -> anyhow::Result<()> {
        self.write(channel, method);
        self.send().await?;
        self.expect(answer).await.map(drop)
    }

    fn write(&mut self, channel: u16, method: &Method<'_>) {
        method.write(channel, &mut self.out);
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out).await.context("cannot send")?;
        self.out.clear();
        Ok(())
    }

    /// The next method, which must be this one.
    async fn expect(&mut self, wanted: MethodId) -> anyhow::Result<Method<'_>> {
        let name = method::name(wanted).unwrap_or("an answer");
        let payload = self.next_payload().await.with_context(|| format!("waiting for {name}"))?;
        match Method::parse(&self.input[payload]) {
            Ok(method) if method.id() == wanted => Ok(method),
            Ok(Method::ConnectionClose(connection::Close { reply_text, .. })) => {
                bail!("closed instead of {name}: {}", String::from_utf8_lossy(reply_text))
            }
            Ok(Method::ChannelClose(channel::Close { reply_text, .. })) => {
                bail!("closed instead of {name}: {}", String::from_utf8_lossy(reply_text))
            }
            Ok(other) => bail!("{other:?} came instead of {name}"),
            Err(_) => bail!("something unreadable came instead of {name}"),
        }
    }

    /// Where in `input` the payload of the next method frame lies.
    async fn next_payload(&mut self) -> anyhow::Result<std::ops::Range<usize>> {
        loop {
            while let Some(frame) = next_frame(&self.input, self.at, FRAME_MIN_SIZE)? {
                self.at = frame.end;
                if frame.kind == FRAME_METHOD {
                    return Ok(frame.start + warren_wire::frame::HEADER_LEN..frame.end - 1);
                }
            }
            self.input.drain(..self.at);
            self.at = 0;
            if self.stream.read_buf(&mut self.input).await? == 0 {
                bail!("the other side closed the connection");
            }
        }
    }
}
