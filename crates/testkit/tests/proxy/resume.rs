//! Upstream connections are lost, in every way that there is, and clients do not notice what they need not.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};
use warren_testkit::peer::{DECLARE, End, PUBLISH, capabilities};
use warren_testkit::relay::Relay;
use warren_testkit::{Handshake, Peer, Rabbit, Through, Warren, Way, eventually, rabbit, unique};
use warren_wire::Method;
use warren_wire::content::BasicProperties;
use warren_wire::method::{basic, queue, tx};

const SOON: Duration = Duration::from_secs(60);

/// A node that is killed a moment after a declare may not have it on disk.
const ON_DISK: &str = "mnesia:sync_log().";

fn durable(name: &str) -> queue::Declare<'_> {
    queue::Declare { queue: name.as_bytes(), durable: true, ..DECLARE }
}

/// How a connection is lost while its broker lives.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Cut,
    Forced,
}

fn lose(way: &Way, loss: Loss) {
    let before = way.rabbit.connections(&way.vhost).len();
    assert!(before > 0, "there is something to lose");
    match loss {
        Loss::Cut => way.rabbit.cut_connections(&way.vhost),
        Loss::Forced => way.rabbit.close_connections(&way.vhost, "maintenance at noon"),
    }
}

/// Loses all connections; afterwards Warren knows.
fn lose_for_sure(way: &Way, loss: Loss) {
    let warren = way.warren.as_ref().expect("through Warren");
    let resumes = || warren.metric("warren_resumes_total");
    let before = resumes();
    lose(way, loss);
    eventually("Warren has noticed", SOON, || resumes() > before);
}

fn nacked(peer: &mut Peer, first: u64, count: u64) {
    let mut waiting: std::collections::BTreeSet<u64> = (first..first + count).collect();
    while !waiting.is_empty() {
        let frame = peer.expect(1, basic::NACK);
        let Method::BasicNack(nack) = frame.method() else { unreachable!("the method was checked") };
        assert!(!nack.multiple && waiting.remove(&nack.delivery_tag), "{nack:?} of {waiting:?}");
    }
}

#[test]
fn clients_do_not_notice_a_lost_connection() {
    for loss in [Loss::Cut, Loss::Forced] {
        let way = Way::new(Through::Warren, &[]);
        let mut idle = way.connect_channel();
        let mut plain = way.connect_channel();
        let queue = plain.declare(1, "");
        plain.publish(1, &queue, b"before, without confirms");
        let mut confirming = way.connect_channel();
        confirming.confirm_select(1);
        confirming.publish(1, &queue, b"before");
        confirming.expect_confirms(1, 1, 1);
        let mut consumer = way.connect_channel();
        consumer.qos(1, 10);
        consumer.consume(1, &queue, "tag", false);
        let (one, two) = (consumer.delivery(1), consumer.delivery(1));
        assert_eq!((one.tag(), two.tag()), (1, 2));
        std::thread::sleep(Duration::from_millis(600)); // the plain publisher pauses

        for round in 0..3 {
            lose(&way, loss);
            // Not settled, so they come again, under numbers of their own.
            let again: Vec<_> = (0..2).map(|_| consumer.delivery(1)).collect();
            assert!(again.iter().all(|m| m.redelivered()), "{loss:?}: {again:?}");
            assert_eq!(again.iter().map(|m| m.tag()).collect::<Vec<_>>(), [3 + 2 * round, 4 + 2 * round]);
        }
        consumer.ack(1, 1, false); // of the first time: it means nothing any more
        consumer.ack(1, 4, true);
        consumer.ack(1, 8, true); // of the last time
        let seen = |name: &str| way.rabbit.queue(&way.vhost, name).map(|q| (q.ready, q.unacknowledged));
        eventually("both are settled", SOON, || seen(&queue) == Some((0, 0)));

        confirming.publish(1, &queue, b"after");
        confirming.expect_confirms(1, 2, 1);
        plain.publish(1, &queue, b"after, without confirms");
        let bodies: Vec<String> = (0..2).map(|_| consumer.delivery(1).text()).collect();
        assert!(bodies.contains(&"after".to_owned()), "{bodies:?}");
        idle.declare(1, "");
        // What was never delivered is as wrong as ever.
        consumer.ack(1, 99, false);
        assert_eq!(consumer.expect_channel_close(1).code, 406);
        for peer in [idle, plain, confirming, consumer] {
            peer.close();
        }
    }
}

