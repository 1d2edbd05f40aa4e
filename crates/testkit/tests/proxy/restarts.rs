//! A broker that is restarted twice and killed once under load: who should not notice does not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_stream::StreamExt;
use warren_testkit::peer::{DECLARE, PUBLISH};
use warren_testkit::{Handshake, Peer, Warren, eventually, project_folder, rabbit, unique};
use warren_wire::Method;
use warren_wire::content::BasicProperties;
use warren_wire::method::{basic, queue};

const PUBLISHERS: usize = 20;
const CONSUMERS: usize = 20;
const IDLE: usize = 200;
/// Publishes that a publisher leaves unanswered.
const WINDOW: usize = 10;
/// After the broker's return, every publisher must have gone on: Warren asks once a second. It is busy with all of them
/// then, and so is the broker, so there is time besides: as much as so many clients need for a publish without Warren.
/// Clients that are forgotten never go on.
const GOES_ON_WITHIN: Duration = Duration::from_secs(3);
const AND_CLIENTS: u32 = (PUBLISHERS + CONSUMERS) as u32;

/// What happened to every message, and when each publisher was answered last.
#[derive(Default)]
struct Ledger {
    stop: AtomicBool,
    acked: Mutex<BTreeSet<String>>,
    nacked: Mutex<BTreeSet<String>>,
    got: Mutex<BTreeSet<String>>,
    answered: Mutex<BTreeMap<String, Instant>>,
}

impl Ledger {
    fn answer(&self, name: &str, message: String, ack: bool) {
        let (mut acked, mut nacked) = (self.acked.lock().expect("fine"), self.nacked.lock().expect("fine"));
        assert!(!acked.contains(&message) && !nacked.contains(&message), "{message} is answered twice");
        if ack {
            acked.insert(message);
            self.answered.lock().expect("fine").insert(name.to_owned(), Instant::now());
        } else {
            nacked.insert(message);
        }
    }

    fn got(&self, message: String) {
        self.got.lock().expect("fine").insert(message);
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn connect(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect_with(address, &Handshake::default());
    peer.open_channel(1);
    peer
}

/// Publishes persistent messages with confirms, at most [`WINDOW`] unanswered.
fn publish(ledger: &Ledger, address: SocketAddr, queue: &str, name: &str) {
    let mut peer = connect(address);
    peer.confirm_select(1);
    let properties = BasicProperties { delivery_mode: Some(2), ..BasicProperties::default() };
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    let (mut next, mut open) = (0_u64, BTreeSet::new());
    while !ledger.is_over() || !open.is_empty() {
        if open.len() < WINDOW && !ledger.is_over() {
            next += 1;
            open.insert(next);
            peer.publish_with(1, &publish, &properties, format!("{name}-{next}").as_bytes());
            std::thread::sleep(Duration::from_millis(10));
        }
        let wait = if open.len() < WINDOW && !ledger.is_over() { 1 } else { 100 };
        match peer.try_next(1, Duration::from_millis(wait)) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                let (tag, multiple, ack) = match frame.method() {
                    Method::BasicAck(ack) => (ack.delivery_tag, ack.multiple, true),
                    Method::BasicNack(nack) => (nack.delivery_tag, nack.multiple, false),
                    _ => panic!("{name} got {frame:?}"),
                };
                let settled: Vec<u64> =
                    open.iter().copied().filter(|t| *t == tag || multiple && *t < tag).collect();
                assert!(settled.contains(&tag), "{name}: {tag} is answered, and is not open");
                for tag in settled {
                    open.remove(&tag);
                    ledger.answer(name, format!("{name}-{tag}"), ack);
                }
            }
            Err(end) => panic!("{name} was disconnected: {end:?}"),
        }
    }
    peer.close();
}

fn consume(ledger: &Ledger, address: SocketAddr, queue: &str, prefetch: Option<u16>) {
    let mut peer = connect(address);
    if let Some(prefetch) = prefetch {
        peer.qos(1, prefetch);
    }
    peer.consume(1, queue, "", false);
    while !ledger.is_over() {
        match peer.try_next(1, Duration::from_millis(100)) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                assert!(frame.is(basic::DELIVER), "a consumer got {frame:?}");
                let message = peer.content_of(frame);
                ledger.got(message.text());
                peer.ack(1, message.tag(), false);
            }
            Err(end) => panic!("a consumer was disconnected: {end:?}"),
        }
    }
    peer.close();
}

/// A client in another language, which writes what happens to its messages.
fn script(ledger: &Ledger, interpreter: &str, file: &str, address: SocketAddr, queue: &str) {
    let deps = project_folder().join(".deps");
    let mut command = Command::new(interpreter);
    command.arg(project_folder().join("tests/clients/load").join(file));
    command.args([&address.ip().to_string(), &address.port().to_string(), queue, interpreter]);
    command.env("PYTHONPATH", deps.join("python")).env("NODE_PATH", deps.join("node/node_modules"));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("starting {interpreter}: {e}; `make deps` installs it"));
    let stdin = child.stdin.take();
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !ledger.is_over() {
                std::thread::sleep(Duration::from_millis(20));
            }
            drop(stdin);
        });
        let mut done = false;
        for line in lines {
            let line = line.expect("text");
            match line.split_once(' ') {
                Some(("got", message)) => ledger.got(message.to_owned()),
                Some((answer, message)) => ledger.answer(interpreter, message.to_owned(), answer == "acked"),
                None => done = line == "done",
            }
        }
        let status = child.wait().expect("our own process");
        ledger.stop.store(true, Ordering::SeqCst);
        assert!(done && status.success(), "{file} ended with {status}");
    });
}

