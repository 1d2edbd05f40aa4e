//! Ten thousand clients: what one small machine must carry. They share one thread and its runtime, because what is under
//! test runs on the same two cores.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, rabbit, unique};
use warren_wire::content::write_content;
use warren_wire::frame::{FRAME_HEARTBEAT, PROTOCOL_HEADER, next_frame};
use warren_wire::method::{basic, channel, connection};
use warren_wire::{BasicProperties, Method, MethodId, Table};

const CLIENTS: usize = 10_000;
/// In the middle of a handshake: one thread of a busy machine must get to each of them within the time that a step may
/// take.
const AT_ONCE: usize = 1_000;
/// A few seconds where nothing else runs. Clients that had to wait until a connection of theirs to the broker is
/// there would take longer, on any machine.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);
/// RabbitMQ opens some 1,000 channels per second.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(120);
/// More than an idle client with a channel costs, its share of the allocator's waste included.
const OCTETS_EACH: u64 = 8 * 1024;
/// What may stay with the allocator, of some 35 MiB at the peak. Warren frees everything (the records are gone, the
/// buffers are back), and jemalloc gives unused pages back after a while.
const LEFT_BEHIND: u64 = 12 << 20;
/// So that nothing is lost with each crowd: the second one finds what the first one left.
const LEFT_BY_THE_SECOND: u64 = 6 << 20;

/// A client on the runtime.
pub(super) struct Client {
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
                if frame.kind == FRAME_HEARTBEAT {
                    self.unread.drain(..frame.end);
                    continue;
                }
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

/// All of them, [`AT_ONCE`] at one time.
fn connect_all(runtime: &Runtime, address: SocketAddr, vhost: &str) -> Vec<Client> {
    connect_many(runtime, CLIENTS, address, vhost)
}

/// So many clients at once, each with channel 1 open.
pub(super) fn connect_many(runtime: &Runtime, count: usize, address: SocketAddr, vhost: &str) -> Vec<Client> {
    runtime.block_on(async {
        let mut connected = Vec::with_capacity(count);
        while connected.len() < count {
            let mut clients = JoinSet::new();
            for _ in 0..AT_ONCE.min(count - connected.len()) {
                let vhost = vhost.to_owned();
                clients.spawn(async move { Client::connect(address, &vhost).await });
            }
            connected.extend(clients.join_all().await);
        }
        connected
    })
}

/// A Warren, and what the crowd does with it.
struct Place<'a> {
    rabbit: &'a Rabbit,
    warren: Warren,
    vhost: String,
    queue: String,
}

impl Place<'_> {
    /// Ten thousand come, publish a message each, and leave.
    fn visit(&self, runtime: &Runtime, visits: usize) {
        let before = self.warren.resident();
        let started = Instant::now();
        let mut clients = connect_all(runtime, self.warren.address(), &self.vhost);
        let took = started.elapsed();
        let each = self.warren.resident().saturating_sub(before) / CLIENTS as u64;
        let upstream = self.rabbit.connections(&self.vhost).len();
        println!("{CLIENTS} clients with a channel each: {took:?}, {each} octets each, {upstream} upstream");
        assert!(took < CONNECTED_WITHIN, "it took {took:?}");
        assert!(each < OCTETS_EACH, "{each} octets for each");
        assert!((1..=5).contains(&upstream), "{upstream} connections upstream");
        assert_eq!(self.warren.metric("warren_client_channels"), CLIENTS as f64);

        let started = Instant::now();
        runtime.block_on(async {
            for (n, client) in clients.iter_mut().enumerate() {
                client.send(&publish(&self.queue, n.to_string().as_bytes())).await;
            }
        });
        eventually("all messages are in the queue", PUBLISHED_WITHIN, || {
            let ready = self.rabbit.queue(&self.vhost, &self.queue).map_or(0, |q| q.ready);
            ready == (visits * CLIENTS) as u64
        });
        let upstream = self.rabbit.connections(&self.vhost).len();
        println!("a message of each: {:?}, {upstream} connections upstream", started.elapsed());
        assert!(upstream <= 8, "{upstream} connections upstream, for 2047 channels each");
        self.leave(runtime, clients);
    }

    /// One half says good-bye, the other does not.
    fn leave(&self, runtime: &Runtime, mut clients: Vec<Client>) {
        let started = Instant::now();
        runtime.block_on(async {
            let vanishing = clients.split_off(CLIENTS / 2);
            let mut leaving = JoinSet::new();
            for client in clients {
                leaving.spawn(client.close());
            }
            drop(vanishing);
            leaving.join_all().await;
        });
        eventually("all are forgotten", Duration::from_secs(60), || {
            let left = ["warren_client_connections", "warren_client_channels", "warren_buffer_bytes"];
            left.iter().all(|name| self.warren.metric(name) == 0.0)
        });
        println!("all have left: {:?}", started.elapsed());
    }

    /// Waits until Warren takes no more memory than it did before, but for a rest. Channels that are kept for reuse are
    /// closed with their connections, when these have been idle.
    fn expect_memory_back(&self, before: u64, rest: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let left = || self.warren.resident().saturating_sub(before);
        while left() > rest {
            let upstream = self.warren.metric("warren_upstream_channels");
            assert!(Instant::now() < deadline, "{} octets more, {upstream} channels upstream", left());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("memory: {} KiB more than before", left() >> 10);
    }
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
    // A worker for each of two cores.
    let warren = Warren::start_patient(&rabbit, 2);
    let place = Place { rabbit: &rabbit, warren, vhost, queue };
    let mut first = Peer::connect_with(place.warren.address(), &Handshake::on(&place.vhost));
    first.open_channel(1);
    first.close();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");

    let before = place.warren.resident();
    place.visit(&runtime, 1);
    place.expect_memory_back(before, LEFT_BEHIND);
    let after = place.warren.resident();
    place.visit(&runtime, 2);
    place.expect_memory_back(after, LEFT_BY_THE_SECOND);
    assert_eq!(place.warren.metric("warren_published_messages_total"), 2.0 * CLIENTS as f64);
    place.warren.stop();
    rabbit.delete_vhost(&place.vhost);
}
