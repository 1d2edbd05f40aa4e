//! Publisher confirms and transactions.

use crate::support::*;
use warren_broker::{ConfirmStyle, Options};
use warren_wire::BasicProperties;
use warren_wire::Method;

#[test]
fn confirms_count_from_select() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.publish(c, 1, "", "q", "before");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish(c, 1, "", "q", "x");
    t.expect(c, &["1 basic.ack 1"]);
    // A second select does not begin again.
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish(c, 1, "", "q", "x");
    t.expect(c, &["1 basic.ack 2"]);
    t.publish(c, 1, "", "nowhere", "x");
    t.expect(c, &["1 basic.ack 3"]);
}

#[test]
fn persistent_messages_are_confirmed() {
    let mut t = Test::new();
    let c = t.channel();
    let m = warren_wire::method::queue::Declare { durable: true, ..declare("lasting") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok lasting 0 0");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    let p = BasicProperties { delivery_mode: Some(2), ..BasicProperties::default() };
    t.publish_with(c, 1, ("", "lasting"), &p, "x");
    t.expect(c, &["1 basic.ack 1"]);
}

#[test]
fn return_comes_before_its_confirm() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish_mandatory(c, 1, "", "nowhere", "x");
    t.expect(c, &["1 basic.return 312 NO_ROUTE '' 'nowhere' [1] x", "1 basic.ack 1"]);
}

/// Numbers confirmed by the lines, each once, in whatever grouping.
fn confirmed(lines: &[String], up_to: u64) -> Vec<u64> {
    let mut done = std::collections::BTreeSet::new();
    let mut order = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[1], "basic.ack", "{lines:?}");
        let tag: u64 = words[2].parse().unwrap();
        let first = if words.len() > 3 { 1 } else { tag };
        assert!(done.insert(tag), "{lines:?}");
        order.push(tag);
        for number in first..tag {
            if done.insert(number) {
                order.push(number);
            }
        }
    }
    assert_eq!(done, (1..=up_to).collect(), "{lines:?}");
    order
}

#[test]
fn all_are_confirmed() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    for _ in 0..50 {
        t.publish(c, 1, "", "q", "x");
    }
    let lines = t.take(c);
    confirmed(&lines, 50);
}

#[test]
fn coalesced_or_single() {
    for (style, expected) in [(ConfirmStyle::Coalesced, 1), (ConfirmStyle::Single, 10)] {
        let mut t = Test::model(Options { confirms: style, ..Options::default() });
        let c = t.channel();
        t.declare(c, 1, "q");
        t.call(c, 1, confirm_select(), "1 confirm.select-ok");
        for _ in 0..10 {
            t.publish(c, 1, "", "q", "x");
        }
        let lines = t.take(c);
        assert_eq!(lines.len(), expected);
        confirmed(&lines, 10);
    }
}

/// Every seed confirms everything once; over many seeds all kinds are seen.
#[test]
fn mixed_confirms_are_complete() {
    let (mut unordered, mut multiple, mut single, mut late) = (0, 0, 0, 0);
    for seed in 0..200 {
        let options = Options { confirms: ConfirmStyle::Mixed, seed, ..Options::default() };
        let mut t = Test::model(options);
        let c = t.channel();
        t.declare(c, 1, "q");
        t.call(c, 1, confirm_select(), "1 confirm.select-ok");
        for _ in 0..20 {
            t.publish(c, 1, "", "q", "x");
        }
        let id = t.id(c);
        let mut lines = t.take(c);
        while t.broker().has_news(id) {
            assert!(t.broker().confirms_due(id, 1) > 0);
            late += 1;
            lines.extend(t.take(c));
        }
        let all_single = lines.iter().all(|l| !l.ends_with("multiple"));
        unordered += usize::from(all_single && !confirmed(&lines, 20).is_sorted());
        multiple += lines.iter().filter(|l| l.ends_with("multiple")).count();
        single += lines.iter().filter(|l| !l.ends_with("multiple")).count();
    }
    let seen = (unordered, multiple, single, late);
    assert!(unordered > 5 && multiple > 50 && single > 50 && late > 20, "{seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = || {
        let options = Options { confirms: ConfirmStyle::Mixed, seed: 7, ..Options::default() };
        let mut t = Test::model(options);
        let c = t.channel();
        t.send(c, 1, Method::QueueDeclare(declare("")));
        t.send(c, 1, confirm_select());
        for _ in 0..20 {
            t.publish(c, 1, "", "q", "x");
        }
        (t.take_bytes(c), t.take_bytes(c), t.take_bytes(c))
    };
    assert_eq!(run(), run());
}