fn lapin(ledger: &Ledger, address: SocketAddr, queue: &str) {
    let work = async {
        use lapin::options::{
            BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
        };
        let uri = format!("amqp://guest:guest@{address}");
        let connection = lapin::Connection::connect(&uri, lapin::ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let reads = connection.create_channel().await?;
        reads.basic_qos(10, lapin::options::BasicQosOptions::default()).await?;
        let mut consumer = reads
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), Default::default())
            .await?;
        let publishes = async {
            let mut n = 0;
            while !ledger.is_over() {
                n += 1;
                let message = format!("lapin-{n}");
                let properties = lapin::BasicProperties::default().with_delivery_mode(2);
                let options = BasicPublishOptions::default();
                let sent =
                    channel.basic_publish("".into(), queue.into(), options, message.as_bytes(), properties);
                let confirmed = sent.await?.await?;
                ledger.answer("lapin", message, confirmed.is_ack());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<(), lapin::Error>(())
        };
        let consumes = async {
            while !ledger.is_over() {
                let Ok(next) = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await else {
                    continue;
                };
                let delivery = next.expect("lapin's consumer goes on")?;
                ledger.got(String::from_utf8_lossy(&delivery.data).into_owned());
                delivery.ack(BasicAckOptions::default()).await?;
            }
            Ok::<(), lapin::Error>(())
        };
        let (published, consumed) = tokio::join!(publishes, consumes);
        published.and(consumed)?;
        connection.close(200, "bye".into()).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work).unwrap_or_else(|e| panic!("lapin: {e}"));
}

/// How long a client needs past Warren for a publish, from its connection on.
fn without_warren(address: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut peer = connect(address);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    peer.publish(1, &queue, b"as it is now");
    peer.expect_confirms(1, 1, 1);
    let took = started.elapsed();
    peer.delete_queue(1, &queue);
    peer.close();
    took
}

/// All publishers have been answered since, in time.
fn all_went_on(ledger: &Ledger, returned: Instant, broker: SocketAddr) {
    let direct = without_warren(broker);
    let most = GOES_ON_WITHIN + direct * AND_CLIENTS;
    loop {
        let elapsed = returned.elapsed();
        let answered = ledger.answered.lock().expect("fine").clone();
        let late: Vec<&String> =
            answered.iter().filter(|(_, at)| **at < returned).map(|(name, _)| name).collect();
        if late.is_empty() {
            println!("all publishers went on within {elapsed:?}; without Warren a publish took {direct:?}");
            return;
        }
        assert!(elapsed < most, "these publishers did not go on within {elapsed:?}: {late:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_restarts_and_a_kill_under_load_disconnect_nobody_and_lose_nothing() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start_patient(&rabbit, 1);
    let (address, name) = (warren.address(), unique("load"));
    let mut idle: Vec<Peer> = (0..IDLE).map(|_| connect(address)).collect();
    idle[0].declare_with(1, &queue::Declare { queue: name.as_bytes(), durable: true, ..DECLARE });
    let ledger = Ledger::default();
    std::thread::scope(|scope| {
        let (ledger, name, rabbit) = (&ledger, name.as_str(), &rabbit);
        for n in 0..PUBLISHERS {
            scope.spawn(move || publish(ledger, address, name, &format!("publisher{n}")));
        }
        for n in 0..2 * CONSUMERS {
            scope.spawn(move || consume(ledger, address, name, (n < CONSUMERS).then_some(10)));
        }
        scope.spawn(move || lapin(ledger, address, name));
        scope.spawn(move || script(ledger, "python3", "pika_load.py", address, name));
        scope.spawn(move || script(ledger, "node", "amqplib_load.js", address, name));
        eventually("all publish", Duration::from_secs(60), || {
            ledger.answered.lock().expect("fine").len() == PUBLISHERS + 3
        });
        for kill in [false, true, false] {
            std::thread::sleep(Duration::from_secs(2));
            if kill {
                rabbit.kill();
                std::thread::sleep(Duration::from_secs(1));
                rabbit.restart();
            } else {
                rabbit.stop_broker();
                std::thread::sleep(Duration::from_secs(1));
                rabbit.start_broker();
            }
            all_went_on(ledger, Instant::now(), rabbit.address());
        }
        eventually("what was confirmed is consumed", Duration::from_secs(60), || {
            let got = ledger.got.lock().expect("fine");
            ledger.acked.lock().expect("fine").iter().all(|message| got.contains(message))
        });
        ledger.stop.store(true, Ordering::SeqCst);
    });
    let count = |set: &Mutex<BTreeSet<String>>| set.lock().expect("fine").len();
    println!(
        "{} confirmed, {} nacked, {} consumed",
        count(&ledger.acked),
        count(&ledger.nacked),
        count(&ledger.got)
    );
    assert!(count(&ledger.acked) > 1_000);
    let lost: Vec<String> = {
        let (acked, got) = (ledger.acked.lock().expect("fine"), ledger.got.lock().expect("fine"));
        acked.difference(&got).cloned().collect()
    };
    // Those confirmed while the consumers were being stopped are in the queue.
    let left = idle[0].ready(1, &name);
    assert!(
        lost.len() <= left as usize,
        "{} were confirmed and not consumed, {left} are left: {lost:?}",
        lost.len()
    );
    for peer in &mut idle {
        peer.declare(1, "");
    }
    idle[0].delete_queue(1, &name);
    idle.into_iter().for_each(Peer::close);
    assert!(warren.metric("warren_resumes_total") > 0.0);
    warren.stop();
}
