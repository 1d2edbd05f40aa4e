//! Limits and alarms of routes, virtual hosts, users and addresses, as a file says them; and what is limited for all.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use warren_testkit::peer::{Closed, End, PUBLISH, Refused};
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, rabbit, unique};
use warren_wire::BasicProperties;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{Method, basic};

use crate::bystander::Bystander;

const SOON: Duration = Duration::from_secs(10);

/// A file for one listener and one broker.
pub(crate) fn file(broker: SocketAddr, proxy: &str, rest: &str) -> String {
    format!(
        "[proxy]\nworkers = 2\n{proxy}\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[backend]]\nname = \"rabbit\"\nhost = \"127.0.0.1\"\nport = {}\n\
         [[farm]]\nname = \"main\"\nbackends = [\"rabbit\"]\n\
         {rest}",
        broker.port()
    )
}

/// One that serves a route, with what is said of it, and rules.
fn start(rabbit: &Rabbit, route: &str, rules: &str) -> Warren {
    let rest = format!("[[route]]\nname = \"orders\"\nfarm = \"main\"\n{route}\n{rules}\n");
    Warren::start_file(&file(rabbit.address(), "", &rest))
}

/// A virtual host that is gone with the test.
struct Vhost<'a>(&'a Rabbit, String);

impl Vhost<'_> {
    fn new(rabbit: &Rabbit) -> Vhost<'_> {
        let name = unique("limits");
        rabbit.add_vhost(&name);
        Vhost(rabbit, name)
    }

    fn handshake(&self) -> Handshake {
        Handshake::on(&self.1)
    }
}

impl Drop for Vhost<'_> {
    fn drop(&mut self) {
        self.0.delete_vhost(&self.1);
    }
}

/// Those who were let in, and what the others were told.
fn come(warren: &Warren, handshake: &Handshake, clients: usize) -> (Vec<Peer>, Vec<Closed>) {
    let (mut inside, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..clients {
        match Peer::try_connect(warren.address(), handshake) {
            Ok(peer) => inside.push(peer),
            Err(Refused { end: End::Closed(closed), .. }) => refused.push(closed),
            Err(other) => panic!("refused in another way: {other:?}"),
        }
    }
    (inside, refused)
}

#[test]
fn connections_of_a_route_are_limited_and_free_when_their_clients_are_gone() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let warren = start(rabbit, "limits = { connections = 5 }", "");
    let (mut inside, refused) = come(&warren, &vhost.handshake(), 10);
    assert_eq!((inside.len(), refused.len()), (5, 5));
    for closed in refused {
        assert_eq!(closed.code, 506);
        assert_eq!(
            closed.text,
            "RESOURCE_ERROR - connection refused by proxy: limit of 5 connections for route 'orders' is reached"
        );
    }
    assert_eq!(
        warren.metric_with("warren_limited_total", &[("limit", "connections"), ("route", "orders")]),
        5.0
    );
    let used = || warren.metric_with("warren_route_use", &[("route", "orders"), ("limit", "connections")]);
    assert_eq!(used(), 5.0);
    assert_eq!(warren.metric_with("warren_route_limit", &[("limit", "connections")]), 5.0);
    // Others work all the time.
    inside[0].open_channel(1);
    inside[0].declare(1, "queue");
    // One leaves, one vanishes without a word, with publishes on their way.
    inside.remove(4).close();
    let mut vanishing = inside.remove(3);
    vanishing.open_channel(1);
    vanishing.publish(1, "queue", b"x");
    drop(vanishing);
    eventually("both places are free", SOON, || used() == 3.0);
    let (others, refused) = come(&warren, &vhost.handshake(), 4);
    assert_eq!((others.len(), refused.len()), (2, 2));
    drop((inside, others));
    eventually("all places are free", SOON, || used() == 0.0);
    assert!(warren.log().contains("limit of 5 connections for route 'orders'"), "it is in the log");
}

