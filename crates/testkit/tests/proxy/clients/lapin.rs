//! The cases of `tests/clients/README.md`, done by lapin.

use super::{
    BURST, CHANNELS, HEARTBEAT, HEARTBEATS_FOR, LARGE_SHA256, MESSAGES, PAUSE, PROOF, large_body, until_done,
};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;
use warren_testkit::clients::{Case, Login};

pub(super) fn run(case: Case, login: &Login) -> Vec<Value> {
    let done = until_done("lapin", async {
        match case {
            Case::Job => job(login).await,
            Case::Refused => Ok(vec![refused(login).await?]),
            Case::Channels => Ok(vec![channels(login).await?]),
            Case::Busy => Ok(vec![busy(login).await?]),
            Case::Idle => Ok(vec![idle(login).await?]),
        }
    });
    done.unwrap_or_else(|e| panic!("lapin failed at {case:?}: {e}"))
}

async fn connect(login: &Login, heartbeat: Option<u16>) -> lapin::Result<Connection> {
    let Login { address, vhost, password } = login;
    let query = heartbeat.map(|seconds| format!("?heartbeat={seconds}")).unwrap_or_default();
    let uri = format!("amqp://guest:{password}@{address}/{vhost}{query}");
    Connection::connect(&uri, ConnectionProperties::default()).await
}

async fn job(login: &Login) -> lapin::Result<Vec<Value>> {
    let connection = connect(login, None).await?;
    let channel = connection.create_channel().await?;
    let mut report = vec![json!({
        "step": "connect", "product": null, "note": "The library keeps the properties of the server to itself.",
    })];
    let (declared, generated) = declare(&channel, login).await?;
    report.push(declared);
    report.push(publish(&channel).await?);
    report.push(consume(&channel).await?);
    report.push(get(&channel, &generated).await?);
    report.push(unroutable(&channel).await?);
    report.push(large(&channel).await?);
    channel.queue_delete("durable".into(), QueueDeleteOptions::default()).await?;
    channel.exchange_delete("events".into(), ExchangeDeleteOptions::default()).await?;
    channel.close(200, "bye".into()).await?;
    connection.close(200, "bye".into()).await?;
    // close() ends with the broker's answer; lapin's own state follows a moment later.
    let clean = async {
        while !connection.status().closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let clean = tokio::time::timeout(Duration::from_secs(5), clean).await.is_ok();
    report.push(json!({"step": "close", "clean": clean}));
    Ok(report)
}

async fn declare(channel: &Channel, login: &Login) -> lapin::Result<(Value, ShortString)> {
    let arguments = FieldTable::default;
    let durable =
        channel.queue_declare("durable".into(), QueueDeclareOptions::durable(), arguments()).await?;
    let generated = channel.queue_declare("".into(), QueueDeclareOptions::default(), arguments()).await?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let exclusive = channel.queue_declare("exclusive".into(), options, arguments()).await?;
    let topic = ExchangeDeclareOptions::default();
    channel.exchange_declare("events".into(), ExchangeKind::Topic, topic, arguments()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind("durable".into(), "events".into(), "job.#".into(), bind, arguments()).await?;
    let declared = json!({
        "step": "declare",
        "durable": durable.name().as_str(),
        "exclusive": exclusive.name().as_str(),
        "generated": generated.name().as_str().starts_with("amq.gen-"),
        "locked": locked(login).await?,
    });
    Ok((declared, generated.name().clone()))
}

/// What a second connection gets for looking at the exclusive queue.
async fn locked(login: &Login) -> lapin::Result<u16> {
    let other = connect(login, None).await?;
    let channel = other.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let answer = channel.queue_declare("exclusive".into(), options, FieldTable::default()).await;
    other.close(200, "bye".into()).await?;
    match answer.as_ref().map_err(lapin::Error::kind) {
        Err(ErrorKind::ProtocolError(e)) => Ok(e.get_id()),
        _ => Ok(0),
    }
}

async fn publish(channel: &Channel) -> lapin::Result<Value> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut confirms = Vec::new();
    for n in 0..MESSAGES {
        let mut headers = FieldTable::default();
        headers.insert("n".into(), AMQPValue::LongLongInt(i64::try_from(n).expect("small")));
        let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
        let (key, body) = (format!("job.{n}").into(), format!("message {n}"));
        let options = BasicPublishOptions::default();
        confirms
            .push(channel.basic_publish("events".into(), key, options, body.as_bytes(), properties).await?);
    }
    let (mut confirmed, mut nacked) = (0, 0);
    for confirm in confirms {
        let confirmation = confirm.await?;
        confirmed += usize::from(confirmation.is_ack());
        nacked += usize::from(confirmation.is_nack());
    }
    Ok(json!({"step": "publish", "confirmed": confirmed, "nacked": nacked}))
}

async fn consume(channel: &Channel) -> lapin::Result<Value> {
    channel.basic_qos(50, BasicQosOptions::default()).await?;
    let mut consumer = start_consumer(channel, "durable").await?;
    let (mut received, mut redelivered, mut in_order) = (0, 0, true);
    while received < MESSAGES {
        let delivery = consumer.next().await.expect("the consumer is not cancelled")?;
        let headers = delivery.properties.headers().as_ref().expect("headers");
        let n = headers.inner().get("n").and_then(AMQPValue::as_long_long_int);
        in_order &= delivery.data == format!("message {received}").as_bytes();
        in_order &= n == i64::try_from(received).ok();
        redelivered += usize::from(delivery.redelivered);
        received += 1;
        delivery.ack(BasicAckOptions::default()).await?;
    }
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("durable".into(), options, FieldTable::default()).await?;
    let left = queue.message_count();
    Ok(json!({
        "step": "consume", "received": received, "in_order": in_order, "redelivered": redelivered, "left": left
    }))
}

async fn start_consumer(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel
        .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
}

async fn get(channel: &Channel, queue: &ShortString) -> lapin::Result<Value> {
    publish_to(channel, queue.as_str(), b"got", false).await?;
    let options = BasicGetOptions::default();
    let message = channel.basic_get(queue.clone(), options).await?.expect("the message is there");
    message.ack(BasicAckOptions::default()).await?;
    let empty = channel.basic_get(queue.clone(), options).await?.is_none();
    let body = String::from_utf8_lossy(&message.data).into_owned();
    Ok(json!({"step": "get", "body": body, "count": message.message_count, "empty": empty}))
}

async fn publish_to(
    channel: &Channel,
    queue: &str,
    body: &[u8],
    mandatory: bool,
) -> lapin::Result<lapin::Confirmation> {
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default();
    channel.basic_publish("".into(), queue.into(), options, body, properties).await?.await
}

async fn unroutable(channel: &Channel) -> lapin::Result<Value> {
    let confirmation = publish_to(channel, "nowhere", b"lost", true).await?;
    let returned = confirmation.take_message().expect("the message comes back");
    Ok(json!({
        "step": "return",
        "code": returned.reply_code,
        "text": returned.reply_text.as_str(),
        "exchange": returned.delivery.exchange.as_str(),
        "key": returned.delivery.routing_key.as_str(),
        "body": String::from_utf8_lossy(&returned.delivery.data),
    }))
}

async fn next_message(channel: &Channel, queue: &str) -> lapin::Result<Vec<u8>> {
    let mut consumer = start_consumer(channel, queue).await?;
    let delivery = consumer.next().await.expect("the consumer is not cancelled")?;
    delivery.ack(BasicAckOptions::default()).await?;
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await?;
    Ok(delivery.data)
}

async fn large(channel: &Channel) -> lapin::Result<Value> {
    let body = large_body();
    publish_to(channel, "exclusive", &body, false).await?;
    let received = next_message(channel, "exclusive").await?;
    // The hash is known, and the octets are compared: hashing here would need another dependency.
    let sha256 = if received == body { LARGE_SHA256 } else { "another" };
    Ok(json!({"step": "large", "size": received.len(), "sha256": sha256}))
}

async fn refused(login: &Login) -> lapin::Result<Value> {
    let error = match connect(login, None).await {
        Ok(connection) => {
            connection.close(200, "bye".into()).await?;
            None
        }
        Err(error) => Some(error.to_string()),
    };
    Ok(json!({"step": "refused", "error": error}))
}

async fn declare_exclusive(channel: &Channel, name: &str) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare(name.into(), options, FieldTable::default()).await?.name().clone())
}

