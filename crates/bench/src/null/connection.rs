//! One connection to the null broker, read by one thread.

use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;

use amq_protocol_types::{AMQPValue, FieldTable};
use anyhow::{Result, bail};
use warren_wire::content::ContentHeader;
use warren_wire::frame::{
    FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, Frame, HEARTBEAT_FRAME, PROTOCOL_HEADER,
};
use warren_wire::method::{Method, MethodId, basic, channel, connection, method_id, queue};
use warren_wire::table::{Table, encode_table};

use crate::frames::{FRAME_MAX, FrameReader};
use crate::socket::{Reading, Writing};

use super::Broker;
use super::consumer::{Consumers, Writer};

/// RabbitMQ's default.
const CHANNEL_MAX: u16 = 2047;
/// RabbitMQ's default, in seconds.
const HEARTBEAT: u16 = 60;
/// Half of it: an idle connection hears from us this often.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Serves one connection to its end.
pub(super) fn serve((reading, writing): (Reading, Writing), broker: &Broker) -> Result<()> {
    let writer = Writer::new(writing);
    let mut reader = FrameReader::new(reading, Vec::new());
    match reader.take()? {
        None => return Ok(()), // somebody only looked whether we listen
        Some(PROTOCOL_HEADER) => {}
        other => bail!("not a protocol header: {other:?}"),
    }
    broker.counts.connections.fetch_add(1, Ordering::SeqCst);
    let consumers = Consumers::new(&writer);
    let mut connection =
        Connection { broker, writer, consumers, channels: Vec::new(), out: Vec::new(), closed: false };
    connection.start();
    while !connection.closed {
        match reader.fill() {
            Ok(0) => break,
            Ok(_) => connection.take_in(&mut reader)?,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) if e.kind() == ErrorKind::WouldBlock => connection.out.extend_from_slice(&HEARTBEAT_FRAME),
            Err(e) => return Err(e.into()),
        }
        connection.flush();
    }
    Ok(())
}

/// A channel: where its content stands, and what it is for.
#[derive(Default)]
struct Channel {
    open: bool,
    confirm: bool,
    /// Octets of body still to come.
    body_left: u64,
    /// Publishes that are complete, and how many of them were confirmed.
    published: u64,
    confirmed: u64,
    /// How many there were, for tags.
    consumers: usize,
}

struct Connection<'a> {
    broker: &'a Broker,
    writer: Writer,
    consumers: Consumers,
    channels: Vec<Channel>,
    out: Vec<u8>,
    closed: bool,
}

