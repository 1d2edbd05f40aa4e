//! A client that knows nothing of Warren: lapin.

use crate::both_ways;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio_stream::StreamExt;

const DONE_WITHIN: Duration = Duration::from_secs(60);

/// Runs a job with two connections, each with one channel.
fn with_two_channels<F: Future<Output = lapin::Result<()>>>(
    address: SocketAddr,
    job: impl Fn(Channel, Channel) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let uri = format!("amqp://guest:guest@{address}/%2f");
    let job = async {
        let one = Connection::connect(&uri, ConnectionProperties::default()).await?;
        let other = Connection::connect(&uri, ConnectionProperties::default()).await?;
        // Kept here as well: lapin closes a channel that is dropped, and then fails to close its connection.
        let channels = (one.create_channel().await?, other.create_channel().await?);
        job(channels.0.clone(), channels.1.clone()).await?;
        channels.0.close(200, "bye".into()).await?;
        channels.1.close(200, "bye".into()).await?;
        one.close(200, "bye".into()).await?;
        other.close(200, "bye".into()).await
    };
    let done = runtime.block_on(async { tokio::time::timeout(DONE_WITHIN, job).await });
    done.expect("lapin ends in time").unwrap_or_else(|e| panic!("lapin failed: {e}"));
}

async fn declare(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeclareOptions::default();
    channel.queue_declare(queue.into(), options, FieldTable::default()).await.map(drop)
}

async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
    properties: BasicProperties,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    channel.basic_publish(exchange.into(), key.into(), options, body, properties).await?.await
}

/// Bodies of what is in a queue, which is emptied.
async fn drain(channel: &Channel, queue: &str) -> lapin::Result<Vec<String>> {
    let mut bodies = Vec::new();
    while let Some(message) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await? {
        bodies.push(String::from_utf8_lossy(&message.data).into_owned());
    }
    Ok(bodies)
}

#[test]
fn exchanges_of_the_four_types_route() {
    both_ways(|address| with_two_channels(address, routes));
}

async fn routes(channel: Channel, reader: Channel) -> lapin::Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut red = FieldTable::default();
    red.insert("colour".into(), AMQPValue::LongString("red".into()));
    let mut wanted = red.clone();
    wanted.insert("x-match".into(), AMQPValue::LongString("all".into()));
    for (name, kind, key, arguments) in [
        ("one", ExchangeKind::Direct, "key", FieldTable::default()),
        ("all", ExchangeKind::Fanout, "", FieldTable::default()),
        ("some", ExchangeKind::Topic, "a.*.#", FieldTable::default()),
        ("headed", ExchangeKind::Headers, "", wanted),
    ] {
        let options = ExchangeDeclareOptions::default();
        channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await?;
        declare(&channel, name).await?;
        let options = QueueBindOptions::default();
        channel.queue_bind(name.into(), name.into(), key.into(), options, arguments).await?;
    }
    let plain = BasicProperties::default;
    for (exchange, key, properties, routed) in [
        ("one", "key", plain(), true),
        ("one", "kex", plain(), false),
        ("all", "whatever", plain(), true),
        ("some", "a.b", plain(), true),
        ("some", "a.b.c", plain(), true),
        ("some", "a", plain(), false),
        ("headed", "", plain().with_headers(red), true),
        ("headed", "", plain(), false),
        ("", "one", plain(), true),
    ] {
        let confirm = publish(&channel, exchange, key, key.as_bytes(), properties).await?;
        let returned = confirm.take_message().is_some();
        assert_eq!(returned, !routed, "{exchange} {key}");
    }
    assert_eq!(drain(&reader, "one").await?, ["key", "one"]);
    assert_eq!(drain(&reader, "all").await?, ["whatever"]);
    assert_eq!(drain(&reader, "some").await?, ["a.b", "a.b.c"]);
    assert_eq!(drain(&reader, "headed").await?, [""]);
    Ok(())
}

#[test]
fn messages_are_confirmed_consumed_and_settled() {
    both_ways(|address| with_two_channels(address, settles));
}

async fn settles(publisher: Channel, consumer: Channel) -> lapin::Result<()> {
    declare(&publisher, "jobs").await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    for n in 0..200 {
        let body = n.to_string();
        let confirm = publish(&publisher, "", "jobs", body.as_bytes(), BasicProperties::default()).await?;
        assert!(confirm.is_ack());
    }
    consumer.basic_qos(10, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let mut deliveries = consumer.basic_consume("jobs".into(), "".into(), options, arguments).await?;
    let (mut done, mut again) = (0, 0);
    while done < 200 {
        let delivery = deliveries.next().await.expect("the consumer lives")?;
        let n: usize = String::from_utf8_lossy(&delivery.data).parse().expect("a number");
        again += usize::from(delivery.redelivered);
        // One in ten is refused and comes again, one in ten is thrown away.
        match n % 10 {
            3 if !delivery.redelivered => delivery.nack(BasicNackOptions::default().requeue()).await?,
            7 => delivery.reject(BasicRejectOptions { requeue: false }).await?,
            _ => delivery.ack(BasicAckOptions::default()).await?,
        };
        done += usize::from(n % 10 != 3 || delivery.redelivered);
    }
    assert!(again >= 20, "{again} messages came again");
    consumer.basic_cancel(deliveries.tag(), BasicCancelOptions::default()).await?;
    assert!(drain(&publisher, "jobs").await?.is_empty());
    Ok(())
}

trait Requeue {
    fn requeue(self) -> Self;
}

impl Requeue for BasicNackOptions {
    fn requeue(mut self) -> Self {
        self.requeue = true;
        self
    }
}

#[test]
fn ten_megabytes_go_through_and_come_back() {
    both_ways(|address| with_two_channels(address, carries));
}

async fn carries(publisher: Channel, consumer: Channel) -> lapin::Result<()> {
    let body: Vec<u8> = (0..=250).cycle().take(10 * 1024 * 1024).collect();
    declare(&publisher, "large").await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    let properties = BasicProperties::default().with_message_id("large".into());
    assert!(publish(&publisher, "", "large", &body, properties).await?.is_ack());
    let options = BasicConsumeOptions::default();
    let arguments = FieldTable::default();
    let mut deliveries = consumer.basic_consume("large".into(), "".into(), options, arguments).await?;
    let delivery = deliveries.next().await.expect("the consumer lives")?;
    assert!(delivery.data == body, "{} octets came, others than were sent", delivery.data.len());
    assert_eq!(delivery.properties.message_id().as_ref().map(|id| id.as_str()), Some("large"));
    delivery.ack(BasicAckOptions::default()).await.map(drop)
}