#[test]
fn publishes_on_their_way_are_answered_with_nack_once() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start_patient(&rabbit, 1);
    let name = unique("nacked");
    let mut peer = Peer::connect_with(warren.address(), &Handshake::default());
    peer.open_channel(1);
    peer.declare_with(1, &durable(&name));
    peer.confirm_select(1);
    peer.publish(1, &name, b"confirmed");
    peer.expect_confirms(1, 1, 1);
    let mut modest = Peer::connect_with(
        warren.address(),
        &Handshake { properties: capabilities(&["consumer_cancel_notify"]), ..Handshake::default() },
    );
    modest.open_channel(1);
    modest.confirm_select(1);
    modest.publish(1, &name, b"confirmed");
    modest.expect_confirms(1, 1, 1);
    let mut plain = Peer::connect(warren.address());
    plain.open_channel(1);
    plain.publish(1, &name, b"processed");
    plain.declare(1, "");

    rabbit.eval(ON_DISK);
    rabbit.freeze();
    (0..50).for_each(|_| peer.publish(1, &name, b"on its way"));
    modest.publish(1, &name, b"on its way");
    plain.publish(1, &name, b"on its way");
    std::thread::sleep(Duration::from_millis(300));
    rabbit.kill();
    nacked(&mut peer, 2, 50);
    // Who does not know basic.nack, or asked for no confirms, hears what it would have heard without Warren.
    assert_eq!(modest.expect_connection_close().code, 320);
    assert_eq!(plain.expect_connection_close().code, 320);
    peer.publish(1, &name, b"waits for the broker");
    rabbit.restart();
    peer.expect_confirms(1, 52, 1);
    peer.expect_quiet(Duration::from_millis(300));
    peer.delete_queue(1, &name);
    peer.close();
    warren.stop();
}

#[test]
fn publishes_that_were_not_written_yet_go_to_the_next_connection() {
    const SIZE: usize = 64 << 10;
    const COUNT: u64 = 400;
    let rabbit = rabbit::exclusive();
    let relay = Relay::to(rabbit.address());
    let warren = Warren::start_with(relay.port(), &[]);
    let name = unique("unwritten");
    let mut peer = Peer::connect(warren.address());
    peer.open_channel(1);
    peer.declare_with(1, &durable(&name));
    peer.confirm_select(1);
    peer.publish(1, &name, b"through");
    peer.expect_confirms(1, 1, 1);
    relay.stall();
    let publish = basic::Publish { routing_key: name.as_bytes(), ..PUBLISH };
    let publish = peer.encode_publish(1, &publish, &BasicProperties::default(), &[0; SIZE]);
    let mut writer = peer.writer();
    let writing = std::thread::spawn(move || {
        (0..COUNT).for_each(|_| writer.write_all(&publish).expect("Warren reads it"));
    });
    // The system's buffers fill up, then Warren's, and then it does not read any more.
    let sent = || warren.metric("warren_upstream_sent_bytes_total") as u64;
    let mut last = (sent(), Instant::now());
    eventually("nothing goes on", SOON, || {
        let now = sent();
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 1 << 20 && last.1.elapsed() > Duration::from_millis(700)
    });
    let begun = last.0 / SIZE as u64 + 1;
    assert!(begun + 15 < COUNT, "{begun} were begun, and nothing is left to go elsewhere");
    relay.reset();
    let mut answers = BTreeMap::new();
    while answers.len() < COUNT as usize {
        let frame = peer.next(1);
        let (tag, multiple, taken) = match frame.method() {
            Method::BasicAck(ack) => (ack.delivery_tag, ack.multiple, true),
            Method::BasicNack(nack) => (nack.delivery_tag, nack.multiple, false),
            other => panic!("{other:?}"),
        };
        let first = if multiple { 2 } else { tag };
        (first..=tag).for_each(|tag| _ = answers.entry(tag).or_insert(taken));
    }
    writing.join().expect("it wrote all");
    let refused = answers.values().filter(|taken| !**taken).count() as u64;
    assert!((1..=begun).contains(&refused), "{refused} are refused, {begun} were begun");
    let ready = || rabbit.queue("/", &name).map(|q| q.ready);
    eventually("all others are there", SOON, || ready() == Some(1 + COUNT - refused));
    peer.delete_queue(1, &name);
    peer.close();
    warren.stop();
}

