//! One short life of a client.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;

/// Nobody waits longer than this; what waits for a broker may take its five seconds several times over.
const LONGEST: Duration = Duration::from_secs(30);

/// A small generator: the same seed gives the same order of things.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Below a bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// What a client does with its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Publishes a few messages with confirms.
    Publishes,
    /// Publishes, and consumes what it published.
    Consumes,
    /// Uses a queue of its own that goes with it.
    Exclusive,
    /// Vanishes in the middle of a large message.
    Vanishes,
    /// Says a part of its handshake, and nothing more.
    Stalls,
    /// Says what is no AMQP.
    Babbles,
    /// Knows a wrong password.
    Stranger,
}

impl Way {
    pub(crate) fn draw(random: &mut Random) -> Way {
        match random.below(12) {
            0..=3 => Way::Publishes,
            4..=5 => Way::Consumes,
            6 => Way::Exclusive,
            7 => Way::Vanishes,
            8..=9 => Way::Stalls,
            10 => Way::Babbles,
            _ => Way::Stranger,
        }
    }
}

/// Lives it. Errors are those that a client sees when a broker is killed under it.
pub(crate) async fn live(address: SocketAddr, way: Way, random: &mut Random) -> Result<(), String> {
    let life = async {
        match way {
            Way::Stalls | Way::Babbles => badly(address, way, random).await.map_err(|e| e.to_string()),
            Way::Stranger => match connect(address, "wrong").await {
                Err(_) => Ok(()),
                Ok(_) => Err("a wrong password was taken".to_owned()),
            },
            _ => well(address, way, random).await.map_err(|e| e.to_string()),
        }
    };
    timeout(LONGEST, life).await.unwrap_or_else(|_| Err("it took too long".to_owned()))
}

async fn connect(address: SocketAddr, password: &str) -> lapin::Result<Connection> {
    let uri = format!("amqp://guest:{password}@{address}/%2f");
    Connection::connect(&uri, ConnectionProperties::default()).await
}

async fn badly(address: SocketAddr, way: Way, random: &mut Random) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let words: &[u8] = if way == Way::Stalls { b"AMQP\0\0\x09\x01" } else { b"GET / HTTP/1.1\r\n\r\n" };
    let said = usize::try_from(1 + random.below(words.len() as u64)).unwrap_or(1);
    stream.write_all(&words[..said]).await?;
    sleep(Duration::from_millis(random.below(3000))).await;
    Ok(())
}

async fn well(address: SocketAddr, way: Way, random: &mut Random) -> lapin::Result<()> {
    let connection = connect(address, "guest").await?;
    let channel = connection.create_channel().await?;
    let exclusive = way == Way::Exclusive;
    let name = if exclusive { String::new() } else { format!("soak-{}", random.below(8)) };
    let options = QueueDeclareOptions { exclusive, durable: !exclusive, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await?;
    let queue = queue.name().to_string();
    if way == Way::Vanishes {
        // Dropped in the middle: lapin ends the socket with what it has not written.
        let _ = timeout(Duration::from_millis(5), publish(&channel, &queue, 4 << 20)).await;
        return Ok(());
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    for _ in 0..=random.below(5) {
        publish(&channel, &queue, usize::try_from(random.below(20_000)).unwrap_or(0)).await?;
    }
    if way != Way::Publishes {
        consume(&channel, &queue).await?;
    }
    while let Some(message) =
        channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true }).await?
    {
        drop(message);
    }
    connection.close(200, "done".into()).await
}

/// Publishes, and waits for the confirm.
async fn publish(channel: &Channel, queue: &str, len: usize) -> lapin::Result<()> {
    let body = vec![b'x'; len];
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), queue.into(), options, &body, properties).await?.await.map(drop)
}

/// Takes a message or two, if they come soon: others empty the same queues.
async fn consume(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    for _ in 0..2 {
        let Ok(Some(delivery)) = timeout(Duration::from_millis(200), consumer.next()).await else { break };
        delivery?.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}
