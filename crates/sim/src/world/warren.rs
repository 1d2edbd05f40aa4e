//! Clients connected to engines, engines to the broker, and engines to each other: what the edge does with sockets,
//! done in steps, each piece of octets at a moment of chance's choosing.

mod link;
mod misfortune;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use warren_engine::config::Limits;
use warren_engine::event::Event;
use warren_engine::ids::UpstreamId;
use warren_engine::metrics::Metrics;
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Gone, Link, Options, Peer};

use super::broker_side::BrokerSide;
use super::{Action, Outside, Place};
use crate::Settings;
use crate::client::Client;
use crate::client::handshake::Stage;
use crate::cover::Path;
use crate::oracle::Check;
use crate::scenario::{Pace, Scenario};
use link::{Ending, Session, Upstream};

/// Octets by which publishes that were begun may go beyond what an upstream connection's outbox should hold: two of the
/// largest, from each of as many clients as there are at most.
const LARGEST_PUBLISHES: usize = 12 * 300_000;

/// What channels may have held while they waited for a connection: a little more than 1 MiB for each of six clients.
const HELD_BY_ALL: usize = 6 * (1 << 20) + 6 * 300_000;

/// What a session may have at least when memory is short, and what is little: with more than that all have what the
/// limits say.
const LEAST_SESSION: usize = 4 << 20;
const LITTLE_MEMORY: usize = 64 << 20;

/// Engines and their sockets.
pub struct Warren {
    engines: Vec<Engine>,
    /// By the place of their client; `None` when there is no socket.
    sessions: Vec<Option<Session>>,
    /// In the order in which they were asked for.
    upstreams: Vec<Option<Upstream>>,
    invariants: bool,
    /// Connections to the broker are refused.
    refusing: bool,
}

impl Warren {
    pub(super) fn new(scenario: &Scenario, seed: u64, settings: Settings) -> Warren {
        let config = Arc::new(scenario.config());
        let workers = scenario.workers;
        let engine = |worker| {
            let mut options = Options { worker, workers, ..Options::single(seed ^ worker as u64) };
            (settings.adjust)(&mut options);
            Engine::new(Arc::clone(&config), options, Time(0))
        };
        Warren {
            engines: (0..workers).map(engine).collect(),
            sessions: Vec::new(),
            upstreams: Vec::new(),
            invariants: settings.invariants,
            refusing: false,
        }
    }

