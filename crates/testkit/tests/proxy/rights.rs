//! Passwords, rights, users and virtual hosts that change while clients are connected and pooled connections live.

use std::thread::sleep;
use std::time::{Duration, Instant};
use warren_testkit::peer::{Closed, DECLARE, PUBLISH};
use warren_testkit::{Handshake, Peer, Rabbit, Through, Way, both_ways_with, eventually};
use warren_testkit::{same_both_ways_with, unique};
use warren_wire::method::{basic, queue};
use warren_wire::{BasicProperties, Method};

use crate::login::refused;

/// How long Warren may let in whom the broker would not, and much for a machine that is busy: who counts from the last
/// time that somebody came in, and not from the last time that the broker was asked, never ends.
const TTL: &str = "2";
const WITHIN: Duration = Duration::from_millis(2000 + 6000);

/// A user with a password of its own who may do everything on the way's virtual host.
fn user(way: &Way) -> (String, Handshake) {
    let name = unique("user");
    way.rabbit.add_user(&name, "secret");
    way.rabbit.set_permissions(&name, &way.vhost, [".*", ".*", ".*"]);
    let handshake = way.handshake().by(&name, "secret");
    (name, handshake)
}

/// Somebody who keeps pooled connections alive: it has published, and consumes.
fn inside(way: &Way, handshake: &Handshake) -> Peer {
    let mut peer = Peer::connect_with(way.address(), handshake);
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    peer.publish(1, &queue, b"x");
    peer.expect_confirms(1, 1, 1);
    peer.open_channel(2);
    peer.consume(2, &queue, "", true);
    peer.delivery(2);
    peer
}

/// Comes in anew, again and again, until it is refused; and is refused again.
fn refused_soon(way: &Way, handshake: &Handshake, changed: Instant) -> String {
    let ask = || refused(Peer::try_connect(way.address(), handshake));
    let mut seen = ask();
    while seen == "let in" {
        assert!(changed.elapsed() < WITHIN, "let in {:?} after the change", changed.elapsed());
        sleep(Duration::from_millis(50));
        seen = ask();
    }
    println!("{:?}: refused {:?} after the change", way.through, changed.elapsed());
    sleep(Duration::from_millis(1200)); // longer than a refusal is remembered
    // At which step may differ: who came while the broker was at it has passed one already.
    let close = |seen: &str| seen.split_once(": ").map(|(_, close)| close.to_owned());
    assert_eq!(close(&ask()), close(&seen), "and once more");
    seen
}

/// Changes something for a user who is inside, and has the user come in anew.
fn after(way: &Way, change: impl Fn(&Rabbit, &str, &str)) -> (String, Peer, String) {
    let (name, handshake) = user(way);
    let peer = inside(way, &handshake);
    change(way.rabbit, &name, &way.vhost);
    let seen = refused_soon(way, &handshake, Instant::now());
    (seen.replace(&name, "USER"), peer, name)
}

#[test]
fn a_changed_password_is_refused_within_the_time_to_live() {
    same_both_ways_with(&["--auth-ttl", TTL], |way| {
        let (seen, mut peer, name) = after(way, |rabbit, user, _| rabbit.change_password(user, "new"));
        assert!(seen.starts_with("StartOk: Closed { code: 403"), "{seen}");
        // Who is inside stays, and opens channels.
        peer.open_channel(3);
        let queue = peer.declare(3, "");
        peer.publish(1, &queue, b"still here");
        peer.expect_confirms(1, 2, 1);
        inside(way, &way.handshake().by(&name, "new")).close();
        peer.close();
        way.rabbit.delete_user(&name);
        vec![seen]
    });
}

#[test]
fn a_deleted_user_is_refused_within_the_time_to_live() {
    same_both_ways_with(&["--auth-ttl", TTL], |way| {
        let (seen, mut peer, name) = after(way, |rabbit, user, _| rabbit.delete_user(user));
        // At start-ok, or at open for who came while the broker was at it.
        let seen = seen.split_once(": ").map(|(_, close)| close.to_owned()).unwrap_or_default();
        assert!(seen.starts_with("Closed { code: 403"), "{seen}");
        vec![seen, format!("{:?}", peer.expect_connection_close()).replace(&name, "USER")]
    });
}

#[test]
fn a_virtual_host_that_is_not_allowed_any_more_is_refused_within_the_time_to_live() {
    same_both_ways_with(&["--auth-ttl", TTL], |way| {
        let (seen, mut peer, name) = after(way, |rabbit, user, vhost| rabbit.clear_permissions(user, vhost));
        assert!(seen.starts_with("Open: Closed { code: 530, text: \"NOT_ALLOWED"), "{seen}");
        // Who is inside stays, and may do nothing.
        peer.open_channel(3);
        peer.send(3, &Method::QueueDeclare(queue::Declare { queue: b"mine", ..DECLARE }));
        let closed = format!("{:?}", peer.expect_channel_close(3)).replace(&name, "USER");
        way.rabbit.set_permissions(&name, &way.vhost, [".*", ".*", ".*"]);
        eventually("the user is let in again", WITHIN, || {
            Peer::try_connect(way.address(), &way.handshake().by(&name, "secret")).is_ok()
        });
        peer.close();
        way.rabbit.delete_user(&name);
        vec![seen, closed]
    });
}

