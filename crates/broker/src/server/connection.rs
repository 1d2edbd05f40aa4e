//! The task of one connection: bytes into the core, bytes out of it.
//!
//! Whatever wakes the task, it does the same [`Conn::turn`]: it writes, reads a bounded amount, has the core process
//! that, and writes what came of it. Two bounds keep a peer that does not read from costing memory: with
//! [`OUTPUT_LIMIT`] octets waiting for it, it gets no more deliveries and is not read either, so that TCP holds it back.
//! (One message more may always be written, however large: it is in memory already.)

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use warren_wire::frame::HEARTBEAT_FRAME;

use super::pulse::Pulse;
use super::thread::{Seat, Shared};
use crate::broker::ConnId;

/// Octets that may wait for a peer.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// Octets that are read at once, and then processed before more are.
const READ_SIZE: usize = 64 * 1024;
/// Frames that are processed between two looks at how much waits for the peer.
const FRAMES_AT_ONCE: usize = 16;
/// Buffers that a large message has made larger than this are given back.
const KEEP_CAPACITY: usize = 2 * OUTPUT_LIMIT;
/// How long a peer that was closed may take to end its side: without waiting for it, the system would answer what it
/// still sends with a reset, and that may overtake the last frames.
const LINGER: Duration = Duration::from_secs(2);
/// Confirms that the core keeps back on purpose ([`ConfirmStyle::Mixed`](crate::ConfirmStyle)) are asked for again so
/// soon.
const ASK_AGAIN: Duration = Duration::from_millis(1);

/// Serves a connection to its end.
pub(super) async fn serve(shared: Rc<Shared>, id: ConnId, seat: Rc<Seat>, stream: TcpStream) {
    let _ = stream.set_nodelay(true); // fails when the peer is gone; reading will say so
    let now = Instant::now();
    let (writing, written, spare) = (Vec::new(), 0, None);
    let pulse = Pulse::new(now);
    let mut conn = Conn { shared, id, seat, stream, writing, written, spare, pulse, later: None };
    let end = loop {
        match conn.turn() {
            Turn::Wait => conn.wait().await,
            Turn::Yield => tokio::task::yield_now().await,
            Turn::End(end) => break end,
        }
    };
    conn.shared.disconnect(id);
    match end {
        End::Gone => {}
        End::Reset => {
            let _ = conn.stream.set_zero_linger(); // then closing is a reset
        }
        End::Closed => conn.linger().await,
    }
}

/// What follows a turn.
enum Turn {
    /// Sleep until something happens.
    Wait,
    /// There is more to do at once, but others first.
    Yield,
    End(End),
}

/// How a connection ends.
enum End {
    /// The peer has left, or is taken for dead.
    Gone,
    /// All was said and written.
    Closed,
    /// The broker wants it cut off.
    Reset,
}

/// What a read found.
enum Read {
    Some,
    Nothing,
    End,
}

struct Conn {
    shared: Rc<Shared>,
    id: ConnId,
    seat: Rc<Seat>,
    stream: TcpStream,
    /// Taken from the core; up to `written` the socket has it.
    writing: Vec<u8>,
    written: usize,
    /// Space to read into, kept while there is much to read.
    spare: Option<Vec<u8>>,
    pulse: Pulse,
    /// When the core is to be asked again.
    later: Option<Instant>,
}

impl Conn {
    fn turn(&mut self) -> Turn {
        let now = Instant::now();
        if self.write(now).is_err() {
            return Turn::End(End::Gone);
        }
        let read = if self.may_read() { self.read(now) } else { Read::Nothing };
        if matches!(read, Read::End) {
            return Turn::End(End::Gone);
        }
        self.work(now);
        self.shared.wake_for_news(self.id);
        let written = self.write(now);
        if let Some(end) = self.end_wanted() {
            return Turn::End(end);
        }
        if written.is_err() || self.pulse.give_up_at().is_some_and(|at| at <= now) {
            return Turn::End(End::Gone);
        }
        self.beat(now);
        match read {
            Read::Some => Turn::Yield,
            _ if self.has_more_to_do() => Turn::Yield,
            _ => Turn::Wait,
        }
    }

