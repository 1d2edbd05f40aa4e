//! The task of one connection: bytes from its socket to the engine, until one of the two has enough.
//!
//! A connection sleeps without a buffer. Whatever wakes it, it does the same [`turn`]: it writes if it was blocked,
//! offers what the engine had held back, and reads while the engine lets it. Each of these costs no system call when
//! there is nothing to do, so no wake-up needs to say what it was for, and none can be misunderstood.
//!
//! A turn is bounded: afterwards the other tasks of the worker have theirs.

use std::rc::Rc;

use warren_engine::Gone;
use warren_engine::buf::Input;
use warren_engine::time::Time;

use super::Worker;
use super::closing;
use super::links::{Conn, Wanted, Writing};
use super::mailbox::{Adoption, Message};
use super::survive;

/// Reads per turn. Four full blocks are some 100 µs of work, a delay that nobody else on the worker notices; fewer
/// would mean more trips through the scheduler for one busy peer.
const READS_PER_TURN: usize = 4;
/// Space to ask for when it is not known what comes. Most of the time the whole rest of a block is there.
const READ_AT_LEAST: usize = 4096;
/// Space for those who are not let in yet: what they send in advance must not fill memory.
const READ_AT_MOST_BEFORE: usize = 4096;

/// What follows a turn.
enum Next {
    /// Sleep until something happens; with `reading`, that includes bytes to read.
    Wait { reading: bool },
    /// Let others run, then go on.
    Yield,
    /// Look again at once.
    Again,
    /// The exchange has ended.
    End(Ending),
}

impl Next {
    /// After a fault of our own.
    fn given_up() -> Next {
        Next::End(Ending::Gone(Gone::Failed("internal error".into())))
    }
}

/// How the exchange of bytes ends.
enum Ending {
    /// The socket is at its end, or must end now.
    Gone(Gone),
    /// The engine wants it closed in good order.
    Close,
    /// The session goes to another worker.
    HandOff,
}

/// Serves a connection to its end. `input` holds what was read before (by another worker).
pub(super) async fn serve(worker: Rc<Worker>, conn: Rc<Conn>, mut input: Input) {
    if !input.is_empty() {
        conn.want(Wanted::READ);
    }
    let ending = loop {
        let next = survive("a connection", || turn(&worker, &conn, &mut input));
        match next.unwrap_or_else(Next::given_up) {
            Next::Wait { reading } => conn.ready(reading).await,
            Next::Yield => tokio::task::yield_now().await,
            Next::Again => {}
            Next::End(ending) => break ending,
        }
    };
    match ending {
        Ending::Gone(why) => worker.gone(conn.link, why),
        Ending::HandOff => hand_off(&worker, conn, &input),
        Ending::Close => {
            drop(input);
            // Boxed: a sleeping connection must not pay for the room that closing takes.
            Box::pin(closing::close(&worker, &conn)).await;
            worker.gone(conn.link, Gone::Closed);
        }
    }
}

/// Does all there is to do, up to a bound.
fn turn(worker: &Rc<Worker>, conn: &Conn, input: &mut Input) -> Next {
    let now = worker.clock.now();
    let wanted = conn.take_wanted();
    if let Some(ending) = asked_to_end(wanted) {
        return Next::End(ending);
    }
    if conn.writing.get() == Writing::Blocked {
        conn.writing.set(Writing::Open);
        worker.flush(now, conn);
        worker.settle(now);
    }
    let next = read_turn(worker, conn, input, now, wanted.any_of(Wanted::READ));
    // What several reads brought is written together: fewer and longer writes.
    worker.settle(now);
    next
}

/// Reads, up to a bound, and has the engine deal with it.
fn read_turn(worker: &Rc<Worker>, conn: &Conn, input: &mut Input, now: Time, mut offer: bool) -> Next {
    for _ in 0..READS_PER_TURN {
        if conn.wanted().any_of(Wanted::END) {
            return Next::Again;
        }
        offer |= conn.take_one(Wanted::READ);
        if !worker.engine.borrow().may_read(conn.link) {
            // Octets that were read stay where they are until the engine says Read, as it promises.
            release(worker, conn, input);
            return Next::Wait { reading: false };
        }
        let mut emptied = false;
        // What was held back comes first: what follows it on the socket must not be waited for.
        if !std::mem::take(&mut offer) || input.is_empty() {
            let most = worker.engine.borrow_mut().read_at_most(now, conn.link);
            if most == 0 {
                release(worker, conn, input);
                return Next::Wait { reading: false };
            }
            match read(worker, conn, input, most) {
                Read::Some { all } => emptied = all,
                Read::None => {
                    release(worker, conn, input);
                    return Next::Wait { reading: true };
                }
                Read::End(why) => return Next::End(Ending::Gone(why)),
            }
        }
        worker.engine.borrow_mut().input(now, conn.link, input);
        if emptied && conn.wanted() == Wanted::NOTHING && worker.engine.borrow().may_read(conn.link) {
            release(worker, conn, input);
            return Next::Wait { reading: true };
        }
    }
    Next::Yield
}