/// What becomes of an operation on a channel of its own: `None` when it is allowed.
fn fate(peer: &mut Peer, channel: u16, operation: &Method<'_>) -> Option<Closed> {
    peer.send(channel, operation);
    if let Method::BasicPublish(publish) = operation {
        let message = peer.encode_publish(channel, publish, &BasicProperties::default(), b"x");
        let method = {
            let mut method = Vec::new();
            operation.write(channel, &mut method);
            method.len()
        };
        peer.send_bytes(&message[method..]);
    }
    let answer = peer.next(channel);
    let closed = answer.is(warren_wire::method::channel::CLOSE).then(|| answer.closed()).flatten();
    if closed.is_some() {
        peer.send(channel, &Method::ChannelCloseOk);
    }
    closed
}

/// The same operation by somebody who has just come in, until it is refused.
fn forbidden_soon(
    way: &Way,
    handshake: &Handshake,
    changed: Instant,
    operation: &Method<'_>,
    confirms: bool,
) -> Closed {
    loop {
        let mut peer = Peer::connect_with(way.address(), handshake);
        peer.open_channel(1);
        if confirms {
            peer.confirm_select(1);
        }
        let closed = fate(&mut peer, 1, operation);
        peer.close();
        if let Some(closed) = closed {
            return closed;
        }
        assert!(changed.elapsed() < WITHIN, "{operation:?} is allowed {:?} later", changed.elapsed());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn rights_that_are_gone_are_refused_at_the_operation() {
    same_both_ways_with(&["--auth-ttl", TTL], |way| {
        let (name, handshake) = user(way);
        let mut before = inside(way, &handshake);
        // What it leaves behind knows that it was allowed: channels keep rights in mind.
        let mut gone = Peer::connect_with(way.address(), &handshake);
        gone.open_channel(1);
        gone.confirm_select(1);
        gone.publish(1, "nobody", b"x");
        gone.expect_confirms(1, 1, 1);
        gone.close();
        let mut owner = way.observer();
        let queue = owner.declare(1, "theirs");
        way.rabbit.set_permissions(&name, &way.vhost, ["^$", "^$", "^$"]);
        let changed = Instant::now();
        let declare = Method::QueueDeclare(queue::Declare { queue: b"mine", ..DECLARE });
        let publish = Method::BasicPublish(basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH });
        let get = Method::BasicGet(basic::Get { queue: queue.as_bytes(), no_ack: true });
        let mut seen = Vec::new();
        for (operation, confirms) in [(publish, true), (declare, false), (get, false)] {
            let closed = forbidden_soon(way, &handshake, changed, &operation, confirms);
            assert_eq!(closed.code, 403, "{closed:?}");
            seen.push(format!("{closed:?}"));
        }
        println!("{:?}: all is forbidden {:?} after the change", way.through, changed.elapsed());
        // Who was inside is refused as soon as its channel was idle for a while (BROKER-FACTS: permissions).
        let deadline = Instant::now() + Duration::from_secs(40);
        let closed = loop {
            sleep(Duration::from_millis(1500));
            if let Some(closed) = fate(&mut before, 1, &publish) {
                break closed;
            }
            assert!(Instant::now() < deadline, "who was inside publishes on and on");
        };
        seen.push(format!("{closed:?}"));
        before.open_channel(1);
        before.close();
        way.rabbit.delete_user(&name);
        seen.iter().map(|line| line.replace(&name, "USER")).collect()
    });
}

/// Clients of all sorts, of one user on one virtual host, with what each is.
fn crowd(way: &Way, handshake: &Handshake) -> Vec<(&'static str, Peer)> {
    let connect = || Peer::connect_with(way.address(), handshake);
    let idle = connect();
    let mut opened = connect();
    opened.open_channel(1);
    let mut exclusive = connect();
    exclusive.open_channel(1);
    exclusive.declare_with(1, &queue::Declare { exclusive: true, ..DECLARE });
    let mut transacts = connect();
    transacts.open_channel(1);
    transacts.call(1, &Method::TxSelect, warren_wire::method::tx::SELECT_OK);
    vec![
        ("works", inside(way, handshake)),
        ("has done nothing", idle),
        ("has opened a channel", opened),
        ("has an exclusive queue", exclusive),
        ("transacts", transacts),
    ]
}

/// Nobody here has lost a connection, a channel, or what was consumed.
fn are_well(crowd: Vec<(&'static str, Peer)>) {
    for (who, mut peer) in crowd {
        assert_eq!(peer.end_within(Duration::from_millis(1)), None, "who {who}");
        if who == "works" {
            let queue = peer.declare(1, "");
            peer.publish(1, &queue, b"x");
            peer.expect_confirms(1, 2, 1);
        }
        peer.open_channel(9);
        peer.declare(9, "");
        peer.close();
    }
}

/// What each of a crowd is told at the end.
fn told(crowd: Vec<(&'static str, Peer)>) -> Vec<String> {
    let tell = |(who, mut peer): (&str, Peer)| format!("who {who}: {:?}", peer.expect_connection_close());
    crowd.into_iter().map(tell).collect()
}

#[test]
fn all_sessions_of_a_deleted_user_are_told_and_no_others() {
    same_both_ways_with(&["--workers", "2"], |way| {
        let (name, handshake) = user(way);
        let (other, theirs) = user(way);
        let (doomed, neighbours) = (crowd(way, &handshake), crowd(way, &theirs));
        let guests = crowd(way, &way.handshake());
        let pids = pids_of_others(way, &name);
        way.rabbit.delete_user(&name);
        let told = told(doomed);
        are_well(neighbours);
        are_well(guests);
        assert_eq!(pids_kept(way, &pids), pids.len(), "connections of others");
        assert!(told.iter().all(|t| t.contains("code: 320") && t.contains("is deleted")), "{told:#?}");
        let again = refused(Peer::try_connect(way.address(), &handshake));
        // Each worker knows for itself who was let in: one that has not heard of the end refuses a step later.
        let again = again.split_once(": ").map_or(again.clone(), |(_, how)| how.to_owned());
        assert!(again.contains("code: 403"), "{again}");
        way.rabbit.delete_user(&other);
        told.into_iter().chain([again]).map(|line| line.replace(&name, "USER")).collect()
    });
}

#[test]
fn all_sessions_of_a_deleted_virtual_host_are_told_and_no_others() {
    same_both_ways_with(&["--workers", "2"], |way| {
        let (name, mut handshake) = user(way);
        let vhost = unique("doomed");
        way.rabbit.add_vhost(&vhost);
        way.rabbit.set_permissions(&name, &vhost, [".*", ".*", ".*"]);
        let neighbours = crowd(way, &handshake);
        handshake.vhost.clone_from(&vhost);
        let doomed = (crowd(way, &handshake), crowd(way, &Handshake::on(&vhost)));
        let pids = way.rabbit.connection_pids(&way.vhost);
        way.rabbit.delete_vhost(&vhost);
        let mut seen = told(doomed.0);
        seen.extend(told(doomed.1));
        are_well(neighbours);
        assert!(seen.iter().all(|t| t.contains("code: 320") && t.contains("is d")), "{seen:#?}");
        if way.through == Through::Warren {
            let now = way.rabbit.connection_pids(&way.vhost);
            let shared = pids.iter().filter(|p| now.contains(p)).count();
            assert!(shared > 0, "the neighbours' shared connections are there: {pids:?}, now {now:?}");
        }
        seen.push(refused(Peer::try_connect(way.address(), &handshake)));
        way.rabbit.delete_user(&name);
        // RabbitMQ says the one or the other, as it comes.
        let tidy = |line: &String| line.replace(&vhost, "DOOMED").replace("is down", "is deleted");
        seen.iter().map(tidy).collect()
    });
}

/// Connections of everybody else on the virtual host, as the node has them.
fn pids_of_others(way: &Way, user: &str) -> Vec<String> {
    let all = way.rabbit.connections(&way.vhost);
    let names = all.into_iter().filter(|c| c.user != user && c.channels > 0).map(|c| c.name);
    names.collect()
}

/// How many of these are still there.
fn pids_kept(way: &Way, names: &[String]) -> usize {
    if way.through == Through::Nothing {
        return names.len(); // their clients have closed them
    }
    let now: Vec<String> = way.rabbit.connections(&way.vhost).into_iter().map(|c| c.name).collect();
    names.iter().filter(|n| now.contains(n)).count()
}

/// As it is with several tenants of one user: each of its virtual hosts.
#[test]
fn a_deleted_user_loses_the_sessions_on_all_virtual_hosts() {
    both_ways_with(&["--workers", "2"], |way| {
        let (name, handshake) = user(way);
        let second = unique("second");
        way.rabbit.add_vhost(&second);
        way.rabbit.set_permissions(&name, &second, [".*", ".*", ".*"]);
        let on_second = Handshake { vhost: second.clone(), ..handshake.clone() };
        let (mut one, mut two) = (inside(way, &handshake), Peer::connect_with(way.address(), &on_second));
        way.rabbit.delete_user(&name);
        for peer in [&mut one, &mut two] {
            let closed = peer.expect_connection_close();
            assert!(closed.code == 320 && closed.text.contains("is deleted"), "{closed:?}");
        }
        way.rabbit.delete_vhost(&second);
    });
}