/// What waits to be confirmed when the client closes its channel is never told.
#[test]
fn closing_drops_confirms() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish(c, 1, "", "q", "x");
    t.send(c, 1, close_channel());
    t.expect(c, &["1 channel.close-ok"]);
    assert_eq!(t.counts(other, 1, "q"), (1, 0));
}

#[test]
fn modes_do_not_mix() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    let text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    t.call(c, 1, Method::TxSelect, &format!("1 channel.close 406 {text} 90/10"));
    t.open(c, 2);
    t.call(c, 2, Method::TxSelect, "2 tx.select-ok");
    t.call(c, 2, Method::TxSelect, "2 tx.select-ok");
    let text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    t.call(c, 2, confirm_select(), &format!("2 channel.close 406 {text} 85/10"));
}

#[test]
fn no_transaction() {
    let text = "PRECONDITION_FAILED - channel is not transactional";
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::TxCommit, &format!("1 channel.close 406 {text} 90/20"));
    t.open(c, 2);
    t.call(c, 2, Method::TxRollback, &format!("2 channel.close 406 {text} 90/30"));
}

#[test]
fn commit_publishes() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.publish(c, 1, "", "q", "1");
    t.publish_mandatory(c, 1, "", "nowhere", "2");
    t.expect(c, &[] as &[&str]);
    assert_eq!(t.counts(other, 1, "q"), (0, 0));
    t.send(c, 1, Method::TxCommit);
    t.expect(c, &["1 basic.return 312 NO_ROUTE '' 'nowhere' [1] 2", "1 tx.commit-ok"]);
    assert_eq!(t.counts(other, 1, "q"), (1, 0));
    t.call(c, 1, Method::TxCommit, "1 tx.commit-ok");
}

#[test]
fn rollback_forgets() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.publish(c, 1, "", "q", "0");
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.publish(c, 1, "", "q", "1");
    t.call(c, 1, get("q", false), "1 basic.get-ok 1 '' 'q' 0 [1] 0");
    t.send(c, 1, ack(1, false));
    t.call(c, 1, Method::TxRollback, "1 tx.rollback-ok");
    assert_eq!(t.counts(other, 1, "q"), (0, 0));
    // The acknowledgement is undone, so it may be given again.
    t.send(c, 1, nack(1, false, true));
    t.call(c, 1, Method::TxCommit, "1 tx.commit-ok");
    t.call(other, 1, get("q", true), "1 basic.get-ok 1 again '' 'q' 0 [1] 0");
}

/// An acknowledgement is taken out at once, though it counts only at commit.
#[test]
fn acknowledged_twice_in_a_transaction() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.publish(c, 1, "", "q", "0");
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.call(c, 1, get("q", false), "1 basic.get-ok 1 '' 'q' 0 [1] 0");
    t.send(c, 1, ack(1, false));
    t.send(c, 1, ack(1, false));
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    t.expect(c, &[format!("1 channel.close 406 {text} 60/80")]);
    t.send(c, 1, Method::ChannelCloseOk);
    t.settle();
    t.call(other, 1, get("q", true), "1 basic.get-ok 1 again '' 'q' 0 [1] 0");
}

#[test]
fn closing_forgets_the_transaction() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.publish(c, 1, "", "q", "1");
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    assert_eq!(t.counts(other, 1, "q"), (0, 0));
}

/// Whoever goes on before commit-ok loses the connection, if the queues have not answered yet.
#[test]
fn pipelining_behind_commit() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.publish(c, 1, "", "q", "1");
    t.send(c, 1, Method::TxCommit);
    t.send(c, 1, flow(true));
    let lines = t.take(c);
    let text = "CHANNEL_ERROR - unexpected command while processing 'tx.commit'";
    assert_eq!(lines.last().unwrap(), &format!("0 connection.close 504 {text} 20/20"));
}

/// Without anything routed to a queue there is nothing to wait for.
#[test]
fn pipelining_behind_an_empty_commit() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::TxSelect, "1 tx.select-ok");
    t.send(c, 1, Method::TxCommit);
    t.send(c, 1, flow(true));
    t.expect(c, &["1 tx.commit-ok", "1 channel.flow-ok true"]);
}
