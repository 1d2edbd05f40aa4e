//! The cases of `tests/clients/README.md`, done by amqprs.

use super::{
    BURST, CHANNELS, HEARTBEAT, HEARTBEATS_FOR, LARGE_SHA256, MESSAGES, PAUSE, PROOF, large_body, until_done,
};
use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicCancelArguments, BasicConsumeArguments, BasicGetArguments, BasicPublishArguments,
    BasicQosArguments, Channel, ConfirmSelectArguments, ConsumerMessage, ExchangeDeclareArguments,
    ExchangeDeleteArguments, QueueBindArguments, QueueDeclareArguments, QueueDeleteArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use warren_testkit::clients::{Case, Login};

type Result<T> = std::result::Result<T, Error>;

pub(super) fn run(case: Case, login: &Login) -> Vec<Value> {
    let done = until_done("amqprs", async {
        match case {
            Case::Job => job(login).await,
            Case::Refused => Ok(vec![refused(login).await?]),
            Case::Channels => Ok(vec![channels(login).await?]),
            Case::Busy => Ok(vec![busy(login).await?]),
            Case::Idle => Ok(vec![idle(login).await?]),
        }
    });
    done.unwrap_or_else(|e| panic!("amqprs failed at {case:?}: {e}"))
}

/// What the broker says by itself on a channel.
enum Heard {
    /// One message, or all up to it.
    Confirmed(u64, bool),
    Nacked,
    Returned(Value),
    Closed(u16),
}

struct Listener(UnboundedSender<Heard>);

impl Listener {
    /// Who does not listen any more does not want to know.
    fn tell(&self, heard: Heard) {
        let _ = self.0.send(heard);
    }
}

#[async_trait::async_trait]
impl ChannelCallback for Listener {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<()> {
        self.tell(Heard::Closed(close.reply_code()));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<()> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.tell(Heard::Confirmed(ack.delivery_tag(), ack.mutiple()));
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        self.tell(Heard::Nacked);
    }

    async fn publish_return(&mut self, _: &Channel, returned: Return, _: BasicProperties, body: Vec<u8>) {
        self.tell(Heard::Returned(json!({
            "step": "return",
            "code": returned.reply_code(),
            "text": returned.reply_text(),
            "exchange": returned.exchange(),
            "key": returned.routing_key(),
            "body": String::from_utf8_lossy(&body),
        })));
    }
}

type Ears = UnboundedReceiver<Heard>;

async fn connect(login: &Login, heartbeat: Option<u16>) -> Result<Connection> {
    let (host, port) = (login.address.ip().to_string(), login.address.port());
    let mut arguments = OpenConnectionArguments::new(&host, port, "guest", &login.password);
    arguments.virtual_host(&login.vhost);
    if let Some(heartbeat) = heartbeat {
        arguments.heartbeat(heartbeat);
    }
    Connection::open(&arguments).await
}

async fn open_channel(connection: &Connection) -> Result<(Channel, Ears)> {
    let channel = connection.open_channel(None).await?;
    let (sender, ears) = unbounded_channel();
    channel.register_callback(Listener(sender)).await?;
    Ok((channel, ears))
}

/// Declares a queue; gives the name and the count of messages that the broker tells.
async fn declare_queue(channel: &Channel, arguments: &mut QueueDeclareArguments) -> Result<(String, u32)> {
    let answer = channel.queue_declare(arguments.finish()).await?;
    let (name, messages, _) = answer.expect("a declare that waits gets an answer");
    Ok((name, messages))
}

fn queue(name: &str) -> QueueDeclareArguments {
    QueueDeclareArguments::new(name)
}

async fn job(login: &Login) -> Result<Vec<Value>> {
    let connection = connect(login, None).await?;
    let (channel, mut ears) = open_channel(&connection).await?;
    let product = connection.server_properties().product().to_owned();
    let mut report = vec![json!({"step": "connect", "product": product})];
    let (declared, generated) = declare(&channel, login).await?;
    report.push(declared);
    report.push(publish(&channel, &mut ears).await?);
    report.push(consume(&channel).await?);
    report.push(get(&channel, &mut ears, &generated).await?);
    report.push(unroutable(&channel, &mut ears).await?);
    report.push(large(&channel, &mut ears).await?);
    channel.queue_delete(QueueDeleteArguments::new("durable")).await?;
    channel.exchange_delete(ExchangeDeleteArguments::new("events")).await?;
    channel.close().await?;
    let observed = connection.clone();
    connection.close().await?;
    report.push(json!({"step": "close", "clean": !observed.is_open()}));
    Ok(report)
}