fn asked_to_end(wanted: Wanted) -> Option<Ending> {
    if wanted.any_of(Wanted::ABORT) {
        Some(Ending::Gone(Gone::Closed))
    } else if wanted.any_of(Wanted::HAND_OFF) {
        Some(Ending::HandOff)
    } else if wanted.any_of(Wanted::CLOSE) {
        Some(Ending::Close)
    } else {
        None
    }
}

/// What a read found.
enum Read {
    /// Octets; `all`: there are no more for now.
    Some { all: bool },
    /// Nothing for now.
    None,
    /// Nothing any more.
    End(Gone),
}

/// Reads `most` octets at most.
fn read(worker: &Worker, conn: &Conn, input: &mut Input, most: usize) -> Read {
    let missing = missing(input.bytes());
    let space = input.space(missing);
    let most = if knocks(worker, conn) { READ_AT_MOST_BEFORE } else { most };
    let most = space.len().min(most);
    let space = &mut space[..most];
    let room = space.len();
    match conn.socket.try_read(space) {
        Ok(0) => Read::End(Gone::Closed),
        Ok(n) => {
            input.filled(n);
            Read::Some { all: n < room }
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Read::None,
        Err(error) => Read::End(Gone::Failed(format!("reading failed: {error}"))),
    }
}

/// Gives back what a connection does not need while it sleeps.
fn release(worker: &Worker, conn: &Conn, input: &mut Input) {
    if !input.is_empty() && knocks(worker, conn) {
        input.shrink();
    } else {
        input.rest();
    }
}

/// Whether the client is not let in yet. Once it is, that is not asked again.
fn knocks(worker: &Worker, conn: &Conn) -> bool {
    if conn.knocks.get() && !worker.engine.borrow().knocks(conn.link) {
        conn.knocks.set(false);
    }
    conn.knocks.get()
}

/// Space to ask for: what the frame that has begun still lacks. But not more than twice what has come of it: who
/// announces much gets memory as it sends much. (The engine refuses frames larger than was negotiated.)
fn missing(unread: &[u8]) -> usize {
    let announced = warren_wire::frame::announced_len(unread, 0).unwrap_or(0);
    let lacking = announced.saturating_sub(unread.len());
    lacking.min(2 * unread.len()).max(READ_AT_LEAST)
}

/// Takes the session to the worker that the engine has named. This worker has forgotten it already.
fn hand_off(worker: &Worker, conn: Rc<Conn>, input: &Input) {
    let Some((to, hand_off)) = conn.take_hand_off() else {
        return;
    };
    let link = conn.link;
    // No one else holds it: it is out of the table, and references from there do not outlive a call.
    let Some(conn) = Rc::into_inner(conn) else {
        return tracing::error!(?link, "a session in use elsewhere cannot be handed over; it is dropped");
    };
    match conn.socket.into_parcel() {
        Ok(socket) => {
            let adoption = Adoption { socket, seat: conn.seat, unread: input.bytes().to_vec(), hand_off };
            worker.send(to, Message::Adopt(Box::new(adoption)));
        }
        Err(error) => tracing::warn!(?link, "a session cannot be handed over and is dropped: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<F: Future>(_: impl FnOnce(Rc<Worker>, Rc<Conn>, Input) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_small() {
        let (task, record) = (future_size(serve), size_of::<Conn>());
        println!("task {task} octets, record {record} octets");
        assert!(task <= 192, "{task} octets for the task of a connection");
        assert!(record <= 128, "{record} octets for the record of a connection");
    }

    #[test]
    fn space_follows_what_has_come() {
        let header = |size: u32| {
            let mut frame = vec![3, 0, 1];
            frame.extend(size.to_be_bytes());
            frame
        };
        assert_eq!(missing(b""), READ_AT_LEAST);
        assert_eq!(missing(b"AMQP\0\0\x09"), READ_AT_LEAST, "much announced, little seen");
        assert_eq!(missing(&header(u32::MAX)), READ_AT_LEAST);
        let mut begun = header(131_064);
        begun.resize(65_000, 0);
        assert_eq!(missing(&begun), 131_072 - 65_000, "as much as the frame lacks");
        begun.resize(20_000, 0);
        assert_eq!(missing(&begun), 40_000, "twice what has come");
    }
}