#[test]
fn a_process_that_is_killed_gives_its_places_back() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let warren = start(rabbit, "limits = { connections = 1 }", "");
    // A client in a process of its own: a shell that holds the socket open.
    let script = "exec 3<>/dev/tcp/127.0.0.1/$0 && cat >&3 && sleep 1000";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, &warren.port().to_string()]);
    let mut client = command.stdin(std::process::Stdio::piped()).spawn().expect("bash");
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(&handshake_in_one(&vhost.1)).expect("a pipe");
    drop(stdin);
    let used = || warren.metric_with("warren_route_use", &[("limit", "connections")]);
    eventually("it is inside", SOON, || used() == 1.0);
    let (inside, refused) = come(&warren, &vhost.handshake(), 1);
    assert_eq!((inside.len(), refused.len()), (0, 1));
    client.kill().expect("our own process");
    client.wait().expect("our own process");
    eventually("its place is free", SOON, || used() == 0.0);
    assert_eq!(come(&warren, &vhost.handshake(), 1).0.len(), 1);
}

/// All that a client says until it is let in.
fn handshake_in_one(vhost: &str) -> Vec<u8> {
    use warren_wire::method::connection;
    let mut bytes = PROTOCOL_HEADER.to_vec();
    let ok = connection::StartOk {
        client_properties: warren_wire::Table::EMPTY,
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    };
    Method::ConnectionStartOk(ok).write(0, &mut bytes);
    let tune = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
    Method::ConnectionTuneOk(tune).write(0, &mut bytes);
    let open = connection::Open { virtual_host: vhost.as_bytes() };
    Method::ConnectionOpen(open).write(0, &mut bytes);
    bytes
}

#[test]
fn each_virtual_host_user_and_address_has_its_own() {
    let rabbit = rabbit::shared();
    let (one, two) = (Vhost::new(rabbit), Vhost::new(rabbit));
    let user = unique("user");
    rabbit.add_user(&user, "word");
    for vhost in [&one, &two] {
        rabbit.set_permissions(&user, &vhost.1, [".*"; 3]);
    }
    for (per, same, other) in [
        ("vhost", one.handshake().by(&user, "word"), two.handshake()),
        ("user", two.handshake(), one.handshake().by(&user, "word")),
    ] {
        let rule = format!("[[limit]]\nper = \"{per}\"\nlimits = {{ connections = 2 }}");
        let warren = start(rabbit, "", &rule);
        let (first, refused) = come(&warren, &one.handshake(), 2);
        assert_eq!((first.len(), refused.len()), (2, 0), "{per}");
        let (more, refused) = come(&warren, &same, 2);
        assert_eq!((more.len(), refused.len()), (0, 2), "{per}");
        let whose = if per == "vhost" { &one.1 } else { "guest" };
        let text = format!("limit of 2 connections for {per} '{whose}' is reached");
        assert!(refused.iter().all(|r| r.code == 506 && r.text.ends_with(&text)), "{refused:?}");
        assert_eq!(come(&warren, &other, 2).1.len(), 0, "another {per} has its own");
        assert_eq!(warren.metric_with("warren_limited_total", &[("per", per)]), 2.0);
    }
    let address = "[[limit]]\nper = \"address\"\naddress = [\"127.0.0.0/8\"]\nlimits = { connections = 2 }\n\
                   [[limit]]\nper = \"address\"\naddress = [\"10.0.0.0/8\"]\nlimits = { connections = 1 }";
    let warren = start(rabbit, "", address);
    let (_inside, refused) = come(&warren, &one.handshake(), 3);
    assert_eq!(refused.len(), 1);
    assert!(
        refused[0].text.ends_with("limit of 2 connections for address '127.0.0.1' is reached"),
        "{refused:?}"
    );
    rabbit.delete_user(&user);
}

#[test]
fn connections_per_second_are_refused_in_the_words_of_amqpprox() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let rule =
        format!("[[limit]]\nper = \"vhost\"\nvhost = \"{}\"\nlimits = {{ connection_rate = 1 }}", vhost.1);
    let warren = start(rabbit, "", &rule);
    Peer::connect(warren.address()).close(); // another virtual host; and Warren knows the broker now
    let started = Instant::now();
    let (inside, refused) = come(&warren, &vhost.handshake(), 12);
    let seconds = started.elapsed().as_secs_f64();
    assert!(!refused.is_empty(), "twelve clients took {seconds} s");
    let came = inside.len();
    assert!(came >= 1 && came as f64 <= seconds + 1.0, "{came} in {seconds} s");
    let text = format!(
        "RESOURCE_ERROR - The connection for {0}, is limited by proxy. limit of 1 connection per second for vhost '{0}'",
        vhost.1
    );
    assert!(refused.iter().all(|r| r.code == 506 && r.text == text), "{refused:?}");
    eventually("the next second", SOON, || come(&warren, &vhost.handshake(), 1).0.len() == 1);
}