impl Connection<'_> {
    fn start(&mut self) {
        let properties = server_properties();
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: Table::from_encoded(&properties).unwrap_or(Table::EMPTY),
            mechanisms: b"PLAIN AMQPLAIN",
            locales: b"en_US",
        };
        self.answer(0, Method::ConnectionStart(start));
        self.flush();
    }

    /// All frames that are here. Counts are kept apart until the end: other connections count too.
    fn take_in(&mut self, reader: &mut FrameReader) -> Result<()> {
        let (mut publishes, mut body_octets) = (0, 0);
        let mut confirms = false;
        while let Some(frame) = reader.buffered()? {
            match frame.kind {
                FRAME_METHOD => {
                    let payload = reader.payload(&frame);
                    match method_id(payload) {
                        Some(basic::PUBLISH) => {}
                        Some(id) => {
                            // What was published before a request is counted, and confirmed, before its answer.
                            self.count(&mut publishes, &mut body_octets);
                            self.method(&frame, id, payload)?;
                        }
                        None => bail!("empty method frame"),
                    }
                }
                FRAME_HEADER => {
                    let size =
                        ContentHeader::peek(reader.payload(&frame)).map_or(0, |header| header.body_size);
                    let channel = self.channel(frame.channel)?;
                    channel.body_left = size;
                    if size == 0 {
                        channel.published += 1;
                        publishes += 1;
                        confirms |= channel.confirm;
                    }
                }
                FRAME_BODY => {
                    let octets = (frame.len() - FRAME_OVERHEAD) as u64;
                    body_octets += octets;
                    let channel = self.channel(frame.channel)?;
                    match channel.body_left.checked_sub(octets) {
                        Some(left) => channel.body_left = left,
                        None => bail!("more body than its header announced"),
                    }
                    if channel.body_left == 0 {
                        channel.published += 1;
                        publishes += 1;
                        confirms |= channel.confirm;
                    }
                }
                _ => {}
            }
        }
        self.count(&mut publishes, &mut body_octets);
        if confirms {
            self.confirm();
        }
        Ok(())
    }

    fn count(&mut self, publishes: &mut u64, body_octets: &mut u64) {
        self.broker.counts.publishes.fetch_add(std::mem::take(publishes), Ordering::SeqCst);
        self.broker.counts.body_octets.fetch_add(std::mem::take(body_octets), Ordering::SeqCst);
    }

    /// One confirm for all that came on each channel.
    fn confirm(&mut self) {
        for (number, channel) in self.channels.iter_mut().enumerate() {
            if channel.confirm && channel.confirmed < channel.published {
                channel.confirmed = channel.published;
                let ack = basic::Ack { delivery_tag: channel.published, multiple: true };
                Method::BasicAck(ack).write(number as u16, &mut self.out);
            }
        }
    }

    fn channel(&mut self, number: u16) -> Result<&mut Channel> {
        match self.channels.get_mut(usize::from(number)) {
            Some(channel) if channel.open => Ok(channel),
            _ => bail!("channel {number} is not open"),
        }
    }

    fn answer(&mut self, channel: u16, method: Method<'_>) {
        method.write(channel, &mut self.out);
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.writer.answer(&self.out);
            self.out.clear();
        }
    }

    fn method(&mut self, frame: &Frame, id: MethodId, payload: &[u8]) -> Result<()> {
        if matches!(id, basic::ACK | basic::NACK | basic::REJECT) {
            return Ok(()); // swallowed
        }
        let number = frame.channel;
        match Method::parse(payload)? {
            Method::ConnectionStartOk(_) => {
                let tune =
                    connection::Tune { channel_max: CHANNEL_MAX, frame_max: FRAME_MAX, heartbeat: HEARTBEAT };
                self.answer(0, Method::ConnectionTune(tune));
            }
            Method::ConnectionOpen(_) => self.answer(0, Method::ConnectionOpenOk),
            Method::ConnectionClose(_) => {
                self.channels.clear();
                self.answer(0, Method::ConnectionCloseOk);
                self.closed = true;
            }
            Method::ChannelOpen => self.open(number)?,
            Method::ChannelClose(_) => {
                *self.channel(number)? = Channel::default();
                self.consumers.stop(number, None);
                self.answer(number, Method::ChannelCloseOk);
            }
            Method::ChannelFlow(flow) => {
                self.answer(number, Method::ChannelFlowOk(channel::FlowOk { active: flow.active }));
            }
            Method::ConfirmSelect(select) => {
                self.channel(number)?.confirm = true;
                if !select.no_wait {
                    self.answer(number, Method::ConfirmSelectOk);
                }
            }
            Method::BasicConsume(consume) => self.consume(number, &consume)?,
            Method::BasicCancel(cancel) => {
                self.consumers.stop(number, Some(cancel.consumer_tag));
                let ok = basic::CancelOk { consumer_tag: cancel.consumer_tag };
                self.answer(number, Method::BasicCancelOk(ok));
            }
            other => self.yes(number, &other),
        }
        Ok(())
    }

    /// Requests that need an answer and nothing else.
    fn yes(&mut self, number: u16, method: &Method<'_>) {
        let answer = match *method {
            Method::QueueDeclare(q) if !q.no_wait => {
                let ok = queue::DeclareOk { queue: q.queue, message_count: 0, consumer_count: 0 };
                Method::QueueDeclareOk(ok)
            }
            Method::QueueBind(q) if !q.no_wait => Method::QueueBindOk,
            Method::QueueUnbind(_) => Method::QueueUnbindOk,
            Method::QueuePurge(q) if !q.no_wait => Method::QueuePurgeOk(queue::PurgeOk { message_count: 0 }),
            Method::QueueDelete(q) if !q.no_wait => {
                Method::QueueDeleteOk(queue::DeleteOk { message_count: 0 })
            }
            Method::ExchangeDeclare(x) if !x.no_wait => Method::ExchangeDeclareOk,
            Method::ExchangeDelete(x) if !x.no_wait => Method::ExchangeDeleteOk,
            Method::BasicQos(_) => Method::BasicQosOk,
            Method::BasicGet(_) => Method::BasicGetEmpty,
            Method::TxSelect => Method::TxSelectOk,
            Method::TxCommit => Method::TxCommitOk,
            Method::TxRollback => Method::TxRollbackOk,
            _ => return,
        };
        self.answer(number, answer);
    }

    fn open(&mut self, number: u16) -> Result<()> {
        if number == 0 || number > CHANNEL_MAX {
            bail!("channel {number} cannot be opened");
        }
        let at = usize::from(number);
        if self.channels.len() <= at {
            self.channels.resize_with(at + 1, Channel::default);
        }
        if self.channels[at].open {
            bail!("channel {number} is open already");
        }
        self.channels[at].open = true;
        self.broker.counts.channels.fetch_add(1, Ordering::SeqCst);
        self.answer(number, Method::ChannelOpenOk);
        Ok(())
    }

    fn consume(&mut self, number: u16, consume: &basic::Consume<'_>) -> Result<()> {
        let channel = self.channel(number)?;
        channel.consumers += 1;
        let made = format!("ctag-{}", channel.consumers);
        let consumer_tag =
            if consume.consumer_tag.is_empty() { made.as_bytes() } else { consume.consumer_tag };
        if !consume.no_wait {
            let ok = basic::ConsumeOk { consumer_tag };
            self.answer(number, Method::BasicConsumeOk(ok));
        }
        self.flush(); // the deliveries come from another thread
        if let Some(queue) = self.broker.queues.find(consume.queue) {
            self.consumers.start(queue, number, consumer_tag, &self.broker.counts);
        }
        Ok(())
    }
}

/// As RabbitMQ 3.10 introduces itself.
fn server_properties() -> Vec<u8> {
    let mut capabilities = FieldTable::default();
    for name in [
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
        capabilities.insert(name.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    for (name, value) in [("product", "RabbitMQ"), ("version", "3.10.8"), ("platform", "null broker")] {
        properties.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    encode_table(&properties)
}