async fn declare(channel: &Channel, login: &Login) -> Result<(Value, String)> {
    let (durable, _) = declare_queue(channel, queue("durable").durable(true)).await?;
    let (generated, _) = declare_queue(channel, &mut queue("")).await?;
    let (exclusive, _) = declare_queue(channel, queue("exclusive").exclusive(true)).await?;
    channel.exchange_declare(ExchangeDeclareArguments::new("events", "topic")).await?;
    channel.queue_bind(QueueBindArguments::new("durable", "events", "job.#")).await?;
    let declared = json!({
        "step": "declare",
        "durable": durable,
        "exclusive": exclusive,
        "generated": generated.starts_with("amq.gen-"),
        "locked": locked(login).await?,
    });
    Ok((declared, generated))
}

/// What a second connection gets for looking at the exclusive queue.
async fn locked(login: &Login) -> Result<u16> {
    let other = connect(login, None).await?;
    let (channel, mut ears) = open_channel(&other).await?;
    let refused = declare_queue(&channel, queue("exclusive").passive(true)).await.is_err();
    let code = match ears.recv().await {
        Some(Heard::Closed(code)) if refused => code,
        _ => 0,
    };
    other.close().await?;
    Ok(code)
}

async fn publish_to(channel: &Channel, to: &str, body: &[u8]) -> Result<()> {
    let arguments = BasicPublishArguments::new("", to);
    channel.basic_publish(BasicProperties::default(), body.to_vec(), arguments).await
}

async fn publish(channel: &Channel, ears: &mut Ears) -> Result<Value> {
    channel.confirm_select(ConfirmSelectArguments::new(false)).await?;
    for n in 0..MESSAGES {
        let mut headers = FieldTable::new();
        let number = FieldValue::l(i64::try_from(n).expect("small"));
        headers.insert("n".try_into().expect("a short name"), number);
        let properties = BasicProperties::default().with_persistence(true).with_headers(headers).finish();
        let arguments = BasicPublishArguments::new("events", &format!("job.{n}"));
        channel.basic_publish(properties, format!("message {n}").into_bytes(), arguments).await?;
    }
    let mut waiting: BTreeSet<u64> = (1..).take(MESSAGES).collect();
    let mut nacked = 0;
    while !waiting.is_empty() && nacked == 0 {
        match ears.recv().await {
            Some(Heard::Confirmed(tag, false)) => _ = waiting.remove(&tag),
            Some(Heard::Confirmed(tag, true)) => waiting.retain(|t| *t > tag),
            Some(Heard::Nacked) => nacked += 1,
            _ => panic!("neither confirmed nor nacked: {waiting:?}"),
        }
    }
    Ok(json!({"step": "publish", "confirmed": MESSAGES - waiting.len(), "nacked": nacked}))
}

async fn confirmed(ears: &mut Ears) {
    let heard = ears.recv().await;
    assert!(matches!(heard, Some(Heard::Confirmed(..))), "a message was not confirmed");
}

type Messages = UnboundedReceiver<ConsumerMessage>;

async fn start_consumer(channel: &Channel, queue: &str, ack: bool) -> Result<(String, Messages)> {
    let arguments = BasicConsumeArguments::new(queue, "").manual_ack(ack).finish();
    channel.basic_consume_rx(arguments).await
}

async fn consume(channel: &Channel) -> Result<Value> {
    channel.basic_qos(BasicQosArguments::new(0, 50, false)).await?;
    let (tag, mut messages) = start_consumer(channel, "durable", true).await?;
    let (mut received, mut redelivered, mut in_order) = (0, 0, true);
    while received < MESSAGES {
        let message = messages.recv().await.expect("the consumer is not cancelled");
        let deliver = message.deliver.expect("a promise of the library");
        let n = message.basic_properties.as_ref().and_then(number);
        in_order &= message.content.as_deref() == Some(format!("message {received}").as_bytes());
        in_order &= n == i64::try_from(received).ok();
        redelivered += usize::from(deliver.redelivered());
        received += 1;
        channel.basic_ack(BasicAckArguments::new(deliver.delivery_tag(), false)).await?;
    }
    channel.basic_cancel(BasicCancelArguments::new(&tag)).await?;
    let (_, left) = declare_queue(channel, queue("durable").passive(true)).await?;
    Ok(json!({
        "step": "consume", "received": received, "in_order": in_order, "redelivered": redelivered, "left": left
    }))
}

/// The header `n`.
fn number(properties: &BasicProperties) -> Option<i64> {
    match properties.headers()?.get(&"n".try_into().expect("a short name"))? {
        FieldValue::l(n) => Some(*n),
        _ => None,
    }
}