#[test]
fn a_channel_and_a_message_too_many_cost_a_channel_only() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let warren = start(rabbit, "limits = { channels = 3, message_size = \"10kB\" }", "");
    let mut peer = Peer::connect_with(warren.address(), &vhost.handshake());
    let mut other = Peer::connect_with(warren.address(), &vhost.handshake());
    peer.open_channel(1);
    peer.open_channel(2);
    other.open_channel(1);
    peer.send(3, &Method::ChannelOpen);
    let closed = peer.expect_channel_close(3);
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (506, "RESOURCE_ERROR - channel refused by proxy: limit of 3 channels for route 'orders' is reached")
    );
    other.close();
    peer.open_channel(3);
    peer.declare(1, "queue");
    peer.confirm_select(1);
    peer.publish(1, "queue", &[7; 10_000]);
    peer.expect_confirms(1, 1, 1);
    peer.publish(1, "queue", &[7; 10_001]);
    let closed = peer.expect_channel_close(1);
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (
            406,
            "PRECONDITION_FAILED - message size 10001 is larger than configured max size 10000 (limit of 10000 octets per \
         message for route 'orders')"
        )
    );
    assert_eq!(peer.ready(2, "queue"), 1);
    peer.close();
    assert_eq!(warren.metric_with("warren_limited_total", &[("limit", "channels")]), 1.0);
    assert_eq!(warren.metric_with("warren_limited_total", &[("limit", "message_size")]), 1.0);
}

#[test]
fn alarms_are_logged_and_counted_and_refuse_nothing() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let alarms = "alarms = { connections = 1, channels = 1, connection_rate = 1, data_rate = \"1kB\", message_size = 10 }";
    let warren = start(rabbit, alarms, "");
    let (mut inside, refused) = come(&warren, &vhost.handshake(), 4);
    assert_eq!((inside.len(), refused.len()), (4, 0));
    for (n, peer) in inside.iter_mut().enumerate() {
        peer.open_channel(1);
        let queue = format!("queue-{n}");
        peer.declare(1, &queue);
        peer.confirm_select(1);
        peer.publish(1, &queue, &[7; 5_000]);
        peer.expect_confirms(1, 1, 1);
    }
    let alarm = |limit| warren.metric_with("warren_alarms_total", &[("limit", limit), ("route", "orders")]);
    assert_eq!(alarm("connections"), 3.0);
    assert_eq!(alarm("channels"), 3.0);
    assert_eq!(alarm("message_size"), 4.0);
    assert!(alarm("data_rate") >= 1.0);
    assert_eq!(warren.metric("warren_limited_total"), 0.0);
    let log = warren.log();
    let told = log.lines().filter(|l| l.contains("alarm of 1 connection for route 'orders'")).count();
    assert!((1..=3).contains(&told), "{told} lines:\n{log}");
}