    /// Octets that wait for the peer.
    fn waiting(&self) -> usize {
        self.writing.len() - self.written + self.shared.broker.borrow_mut().output(self.id).len()
    }

    fn may_read(&self) -> bool {
        self.waiting() < OUTPUT_LIMIT && !self.shared.broker.borrow().is_blocked(self.id)
    }

    /// Whether the core stopped at the limit, and the peer has read since.
    fn has_more_to_do(&self) -> bool {
        self.seat.congested.get() && self.waiting() < OUTPUT_LIMIT
    }

    fn read(&mut self, now: Instant) -> Read {
        let mut space = self.spare.take().unwrap_or_else(|| vec![0; READ_SIZE]);
        match self.stream.try_read(&mut space) {
            Ok(0) => Read::End,
            Ok(n) => {
                self.pulse.note_heard(now);
                self.shared.broker.borrow_mut().receive(self.id, &space[..n]);
                self.spare = Some(space);
                Read::Some
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Read::Nothing,
            Err(_) => Read::End,
        }
    }

    /// Has the core process what was read, and say what there is to say, up to the limit.
    fn work(&mut self, now: Instant) {
        let already = self.writing.len() - self.written;
        let broker = &mut *self.shared.broker.borrow_mut();
        let room = |waiting: usize| already + waiting < OUTPUT_LIMIT;
        while room(broker.output(self.id).len()) && broker.step(self.id, FRAMES_AT_ONCE) > 0 {}
        self.later = None;
        while broker.has_news(self.id) && room(broker.output(self.id).len()) {
            let before = broker.output(self.id).len();
            broker.pump(self.id, 1);
            if broker.output(self.id).len() == before && broker.has_news(self.id) {
                self.later = Some(now + ASK_AGAIN);
                break;
            }
        }
        self.seat.congested.set(!room(broker.output(self.id).len()));
        self.pulse.note_phase(now, broker.phase(self.id), broker.heartbeat(self.id));
        if self.seat.congested.get() || broker.is_blocked(self.id) {
            self.pulse.note_heard(now); // it is we who do not listen
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self, now: Instant) -> io::Result<()> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                if self.writing.capacity() > KEEP_CAPACITY {
                    self.writing = Vec::new();
                }
                std::mem::swap(&mut self.writing, self.shared.broker.borrow_mut().output(self.id));
                if self.writing.is_empty() {
                    return Ok(());
                }
            }
            match self.stream.try_write(&self.writing[self.written..]) {
                Ok(n) => {
                    self.written += n;
                    self.pulse.note_said(now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a heartbeat if one is due. Not between frames that wait: they will say the same.
    fn beat(&mut self, now: Instant) {
        if self.waiting() == 0 && self.pulse.say_at().is_some_and(|at| at <= now) {
            self.writing.extend_from_slice(&HEARTBEAT_FRAME);
            let _ = self.write(now); // the next turn sees the same error
            self.pulse.note_said(now);
        }
    }

    /// How the broker wants the connection to end, if it does and everything was written.
    fn end_wanted(&self) -> Option<End> {
        let broker = self.shared.broker.borrow();
        if broker.was_reset(self.id) {
            return Some(End::Reset);
        }
        if !broker.wants_close(self.id) {
            return None;
        }
        drop(broker);
        (self.waiting() == 0).then_some(End::Closed)
    }

    /// Until there is something to do. May return too early.
    async fn wait(&mut self) {
        self.spare = None; // an idle connection needs none
        let writing = self.waiting() > 0;
        let reading = self.may_read();
        let beat = if writing { None } else { self.pulse.say_at() };
        let alarm = [beat, self.pulse.give_up_at(), self.later].into_iter().flatten().min();
        let alarm_or_never = async {
            match alarm {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.seat.news.notified() => {}
            _ = self.stream.readable(), if reading => {}
            _ = self.stream.writable(), if writing => {}
            () = alarm_or_never => {}
        }
    }

    /// Says that nothing follows, and reads on for a moment without listening.
    async fn linger(&mut self) {
        let _ = self.stream.shutdown().await; // fails when the peer is gone
        let rest = async {
            let mut scratch = [0; 4096];
            while self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut scratch) {
                    Ok(1..) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    _ => return,
                }
            }
        };
        let _ = timeout(LINGER, rest).await;
    }
}