async fn get(channel: &Channel, ears: &mut Ears, queue: &str) -> Result<Value> {
    publish_to(channel, queue, b"got").await?;
    confirmed(ears).await;
    let message = channel.basic_get(BasicGetArguments::new(queue)).await?;
    let (got, _, body) = message.expect("the message is there");
    channel.basic_ack(BasicAckArguments::new(got.delivery_tag(), false)).await?;
    let empty = channel.basic_get(BasicGetArguments::new(queue)).await?.is_none();
    let body = String::from_utf8_lossy(&body);
    Ok(json!({"step": "get", "body": body, "count": got.message_count(), "empty": empty}))
}

async fn unroutable(channel: &Channel, ears: &mut Ears) -> Result<Value> {
    let arguments = BasicPublishArguments::new("", "nowhere").mandatory(true).finish();
    channel.basic_publish(BasicProperties::default(), b"lost".to_vec(), arguments).await?;
    let Some(Heard::Returned(report)) = ears.recv().await else { panic!("the message did not come back") };
    confirmed(ears).await;
    Ok(report)
}

async fn next_message(channel: &Channel, queue: &str) -> Result<Vec<u8>> {
    let (tag, mut messages) = start_consumer(channel, queue, true).await?;
    let message = messages.recv().await.expect("the consumer is not cancelled");
    let delivery_tag = message.deliver.expect("a promise of the library").delivery_tag();
    channel.basic_ack(BasicAckArguments::new(delivery_tag, false)).await?;
    channel.basic_cancel(BasicCancelArguments::new(&tag)).await?;
    Ok(message.content.expect("a promise of the library"))
}

async fn large(channel: &Channel, ears: &mut Ears) -> Result<Value> {
    let body = large_body();
    publish_to(channel, "exclusive", &body).await?;
    confirmed(ears).await;
    let received = next_message(channel, "exclusive").await?;
    let sha256 = if received == body { LARGE_SHA256 } else { "another" };
    Ok(json!({"step": "large", "size": received.len(), "sha256": sha256}))
}

async fn refused(login: &Login) -> Result<Value> {
    let error = match connect(login, None).await {
        Ok(connection) => {
            connection.close().await?;
            None
        }
        Err(error) => Some(error.to_string()),
    };
    Ok(json!({"step": "refused", "error": error}))
}

async fn channels(login: &Login) -> Result<Value> {
    let connection = connect(login, None).await?;
    let mut opened = Vec::new();
    for _ in 0..CHANNELS {
        opened.push(open_channel(&connection).await?.0);
    }
    let mut consumers = Vec::new();
    for (n, channel) in opened.iter().enumerate() {
        let name = format!("many.{n}");
        declare_queue(channel, queue(&name).exclusive(true)).await?;
        consumers.push(start_consumer(channel, &name, false).await?.1);
    }
    for (n, channel) in opened.iter().enumerate() {
        let to = (n + 1) % CHANNELS;
        publish_to(channel, &format!("many.{to}"), format!("to {to}").as_bytes()).await?;
    }
    let (mut received, mut right) = (0, true);
    for (n, messages) in consumers.iter_mut().enumerate() {
        let message = messages.recv().await.expect("the consumer is not cancelled");
        right &= message.content.as_deref() == Some(format!("to {n}").as_bytes());
        received += 1;
    }
    connection.close().await?;
    Ok(json!({"step": "channels", "open": CHANNELS, "received": received, "right": right}))
}

async fn prove(step: &str, connection: Connection, channel: &Channel) -> Result<Value> {
    let (queue, _) = declare_queue(channel, queue("").exclusive(true)).await?;
    publish_to(channel, &queue, PROOF).await?;
    let alive = next_message(channel, &queue).await? == PROOF;
    connection.close().await?;
    Ok(json!({"step": step, "alive": alive}))
}

async fn busy(login: &Login) -> Result<Value> {
    let connection = connect(login, Some(HEARTBEAT)).await?;
    let (channel, _ears) = open_channel(&connection).await?;
    let end = Instant::now() + HEARTBEATS_FOR;
    while Instant::now() < end {
        for _ in 0..BURST {
            publish_to(&channel, "nowhere", &[0; 100]).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    prove("busy", connection, &channel).await
}

async fn idle(login: &Login) -> Result<Value> {
    let connection = connect(login, Some(HEARTBEAT)).await?;
    let (channel, _ears) = open_channel(&connection).await?;
    tokio::time::sleep(HEARTBEATS_FOR).await;
    prove("idle", connection, &channel).await
}