async fn channels(login: &Login) -> lapin::Result<Value> {
    let connection = connect(login, None).await?;
    let mut opened = Vec::new();
    for _ in 0..CHANNELS {
        opened.push(connection.create_channel().await?);
    }
    let mut consumers = Vec::new();
    for (n, channel) in opened.iter().enumerate() {
        let queue = declare_exclusive(channel, &format!("many.{n}")).await?;
        consumers.push(start_consumer(channel, queue.as_str()).await?);
    }
    for (n, channel) in opened.iter().enumerate() {
        let to = (n + 1) % CHANNELS;
        publish_to(channel, &format!("many.{to}"), format!("to {to}").as_bytes(), false).await?;
    }
    let (mut received, mut right) = (0, true);
    for (n, consumer) in consumers.iter_mut().enumerate() {
        let delivery = consumer.next().await.expect("the consumer is not cancelled")?;
        right &= delivery.data == format!("to {n}").as_bytes();
        delivery.ack(BasicAckOptions::default()).await?;
        received += 1;
    }
    connection.close(200, "bye".into()).await?;
    Ok(json!({"step": "channels", "open": CHANNELS, "received": received, "right": right}))
}

async fn prove(step: &str, connection: &Connection, channel: &Channel) -> lapin::Result<Value> {
    let queue = declare_exclusive(channel, "").await?;
    publish_to(channel, queue.as_str(), PROOF, false).await?;
    let alive = next_message(channel, queue.as_str()).await? == PROOF;
    connection.close(200, "bye".into()).await?;
    Ok(json!({"step": step, "alive": alive}))
}

async fn busy(login: &Login) -> lapin::Result<Value> {
    let connection = connect(login, Some(HEARTBEAT)).await?;
    let channel = connection.create_channel().await?;
    let end = Instant::now() + HEARTBEATS_FOR;
    while Instant::now() < end {
        for _ in 0..BURST {
            publish_to(&channel, "nowhere", &[0; 100], false).await?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    prove("busy", &connection, &channel).await
}

async fn idle(login: &Login) -> lapin::Result<Value> {
    let connection = connect(login, Some(HEARTBEAT)).await?;
    let channel = connection.create_channel().await?;
    tokio::time::sleep(HEARTBEATS_FOR).await;
    prove("idle", &connection, &channel).await
}
