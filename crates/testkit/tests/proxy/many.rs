//! Ten thousand clients: what one small machine must carry. They share one thread and its runtime, because what is under
//! test runs on the same two cores.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use warren_testkit::{Handshake, Peer, Warren, eventually, rabbit, unique};
use warren_wire::content::write_content;
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{basic, channel, connection};
use warren_wire::{BasicProperties, Method, MethodId, Table};

const CLIENTS: usize = 10_000;
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
/// RabbitMQ opens some 1,000 channels per second.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(60);
/// More than an idle client with a channel costs, its share of the allocator's waste included.
const OCTETS_EACH: u64 = 8 * 1024;
/// Of what the crowd took, so much may stay with the allocator: free pages between others in use.
const LEFT_BEHIND: u64 = 12 << 20;

/// A client on the runtime.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects and opens channel 1, as fast as the other side lets it.
    async fn connect(address: SocketAddr, vhost: &str) -> Client {
        let stream = TcpStream::connect(address).await.expect("the port is open");
        stream.set_nodelay(true).expect("a TCP socket");
        let mut client = Client { stream, unread: Vec::new() };
        client.send(&PROTOCOL_HEADER).await;
        client.expect(0, connection::START).await;
        client.send(&start_ok()).await;
        client.expect(0, connection::TUNE).await;
        client.send(&rest_of_handshake(vhost)).await;
        client.expect(0, connection::OPEN_OK).await;
        client.expect(1, channel::OPEN_OK).await;
        client.unread = Vec::new();
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is served");
    }

    /// The next frame, which must be this method.
    async fn expect(&mut self, channel: u16, id: MethodId) {
        loop {
            if let Some(frame) = next_frame(&self.unread, 0, 131_064).expect("frames") {
                let payload = frame.payload(&self.unread);
                let (number, method) = (frame.channel, warren_wire::method::method_id(payload));
                assert_eq!((number, method), (channel, Some(id)), "another frame than expected");
                self.unread.drain(..frame.end);
                return;
            }
            let mut part = [0; 1024];
            let n = self.stream.read(&mut part).await.expect("it is served");
            assert!(n > 0, "the connection has ended");
            self.unread.extend_from_slice(&part[..n]);
        }
    }

    /// Closes the connection in good order.
    async fn close(mut self) {
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        let mut bytes = Vec::new();
        Method::ConnectionClose(close).write(0, &mut bytes);
        self.send(&bytes).await;
        self.expect(0, connection::CLOSE_OK).await;
    }
}

fn start_ok() -> Vec<u8> {
    let ok = connection::StartOk {
        client_properties: Table::EMPTY,
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    };
    let mut bytes = Vec::new();
    Method::ConnectionStartOk(ok).write(0, &mut bytes);
    bytes
}

fn rest_of_handshake(vhost: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
    Method::ConnectionTuneOk(ok).write(0, &mut bytes);
    Method::ConnectionOpen(connection::Open { virtual_host: vhost.as_bytes() }).write(0, &mut bytes);
    Method::ChannelOpen.write(1, &mut bytes);
    bytes
}

fn publish(queue: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..warren_testkit::peer::PUBLISH };
    Method::BasicPublish(publish).write(1, &mut bytes);
    write_content(1, &BasicProperties::default(), body, 131_072, &mut bytes);
    bytes
}

/// All of them at once.
fn connect_all(runtime: &Runtime, address: SocketAddr, vhost: &str) -> Vec<Client> {
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let vhost = vhost.to_owned();
            clients.spawn(async move { Client::connect(address, &vhost).await });
        }
        clients.join_all().await
    })
}

#[test]
fn ten_thousand_clients_are_let_in_served_and_forgotten() {
    warren_testkit::raise_descriptor_limit();
    let rabbit = rabbit::exclusive();
    let vhost = unique("many");
    rabbit.add_vhost(&vhost);
    let mut observer = Peer::connect_with(rabbit.address(), &Handshake::on(&vhost));
    observer.open_channel(1);
    let queue = observer.declare(1, "many");
    observer.close();
    // As on the small machine of the documentation: a worker for each of two cores.
    let warren = Warren::start_with(rabbit.port(), &["--workers", "2"]);
    let mut first = Peer::connect_with(warren.address(), &Handshake::on(&vhost));
    first.open_channel(1);
    first.close();
    let before = warren.resident();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");

    let started = Instant::now();
    let mut clients = connect_all(&runtime, warren.address(), &vhost);
    let took = started.elapsed();
    let each = warren.resident().saturating_sub(before) / CLIENTS as u64;
    let upstream = rabbit.connections(&vhost).len();
    println!(
        "{CLIENTS} clients with a channel each: {took:?}, {each} octets each, {upstream} connections upstream"
    );
    assert!(took < CONNECTED_WITHIN, "it took {took:?}");
    assert!(each < OCTETS_EACH, "{each} octets for each");
    assert!((1..=5).contains(&upstream), "{upstream} connections upstream");
    assert_eq!(warren.metric("warren_client_channels"), CLIENTS as f64);

    let started = Instant::now();
    runtime.block_on(async {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&publish(&queue, n.to_string().as_bytes())).await;
        }
    });
    eventually("all messages are in the queue", PUBLISHED_WITHIN, || {
        rabbit.queue(&vhost, &queue).is_some_and(|q| q.ready == CLIENTS as u64)
    });
    let upstream = rabbit.connections(&vhost).len();
    println!("a message of each: {:?}, {upstream} connections upstream", started.elapsed());
    assert!(upstream <= 8, "{upstream} connections upstream, for 2047 channels each");

    let started = Instant::now();
    runtime.block_on(async {
        // One half says good-bye, the other does not.
        let vanishing = clients.split_off(CLIENTS / 2);
        let mut leaving = JoinSet::new();
        for client in clients {
            leaving.spawn(client.close());
        }
        drop(vanishing);
        leaving.join_all().await;
    });
    eventually("all are forgotten", Duration::from_secs(60), || {
        warren.metric("warren_client_connections") == 0.0 && warren.metric("warren_client_channels") == 0.0
    });
    println!("all have left: {:?}", started.elapsed());
    assert_eq!(warren.metric("warren_published_messages_total"), CLIENTS as f64);
    expect_memory_back(&warren, before);
    warren.stop();
    rabbit.delete_vhost(&vhost);
}

/// Channels at the broker are closed when they have been idle: that takes its time.
fn expect_memory_back(warren: &Warren, before: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut left = u64::MAX;
    while left > LEFT_BEHIND {
        left = warren.resident().saturating_sub(before);
        assert!(
            Instant::now() < deadline,
            "{left} octets more than before: {} in buffers, {} channels upstream",
            warren.metric("warren_buffer_bytes"),
            warren.metric("warren_upstream_channels")
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("memory: {} KiB more than before", left >> 10);
}
