//! connection.update-secret: a client says its new password, and lives on.

use std::time::Duration;
use warren_testkit::peer::{Closed, End};
use warren_testkit::{Handshake, Peer, Through, Way, both_ways, through_warren, unique};
use warren_wire::Method;
use warren_wire::method::connection;

fn user(way: &Way) -> (String, Handshake) {
    let name = unique("user");
    way.rabbit.add_user(&name, "old");
    way.rabbit.set_permissions(&name, &way.vhost, [".*", ".*", ".*"]);
    let handshake = way.handshake().by(&name, "old");
    (name, handshake)
}

/// Consumes from a queue of its own, on channel 1.
fn consumer(way: &Way, handshake: &Handshake) -> (Peer, String) {
    let mut peer = Peer::connect_with(way.address(), handshake);
    peer.open_channel(1);
    let queue = peer.declare(1, &unique("secrets"));
    peer.consume(1, &queue, "t", true);
    (peer, queue)
}

fn update(peer: &mut Peer, secret: &str) {
    let update = connection::UpdateSecret { new_secret: secret.as_bytes(), reason: b"it is time" };
    peer.send(0, &Method::ConnectionUpdateSecret(update));
}

/// The message is confirmed before its publisher leaves: RabbitMQ may drop what is still on its way to the channel when
/// the connection ends.
fn still_consumes(way: &Way, peer: &mut Peer, queue: &str, text: &str) {
    let mut publisher = way.observer();
    publisher.confirm_select(1);
    publisher.publish(1, queue, text.as_bytes());
    publisher.expect_confirms(1, 1, 1);
    assert_eq!(peer.delivery(1).text(), text);
    publisher.close();
}

#[test]
fn a_session_goes_on_with_its_new_secret() {
    both_ways(|way| {
        let (name, handshake) = user(way);
        let (mut peer, queue) = consumer(way, &handshake);
        way.rabbit.change_password(&name, "new");
        update(&mut peer, "new");
        peer.expect(0, connection::UPDATE_SECRET_OK);
        still_consumes(way, &mut peer, &queue, "after the update");
        peer.open_channel(2);
        peer.confirm_select(2);
        peer.publish(2, &queue, b"on another channel");
        peer.expect_confirms(2, 1, 1);
        assert_eq!(peer.delivery(1).text(), "on another channel");
        peer.close();
        way.rabbit.delete_user(&name);
    });
}

/// What Warren does beyond its broker: who has said the new secret is bound again with it, who has not is refused.
#[test]
fn after_a_loss_only_the_new_secret_counts() {
    through_warren(|way| {
        let (name, handshake) = user(way);
        let (mut knows, queue) = consumer(way, &handshake);
        let (mut ignorant, _) = consumer(way, &handshake);
        way.rabbit.change_password(&name, "new");
        update(&mut knows, "new");
        knows.expect(0, connection::UPDATE_SECRET_OK);
        for text in ["after one loss", "after two losses"] {
            way.rabbit.cut_connections(&way.vhost);
            still_consumes(way, &mut knows, &queue, text);
        }
        let closed = ignorant.expect_connection_close();
        assert_eq!(closed.code, 403, "{closed:?}");
        // One that comes later is served beside it.
        let (late, _) = consumer(way, &way.handshake().by(&name, "new"));
        late.close();
        knows.close();
        way.rabbit.delete_user(&name);
    });
}

/// RabbitMQ's own user database takes any secret: only backends with tokens look at it. Warren cannot pass it on, since
/// others share the connection. It asks whether somebody could log in with it, and answers as RabbitMQ does when a
/// backend refuses.
#[test]
fn a_wrong_secret_is_refused_by_warren() {
    both_ways(|way| {
        let (name, handshake) = user(way);
        let (mut peer, queue) = consumer(way, &handshake);
        let (mut neighbour, theirs) = consumer(way, &handshake);
        update(&mut peer, "wrong");
        if way.through == Through::Nothing {
            peer.expect(0, connection::UPDATE_SECRET_OK);
            still_consumes(way, &mut peer, &queue, "any secret will do");
        } else {
            let refused = Closed {
                code: 530,
                text: "NOT_ALLOWED - New secret was refused by one of the backends".to_owned(),
                class: 10,
                method: 70,
            };
            assert_eq!(peer.expect_end(Duration::from_secs(60)), End::Closed(refused));
        }
        still_consumes(way, &mut neighbour, &theirs, "the neighbour's secret is good");
        neighbour.close();
        way.rabbit.delete_user(&name);
    });
}

/// A user that is deleted is told as well when it has just said another secret and has used nothing with it.
#[test]
fn a_user_deleted_after_an_update_is_told() {
    both_ways(|way| {
        let (name, handshake) = user(way);
        let mut idle = Peer::connect_with(way.address(), &handshake);
        let (mut busy, _) = consumer(way, &handshake);
        way.rabbit.change_password(&name, "new");
        for peer in [&mut idle, &mut busy] {
            update(peer, "new");
            peer.expect(0, connection::UPDATE_SECRET_OK);
        }
        way.rabbit.delete_user(&name);
        for peer in [&mut idle, &mut busy] {
            let closed = peer.expect_connection_close();
            assert!(closed.code == 320 && closed.text.contains("is deleted"), "{closed:?}");
        }
    });
}