#[test]
fn dedicated_clients_have_limits_too() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let route = "mode = \"dedicated\"\nlimits = { connections = 3, channels = 2, message_size = \"10kB\" }";
    let warren = start(rabbit, route, "");
    let used = |limit| warren.metric_with("warren_route_use", &[("limit", limit)]);
    let (mut inside, refused) = come(&warren, &vhost.handshake(), 5);
    assert_eq!((inside.len(), refused.len()), (3, 2));
    let text =
        "RESOURCE_ERROR - connection refused by proxy: limit of 3 connections for route 'orders' is reached";
    assert!(refused.iter().all(|r| r.code == 506 && r.text == text), "{refused:?}");
    inside[0].open_channel(1);
    inside[1].open_channel(1);
    inside[1].close_channel(1);
    inside[1].open_channel(1);
    assert_eq!(used("channels"), 2.0);
    inside[2].send(1, &Method::ChannelOpen);
    let closed = inside[2].expect_connection_close();
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (506, "RESOURCE_ERROR - channel refused by proxy: limit of 2 channels for route 'orders' is reached")
    );
    inside[0].declare(1, "queue");
    inside[0].confirm_select(1);
    inside[0].publish(1, "queue", &[7; 10_000]);
    inside[0].expect_confirms(1, 1, 1);
    inside[0].publish(1, "queue", &[7; 10_001]);
    let closed = inside[0].expect_connection_close();
    assert_eq!(closed.code, 506);
    assert!(closed.text.starts_with("RESOURCE_ERROR - message size 10001 is larger than"), "{closed:?}");
    assert_eq!(inside[1].ready(1, "queue"), 1);
    drop(inside);
    eventually("all places are free", SOON, || used("connections") == 0.0 && used("channels") == 0.0);
}

/// Octets per second that an exchange of so many takes, measured from its first.
fn rate(octets: usize, started: Instant) -> f64 {
    octets as f64 / started.elapsed().as_secs_f64()
}

#[test]
fn publishes_are_held_to_their_rate_and_others_are_not() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let rest = format!(
        "[[route]]\nname = \"limited\"\nvhost = \"{}\"\nfarm = \"main\"\nlimits = {{ data_rate = \"1MB\" }}\n\
         [[route]]\nname = \"others\"\nfarm = \"main\"\n",
        vhost.1
    );
    let warren = Warren::start_file(&file(rabbit.address(), "", &rest));
    let bystander = Bystander::start(warren.address(), &Handshake::default());
    let mut peer = Peer::connect_with(warren.address(), &vhost.handshake());
    peer.open_channel(1);
    peer.declare(1, "queue");
    peer.confirm_select(1);
    let publish = basic::Publish { routing_key: b"queue", ..PUBLISH };
    let bytes = peer.encode_publish(1, &publish, &BasicProperties::default(), &[7; 10_000]);
    // As much as in three seconds; the first second is like the others.
    let (started, mut confirmed) = (Instant::now(), 0);
    let messages = 300;
    for _ in 0..messages {
        peer.send_bytes(&bytes);
    }
    let mut first_second = 0;
    while confirmed < messages {
        let frame = peer.expect(1, basic::ACK);
        let Method::BasicAck(ack) = frame.method() else { unreachable!("the method was checked") };
        confirmed = if ack.multiple { ack.delivery_tag } else { confirmed + 1 };
        if started.elapsed() < Duration::from_secs(1) {
            first_second = confirmed;
        }
    }
    let rate = rate(messages as usize * bytes.len(), started);
    println!("{rate:.0} octets per second to the broker, {first_second} messages in the first");
    assert!((700_000.0..=1_100_000.0).contains(&rate), "{rate} octets per second");
    assert!(first_second <= 112, "{first_second} messages of 10 kB in the first second");
    assert!(
        warren.metric_with("warren_limited_total", &[("limit", "data_rate"), ("route", "limited")]) > 10.0
    );
    bystander.finish();
}

#[test]
fn deliveries_are_held_to_their_rate_and_nobody_is_ended_for_it() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let mut filler = Peer::connect_with(rabbit.address(), &vhost.handshake());
    filler.open_channel(1);
    filler.declare(1, "queue");
    filler.confirm_select(1);
    // More than a session's budget: it must wait at the broker, for Warren does not know this queue.
    let messages = 2_400;
    let body = [7; 20_000];
    for n in 1..=messages {
        filler.publish(1, "queue", &body);
        filler.expect_confirms(1, n, 1);
    }
    filler.close();
    let rest = format!(
        "[[route]]\nname = \"limited\"\nvhost = \"{}\"\nfarm = \"main\"\nlimits = {{ data_rate = \"1MB\" }}\n\
         [[route]]\nname = \"others\"\nfarm = \"main\"\n",
        vhost.1
    );
    let warren = Warren::start_file(&file(rabbit.address(), "", &rest));
    let bystander = Bystander::start(warren.address(), &Handshake::default());
    let mut peer = Peer::connect_with(warren.address(), &vhost.handshake());
    peer.open_channel(1);
    peer.consume(1, "queue", "", true);
    let started = Instant::now();
    let (mut got, mut first_second) = (0, 0);
    while started.elapsed() < Duration::from_secs(4) {
        got += peer.delivery(1).body.len();
        if started.elapsed() < Duration::from_secs(1) {
            first_second = got;
        }
    }
    let rate = rate(got, started);
    println!("{rate:.0} octets per second to the client, {first_second} in the first");
    assert!((700_000.0..=1_100_000.0).contains(&rate), "{rate} octets per second");
    assert!(first_second <= 1_120_000, "{first_second} octets in the first second");
    assert!(
        warren.metric_with("warren_memory_bytes", &[("part", "to_clients")]) < 8_000_000.0,
        "the rest waits outside"
    );
    bystander.finish();
}