#[test]
fn requests_on_their_way_are_repeated_when_twice_is_as_good_as_once() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start_patient(&rabbit, 1);
    let name = unique("repeated");
    let connect = || {
        let mut peer = Peer::connect(warren.address());
        peer.open_channel(1);
        peer
    };
    let (mut declares, mut gets, mut consumes) = (connect(), connect(), connect());
    declares.declare_with(1, &durable(&name));
    gets.declare(1, "");
    consumes.declare(1, "");
    rabbit.eval(ON_DISK);
    rabbit.freeze();
    declares.send(1, &Method::QueueDeclare(durable(&name)));
    let bind = queue::Bind {
        queue: name.as_bytes(),
        exchange: b"amq.topic",
        routing_key: b"key",
        no_wait: false,
        arguments: warren_wire::Table::EMPTY,
    };
    declares.send(1, &Method::QueueBind(bind));
    gets.send(1, &Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack: true }));
    let consume =
        basic::Consume { queue: name.as_bytes(), consumer_tag: b"mine", ..warren_testkit::peer::CONSUME };
    consumes.send(1, &Method::BasicConsume(consume));
    std::thread::sleep(Duration::from_millis(300));
    rabbit.kill();
    assert_eq!(gets.expect_connection_close().code, 320);
    rabbit.restart();
    declares.expect(1, queue::DECLARE_OK);
    declares.expect(1, queue::BIND_OK);
    consumes.expect(1, basic::CONSUME_OK);
    declares.publish(1, &name, b"it consumes");
    assert_eq!(consumes.delivery(1).text(), "it consumes");
    declares.delete_queue(1, &name);
    consumes.expect(1, basic::CANCEL);
    declares.close();
    consumes.close();
    warren.stop();
}

#[test]
fn what_lived_in_the_connection_ends_with_it() {
    let way = Way::new(Through::Warren, &[]);
    let mut exclusive = way.connect_channel();
    exclusive.declare_with(1, &queue::Declare { exclusive: true, ..DECLARE });
    let mut transaction = way.connect_channel();
    let queue = transaction.declare(1, "");
    transaction.call(1, &Method::TxSelect, warren_wire::method::tx::SELECT_OK);
    transaction.publish(1, &queue, b"not committed");
    let mut bystander = way.connect_channel();
    bystander.declare(1, "");
    lose(&way, Loss::Cut);
    assert_eq!(exclusive.expect_connection_close().code, 320);
    assert_eq!(transaction.expect_connection_close().code, 320);
    bystander.declare(1, "");
    assert_eq!(bystander.ready(1, &queue), 0);
    bystander.close();
}

#[test]
fn a_channel_goes_on_between_two_transactions() {
    for loss in [Loss::Cut, Loss::Forced] {
        let way = Way::new(Through::Warren, &[]);
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        let commit = |peer: &mut Peer| _ = peer.call(1, &Method::TxCommit, tx::COMMIT_OK);
        peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        lose_for_sure(&way, loss); // before the first
        peer.publish(1, &queue, b"one");
        commit(&mut peer);
        peer.consume(1, &queue, "tag", false);
        assert_eq!(peer.delivery(1).text(), "one");
        lose_for_sure(&way, loss); // after it, with a consumer
        let again = peer.delivery(1);
        assert!(again.redelivered() && again.text() == "one", "{loss:?}: {again:?}");
        peer.ack(1, 1, false); // of the first time: it means nothing any more
        peer.ack(1, 2, false);
        peer.publish(1, &queue, b"undone");
        peer.call(1, &Method::TxRollback, tx::ROLLBACK_OK);
        lose_for_sure(&way, loss); // after a rollback: what it acknowledged in vain comes again
        let again = peer.delivery(1);
        assert!(again.redelivered() && again.text() == "one", "{loss:?}: {again:?}");
        peer.ack(1, again.tag(), false);
        commit(&mut peer);
        let seen = |name: &str| way.rabbit.queue(&way.vhost, name).map(|q| (q.ready, q.unacknowledged));
        eventually("the ack counts", SOON, || seen(&queue) == Some((0, 0)));
        // With one that is open it is as it was.
        peer.publish(1, &queue, b"open");
        peer.declare(1, "");
        lose(&way, loss);
        assert_eq!(peer.expect_connection_close().code, 320);
        assert_eq!(seen(&queue), Some((0, 0)));
    }
}

#[test]
fn a_consumer_whose_queue_is_gone_hears_of_it() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start_patient(&rabbit, 1);
    let lasting = unique("lasting");
    let connect = |names: &[&str]| {
        let properties = capabilities(names);
        let mut peer =
            Peer::connect_with(warren.address(), &Handshake { properties, ..Handshake::default() });
        peer.open_channel(1);
        peer
    };
    let mut told = connect(&["consumer_cancel_notify", "basic.nack"]);
    told.declare_with(1, &durable(&lasting));
    told.consume(1, &lasting, "lasting", false);
    let transient = told.declare(1, "");
    told.consume(1, &transient, "transient", false);
    let mut untold = connect(&["basic.nack"]);
    let transient = untold.declare(1, "");
    untold.consume(1, &transient, "transient", false);
    rabbit.eval(ON_DISK);
    rabbit.kill();
    rabbit.restart();
    let cancel = told.expect(1, basic::CANCEL);
    let Method::BasicCancel(cancel) = cancel.method() else { unreachable!("the method was checked") };
    assert_eq!(cancel.consumer_tag, b"transient");
    let closed = untold.expect_connection_close();
    assert_eq!(closed.code, 320);
    assert!(closed.text.contains("no queue"), "{closed:?}");
    told.publish(1, &lasting, b"still consumed");
    assert_eq!(told.delivery(1).text(), "still consumed");
    told.delete_queue(1, &lasting);
    told.close();
    warren.stop();
}