    /// The engines' counters, summed.
    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics::default();
        self.engines.iter().for_each(|engine| sum.add(&engine.metrics()));
        sum
    }

    pub(super) fn check(&self) {
        if self.invariants {
            self.engines.iter().for_each(Engine::check_invariants);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.engines.iter().all(Engine::is_idle)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.engines.iter().filter_map(|engine| engine.next_deadline()).map(|time| time.0).min()
    }

    /// What the engines count, and how their sockets stand.
    pub(super) fn describe(&self) -> String {
        let m = self.metrics();
        let mut text = format!(
            "; the engine counts {} clients with {} channels, {} upstreams with {}, {} waiting; memory: {} \
             of {} in use, {} reserved, {} wait",
            m.client_connections,
            m.client_channels,
            m.upstream_connections,
            m.upstream_channels,
            m.waiting_channels,
            m.buffer_octets,
            m.memory_limit_octets,
            m.reserved_octets,
            m.waiting_publishes,
        );
        for s in self.sessions.iter().flatten() {
            let may_read = self.engines[s.worker].may_read(Link::Session(s.id));
            text += &link::standing(&s.id, s.input.len(), s.pending, s.flush, may_read, s.resume);
        }
        for u in self.upstreams.iter().flatten() {
            let may_read = self.engines[u.worker].may_read(Link::Upstream(u.id));
            text += &link::standing(&u.id, u.input.len(), u.pending, u.flush, may_read, u.resume);
        }
        text
    }

    pub(super) fn check_no_sessions(&self) -> Check {
        let m = self.metrics();
        let left = [m.client_connections, m.client_channels, m.waiting_channels];
        if left.iter().any(|&count| count > 0) {
            return Err(format!("every client is gone{}", self.describe()));
        }
        Ok(())
    }

    pub(super) fn check_nothing_left(&self) -> Check {
        self.check_no_sessions()?;
        let m = self.metrics();
        if m.upstream_connections > 0 || m.upstream_channels > 0 || m.buffer_octets > 0 {
            return Err(format!("stopped, but {} octets are left{}", m.buffer_octets, self.describe()));
        }
        Ok(())
    }

    pub(super) fn arrive(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let worker = outside.ctx.rng.below(self.engines.len());
        let engine = &mut self.engines[worker];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_000 + place as u16));
        let id = engine.accepted(Time(outside.ctx.now), Peer::plain(address));
        let id = id.ok_or("the engine refuses a client")?;
        let session = Session::new(worker, id, engine.pool());
        if place < self.sessions.len() {
            self.sessions[place] = Some(session);
        } else {
            self.sessions.push(Some(session));
        }
        self.obey(worker, outside)
    }

    pub(super) fn list(
        &self,
        clients: &[Client],
        broker: &BrokerSide,
        pace: Pace,
        possible: &mut Vec<(Action, u32)>,
    ) {
        for (place, (session, client)) in self.sessions.iter().zip(clients).enumerate() {
            let Some(session) = session else { continue };
            self.list_session(place, session, client, pace, possible);
        }
        for (place, upstream) in self.upstreams.iter().enumerate() {
            let Some(upstream) = upstream else { continue };
            self.list_upstream(place, upstream, broker, pace, possible);
        }
    }

    fn list_session(
        &self,
        place: Place,
        session: &Session,
        client: &Client,
        pace: Pace,
        possible: &mut Vec<(Action, u32)>,
    ) {
        if session.moving.is_some() {
            possible.push((Action::Adopt(place), pace.client_io));
            return;
        }
        let weight = if session.stalled { 0 } else { pace.client_io };
        if session.ending == Ending::Now {
            possible.push((Action::EndClient(place), pace.client_io));
            return;
        }
        let may_read = self.engines[session.worker].may_read(Link::Session(session.id));
        if session.resume || (may_read && !client.tx.is_empty()) {
            possible.push((Action::FromClient(place), pace.client_io));
        }
        if session.pending > 0 && session.flush && !client.vanishing && weight > 0 {
            possible.push((Action::ToClient(place), weight));
        }
        let emptied = client.tx.is_empty() && may_read && !session.resume;
        let over = match client.stage {
            Stage::Done => client.tx.is_empty() || !may_read,
            // A socket that is not read breaks when it is written to.
            _ => client.vanishing && (emptied || !may_read && session.pending > 0),
        };
        if over || session.ending == Ending::Flushed && session.pending == 0 {
            possible.push((Action::EndClient(place), pace.client_io));
        }
    }

    fn list_upstream(
        &self,
        place: Place,
        upstream: &Upstream,
        broker: &BrokerSide,
        pace: Pace,
        possible: &mut Vec<(Action, u32)>,
    ) {
        let Some(conn) = upstream.conn else {
            possible.push((Action::Connect(place), 1));
            return;
        };
        if upstream.ending == Ending::Now {
            possible.push((Action::EndUpstream(place), pace.broker_io));
            return;
        }
        if upstream.flush && upstream.pending > 0 {
            possible.push((Action::ToBroker(place), pace.broker_io));
        }
        let may_read = self.engines[upstream.worker].may_read(Link::Upstream(upstream.id));
        let may_read = may_read && !upstream.hung;
        if upstream.resume || (may_read && broker.available(conn) > 0) {
            possible.push((Action::FromBroker(place), pace.broker_io));
        }
        let flushed = upstream.ending == Ending::Flushed && upstream.pending == 0;
        if flushed || broker.has_ended(conn) && !upstream.resume && !upstream.hung {
            possible.push((Action::EndUpstream(place), pace.broker_io));
        }
    }

    pub(super) fn perform(&mut self, action: Action, outside: &mut Outside<'_>) -> Check {
        match action {
            Action::FromClient(place) => self.read_client(place, outside),
            Action::ToClient(place) => self.write_client(place, outside),
            Action::EndClient(place) => self.end_client(place, outside),
            Action::Adopt(place) => self.adopt(place, outside),
            Action::Connect(place) => self.connect(place, outside),
            Action::ToBroker(place) => self.write_broker(place, outside),
            Action::FromBroker(place) => self.read_broker(place, outside),
            Action::EndUpstream(place) => self.end_upstream(place, outside),
            _ => Ok(()),
        }
    }

    fn read_client(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(session) = &mut self.sessions[place] else { return Ok(()) };
        let link = Link::Session(session.id);
        let engine = &mut self.engines[session.worker];
        session.resume = false;
        let tx = &mut outside.clients[place].tx;
        // After a pause, what was left comes first and may be all that comes.
        let piece = if engine.may_read(link) { outside.piece.min(tx.len()) } else { 0 };
        session.input.extend(&tx[..piece]);
        tx.drain(..piece);
        session.delivered += piece as u64;
        engine.input(Time(outside.ctx.now), link, &mut session.input);
        session.input.release_if_empty();
        let worker = session.worker;
        self.obey(worker, outside)
    }

    fn write_client(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(session) = &mut self.sessions[place] else { return Ok(()) };
        let worker = session.worker;
        let link = Link::Session(session.id);
        let engine = &mut self.engines[worker];
        let bytes = link::write(engine, link, outside.piece, &mut session.flush, outside.ctx.now);
        if session.behind {
            outside.clients[place].is_behind();
        }
        outside.clients[place].receive(&bytes, &mut outside.ctx)?;
        self.obey(worker, outside)
    }

    /// The client's socket ends: the client wanted it, broke, or is told to go.
    fn end_client(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(mut session) = self.sessions[place].take() else { return Ok(()) };
        let (engine, link) = (&mut self.engines[session.worker], Link::Session(session.id));
        let client = &mut outside.clients[place];
        let now = outside.ctx.now;
        let mut rest = || link::write(engine, link, usize::MAX, &mut session.flush, now);
        let unread = if client.vanishing { rest() } else { Vec::new() };
        let failed = outside.ctx.rng.chance(1, 2);
        let why = if failed { Gone::Failed("reset by peer".to_owned()) } else { Gone::Closed };
        let why = if session.ending == Ending::Never { why } else { Gone::Closed };
        engine.gone(Time(outside.ctx.now), link, why);
        if client.vanishing {
            // What was read and not taken, because the engine did not want it yet, is lost with the socket here. Warren's own
            // edge keeps it and offers it again before it looks for the end.
            let taken = session.delivered - session.input.len() as u64;
            client.vanish(taken, &unread, &mut outside.ctx);
        } else {
            client.eof(&mut outside.ctx)?;
        }
        self.obey(session.worker, outside)
    }

    fn adopt(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(session) = &mut self.sessions[place] else { return Ok(()) };
        let Some((worker, hand_off)) = session.moving.take() else { return Ok(()) };
        let engine = &mut self.engines[worker];
        let now = Time(outside.ctx.now);
        let id = engine.adopted(now, hand_off);
        session.arrived(worker, id, engine.pool());
        engine.input(now, Link::Session(id), &mut session.input);
        session.input.release_if_empty();
        outside.ctx.cover.hit(Path::HandOff);
        self.obey(worker, outside)
    }

    fn connect(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(upstream) = &mut self.upstreams[place] else { return Ok(()) };
        let (worker, id) = (upstream.worker, upstream.id);
        if upstream.ending != Ending::Never {
            self.upstreams[place] = None;
            self.engines[worker].gone(Time(outside.ctx.now), Link::Upstream(id), Gone::Closed);
            return self.obey(worker, outside);
        }
        if self.refusing {
            self.upstreams[place] = None;
            let why = Gone::Failed("connection refused".to_owned());
            self.engines[worker].gone(Time(outside.ctx.now), Link::Upstream(id), why);
            return self.obey(worker, outside);
        }
        upstream.conn = Some(outside.broker.connect(outside.ctx.oracle.losses));
        self.engines[worker].upstream_connected(Time(outside.ctx.now), id);
        self.obey(worker, outside)
    }

    fn write_broker(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        let Some(upstream) = &mut self.upstreams[place] else { return Ok(()) };
        let (worker, link) = (upstream.worker, Link::Upstream(upstream.id));
        let engine = &mut self.engines[worker];
        let bytes = link::write(engine, link, outside.piece, &mut upstream.flush, outside.ctx.now);
        if let Some(conn) = upstream.conn.filter(|_| !upstream.hung) {
            outside.broker.receive(conn, &bytes);
        }
        self.obey(worker, outside)
    }

    fn read_broker(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        self.assess_again(place, outside);
        let Some(upstream) = &mut self.upstreams[place] else { return Ok(()) };
        let (worker, link) = (upstream.worker, Link::Upstream(upstream.id));
        let engine = &mut self.engines[worker];
        upstream.resume = false;
        if let (Some(conn), true) = (upstream.conn, engine.may_read(link) && !upstream.hung) {
            upstream.input.extend(&outside.broker.take(conn, outside.piece));
        }
        engine.input(Time(outside.ctx.now), link, &mut upstream.input);
        upstream.input.release_if_empty();
        self.obey(worker, outside)
    }

    fn end_upstream(&mut self, place: Place, outside: &mut Outside<'_>) -> Check {
        self.assess_again(place, outside);
        let Some(upstream) = self.upstreams[place].take() else { return Ok(()) };
        if let Some(conn) = upstream.conn {
            if upstream.hung {
                outside.broker.cut(conn, true, outside.ctx.oracle);
            }
            outside.broker.end(conn, outside.ctx.oracle);
        }
        let engine = &mut self.engines[upstream.worker];
        let failed = upstream.loss.is_some() && outside.ctx.rng.chance(1, 2);
        let why = if failed { Gone::Failed("reset by peer".to_owned()) } else { Gone::Closed };
        engine.gone(Time(outside.ctx.now), Link::Upstream(upstream.id), why);
        self.obey(upstream.worker, outside)
    }

    /// Does what an engine wants done, and looks at what it has for its sockets.
    fn obey(&mut self, worker: usize, outside: &mut Outside<'_>) -> Check {
        while let Some(command) = self.engines[worker].next_command() {
            if outside.ctx.trace.on() {
                outside.ctx.trace.line(format_args!("    engine {worker}: {}", link::describe(&command)));
            }
            if let Command::Event(Event::UpstreamOpened { upstream, purpose: "lane", .. }) = &command {
                self.note_lane(worker, *upstream, outside);
            }
            self.command(worker, command)?;
        }
        self.count_pending(worker, &outside.ctx.scenario.limits)
    }

    /// A connection that one session has for itself: what its client does may close it.
    fn note_lane(&self, worker: usize, id: UpstreamId, outside: &mut Outside<'_>) {
        let mine = |u: &&Upstream| u.worker == worker && u.id == id;
        if let Some(conn) = self.upstreams.iter().flatten().find(mine).and_then(|u| u.conn) {
            outside.broker.tap.own_lane(conn);
        }
    }

    fn command(&mut self, worker: usize, command: Command) -> Check {
        match command {
            Command::Connect { upstream, .. } => {
                let new = Upstream::new(worker, upstream, self.engines[worker].pool());
                match self.upstreams.iter_mut().find(|place| place.is_none()) {
                    Some(place) => *place = Some(new),
                    None => self.upstreams.push(Some(new)),
                }
            }
            Command::Flush(link) => self.mark(worker, link, |flush, _, _| *flush = true),
            Command::Read(link) => self.mark(worker, link, |_, resume, _| *resume = true),
            Command::Close(link) => self.mark(worker, link, |flush, _, ending| {
                *flush = true;
                *ending = Ending::Flushed;
            }),
            Command::Abort(link) => self.mark(worker, link, |_, _, ending| *ending = Ending::Now),
            Command::HandOff { session, worker: to, hand_off } => {
                let mine = |s: &&mut Session| s.worker == worker && s.id == session;
                let found = self.sessions.iter_mut().flatten().find(mine);
                let session = found.ok_or("hand-off of a session that is not here")?;
                session.moving = Some((to, hand_off));
            }
            Command::Authorize { .. } => return Err("there is no auth service".into()),
            Command::Name { .. } => return Err("no names are looked up".into()),
            Command::Event(_) => {}
        }
        Ok(())
    }

    fn mark(&mut self, worker: usize, link: Link, set: impl FnOnce(&mut bool, &mut bool, &mut Ending)) {
        // The socket may be gone already, and the engine may still be at what belongs to it.
        match link {
            Link::Session(id) => {
                let mine = |s: &&mut Session| s.worker == worker && s.id == id;
                if let Some(s) = self.sessions.iter_mut().flatten().find(mine) {
                    set(&mut s.flush, &mut s.resume, &mut s.ending);
                }
            }
            Link::Upstream(id) => {
                let mine = |u: &&mut Upstream| u.worker == worker && u.id == id;
                if let Some(u) = self.upstreams.iter_mut().flatten().find(mine) {
                    set(&mut u.flush, &mut u.resume, &mut u.ending);
                }
            }
        }
    }

    /// Octets that wait for each socket of an engine: they must stay within their budgets.
    fn count_pending(&mut self, worker: usize, limits: &Limits) -> Check {
        let engine = &mut self.engines[worker];
        for s in self.sessions.iter_mut().flatten().filter(|s| s.worker == worker && s.moving.is_none()) {
            s.pending = engine.outbox(Link::Session(s.id)).len();
            s.behind |= s.pending > LEAST_SESSION && limits.memory < LITTLE_MEMORY;
            if s.pending > limits.session_budget {
                return Err(format!("{} octets wait for {:?}: more than its budget", s.pending, s.id));
            }
        }
        let most = limits.upstream_outbox + LARGEST_PUBLISHES + HELD_BY_ALL;
        for u in self.upstreams.iter_mut().flatten().filter(|u| u.worker == worker) {
            u.pending = engine.outbox(Link::Upstream(u.id)).len();
            if u.pending > most {
                return Err(format!("{} octets wait for {:?}: more than its budget", u.pending, u.id));
            }
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, outside: &mut Outside<'_>) -> Check {
        let now = Time(outside.ctx.now);
        for place in 0..self.upstreams.len() {
            // Silence is noticed by the clock.
            if self.upstreams[place].as_ref().is_some_and(|u| u.hung) {
                self.assess_again(place, outside);
            }
        }
        for worker in 0..self.engines.len() {
            if self.engines[worker].next_deadline().is_some_and(|deadline| deadline <= now) {
                self.engines[worker].tick(now);
                self.obey(worker, outside)?;
                if self.engines[worker].next_deadline().is_some_and(|deadline| deadline <= now) {
                    return Err("the engine wants to be ticked again at once".to_owned());
                }
            }
        }
        Ok(())
    }

    pub(super) fn shut_down(&mut self, outside: &mut Outside<'_>) -> Check {
        for worker in 0..self.engines.len() {
            self.engines[worker].shutdown(Time(outside.ctx.now), "the simulation is over");
            self.obey(worker, outside)?;
        }
        Ok(())
    }
}