#[test]
fn clients_are_accepted_at_a_rate() {
    let rabbit = rabbit::shared();
    let rest = "[[route]]\nfarm = \"main\"\n";
    let warren = Warren::start_file(&file(rabbit.address(), "accept_rate = 10", rest));
    // Who looked whether the port is open counts, too.
    std::thread::sleep(Duration::from_millis(1_100));
    let started = Instant::now();
    let mut waiting: Vec<Peer> = (0..25)
        .map(|_| {
            let mut peer = Peer::raw(warren.address());
            peer.send_bytes(&PROTOCOL_HEADER);
            peer
        })
        .collect();
    for peer in &mut waiting {
        peer.read_start().unwrap_or_else(|refused| panic!("{refused:?}"));
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1_900), "25 clients came in within {took:?}");
    let said =
        warren.log().lines().filter(|l| l.contains("the accept rate of 10 per second is used up")).count();
    assert!((1..=took.as_secs() as usize + 2).contains(&said), "{said} lines in {took:?}:\n{}", warren.log());
}

#[test]
fn handshakes_and_unauthenticated_octets_have_their_keys() {
    let rabbit = rabbit::shared();
    let proxy = "handshakes = 2\ncrowded_timeout = \"300ms\"\nunauthenticated_bytes = 4096";
    let text =
        file(rabbit.address(), proxy, "[[route]]\nfarm = \"main\"\n").replace("workers = 2", "workers = 1");
    let warren = Warren::start_file(&text);
    eventually("nobody is in the door", SOON, || warren.metric("warren_client_handshakes") == 0.0);
    let mut stalled: Vec<Peer> = (0..2).map(|_| Peer::raw(warren.address())).collect();
    eventually("both are in the door", SOON, || warren.metric("warren_client_handshakes") == 2.0);
    // They make room for whoever comes.
    Peer::connect(warren.address()).close();
    for peer in &mut stalled {
        let end = peer.expect_end(SOON);
        assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    }
    let mut large = Peer::raw(warren.address());
    large.send_bytes(&PROTOCOL_HEADER);
    large.read_start().expect("it is welcome so far");
    large.send_bytes(&[1, 0, 0, 0, 0, 0x20, 0]);
    let end = large.expect_end(SOON);
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    Peer::connect(warren.address()).close();
}

#[test]
fn a_virtual_host_without_a_route_is_refused_in_the_words_of_amqpprox() {
    let rabbit = rabbit::shared();
    let vhost = Vhost::new(rabbit);
    let rest = format!(
        "[[route]]\nvhost = \"{}\"\nfarm = \"main\"\n[[route]]\nvhost = \"orders-*\"\nupstream_vhost = \"{}\"\nfarm = \"main\"\n",
        vhost.1, vhost.1
    );
    let warren = Warren::start_file(&file(rabbit.address(), "", &rest));
    Peer::connect_with(warren.address(), &vhost.handshake()).close();
    Peer::connect_with(warren.address(), &Handshake::on("orders-eu")).close();
    let refused =
        Peer::try_connect(warren.address(), &Handshake::on("elsewhere")).expect_err("there is no route");
    let closed = refused.closed();
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (506, "RESOURCE_ERROR - No known broker mapping for vhost elsewhere")
    );
}