#[test]
fn sessions_wait_for_their_broker_and_their_heartbeats_go_on() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start_patient(&rabbit, 1);
    let name = unique("waits");
    let mut peer = Peer::connect_with(warren.address(), &Handshake { heartbeat: 2, ..Handshake::default() });
    peer.open_channel(1);
    peer.declare_with(1, &durable(&name));
    peer.confirm_select(1);
    rabbit.stop_broker();
    peer.publish(1, &name, b"patient");
    let away = Instant::now();
    while away.elapsed() < Duration::from_secs(7) {
        peer.send_heartbeat();
        assert_eq!(peer.end_within(Duration::from_millis(800)), None, "after {:?}", away.elapsed());
    }
    assert!(peer.heartbeats() >= 3, "{}", peer.heartbeats());
    rabbit.start_broker();
    let back = Instant::now();
    peer.expect_confirms(1, 1, 1);
    // Warren asks once a second. With pauses that only grow it would be up to six seconds by now.
    assert!(back.elapsed() < Duration::from_secs(4), "{:?} after the broker's return", back.elapsed());
    peer.delete_queue(1, &name);
    peer.close();
    warren.stop();
}

#[test]
fn a_broker_that_stays_away_is_not_waited_for_for_ever() {
    let rabbit = Rabbit::start();
    let warren = Warren::start(&rabbit);
    let mut peer = Peer::connect(warren.address());
    peer.open_channel(1);
    peer.declare_with(1, &durable("gone"));
    peer.consume(1, "gone", "", false);
    let mut idle = Peer::connect(warren.address());
    idle.open_channel(1);
    rabbit.kill();
    let started = Instant::now();
    let End::Closed(closed) = peer.expect_end(Duration::from_secs(60)) else { panic!("no word") };
    assert_eq!(closed.code, 320, "{closed:?}");
    assert!(
        closed.text.contains("refused") && closed.text.contains("127.0.0.1"),
        "what was tried: {closed:?}"
    );
    assert!(started.elapsed() > Duration::from_secs(25), "{:?}", started.elapsed());
    // Who needs nothing of the broker is left alone.
    idle.expect_quiet(Duration::from_millis(300));
}

#[test]
fn a_black_hole_is_noticed_by_heartbeats() {
    let rabbit = rabbit::exclusive();
    rabbit.eval("application:set_env(rabbit, heartbeat, 1).");
    let relay = Relay::to(rabbit.address());
    let warren = Warren::start_with(relay.port(), &[]);
    let name = unique("hole");
    let mut peer = Peer::connect(warren.address());
    peer.open_channel(1);
    peer.declare_with(1, &durable(&name));
    peer.confirm_select(1);
    peer.publish(1, &name, b"through");
    peer.expect_confirms(1, 1, 1);
    let mut consumer = Peer::connect(warren.address());
    consumer.open_channel(1);
    consumer.consume(1, &name, "", false);
    assert_eq!(consumer.delivery(1).text(), "through");
    relay.swallow(true);
    peer.publish(1, &name, b"swallowed");
    let started = Instant::now();
    nacked(&mut peer, 2, 1);
    let noticed = started.elapsed();
    relay.swallow(false);
    // After two or three seconds, or with the broker's usual heartbeat after two or three minutes.
    assert!(noticed < Duration::from_secs(20), "{noticed:?}");
    peer.publish(1, &name, b"after");
    peer.expect_confirms(1, 3, 1);
    let texts: Vec<String> = (0..2).map(|_| consumer.delivery(1).text()).collect();
    assert!(texts.contains(&"after".to_owned()), "{texts:?}");
    rabbit.eval("application:set_env(rabbit, heartbeat, 60).");
    consumer.close();
    peer.delete_queue(1, &name);
    peer.close();
    warren.stop();
}

#[test]
fn credentials_that_are_refused_at_resume_are_refused_for_good() {
    let way = Way::new(Through::Warren, &[]);
    let user = unique("user");
    way.rabbit.add_user(&user, "old");
    way.rabbit.set_permissions(&user, &way.vhost, [".*", ".*", ".*"]);
    let mut peer = Peer::connect_with(way.address(), &way.handshake().by(&user, "old"));
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    peer.consume(1, &queue, "", false);
    way.rabbit.change_password(&user, "new");
    lose(&way, Loss::Cut);
    let closed = peer.expect_connection_close();
    assert_eq!(closed.code, 403, "{closed:?}");
    way.rabbit.delete_user(&user);
}
