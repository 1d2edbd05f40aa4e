//! Whether backends work: health checks, where a farm wants them, and what is known of each, for metrics.
//!
//! A check speaks AMQP as far as connection.start, and then ends the connection in good order: it says that it has
//! finished and waits until the broker has finished too, so that nothing is left behind on either side.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, timeout};
use warren_engine::Config;
use warren_engine::balance::Balance;
use warren_engine::config::{BackendId, FarmId, HealthCheck};
use warren_wire::frame::{FRAME_METHOD, PROTOCOL_HEADER, next_frame};
use warren_wire::method::Method;

use crate::connect::Connector;
use crate::socket::Socket;
use crate::worker::clock::Clock;

/// The longest connection.start that is read: RabbitMQ's has some 500 octets.
const LONGEST_START: usize = 64 << 10;

/// What the control thread knows of backends.
#[derive(Clone)]
pub(crate) struct Backends {
    pub(crate) config: Arc<Config>,
    pub(crate) balance: Arc<Balance>,
    pub(crate) connectors: Arc<[Connector]>,
    pub(crate) clock: Clock,
}

/// What is told of one of them.
#[derive(Clone, Debug)]
pub(super) struct BackendState {
    pub(super) name: String,
    pub(super) up: bool,
    pub(super) sessions: u64,
}

impl Backends {
    /// Begins the checks of all farms that want some, in tasks of the present local set.
    pub(super) fn start_checks(&self) {
        for (number, farm) in self.config.farms.iter().enumerate() {
            let Some(check) = farm.health_check else { continue };
            for &backend in &farm.backends {
                spawn_local(self.clone().watch(number, backend, check));
            }
        }
    }

    /// What is known of each backend, in their order.
    pub(super) fn states(&self) -> Vec<BackendState> {
        let now = self.clock.now();
        let state = |(id, backend): (BackendId, &warren_engine::config::Backend)| BackendState {
            name: backend.name.clone(),
            up: self.balance.is_up(id, now),
            sessions: self.balance.sessions(id) as u64,
        };
        self.config.backends.iter().enumerate().map(state).collect()
    }

    /// Checks a member of a farm for ever.
    async fn watch(self, farm: FarmId, backend: BackendId, check: HealthCheck) {
        let mut record = Record::default();
        let mut times = interval(check.interval.max(Duration::from_millis(1)));
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let Some(connector) = self.connectors.get(backend) else { return };
        let name = &self.config.backends[backend].name;
        loop {
            times.tick().await;
            let found = match timeout(check.timeout, ask(connector)).await {
                Ok(found) => found,
                Err(_) => Err(format!("no connection.start within {:?}", check.timeout)),
            };
            let problem = found.err();
            match record.note(problem.is_none(), check.fall, check.rise) {
                Some(true) => {
                    self.balance.set_down(farm, backend, false);
                    tracing::info!("backend {name} is up again");
                }
                Some(false) => {
                    self.balance.set_down(farm, backend, true);
                    tracing::warn!("backend {name} is down: {}", problem.unwrap_or_default());
                }
                None => {}
            }
        }
    }
}

/// What checks have found: whether a member is taken for bad, and how many in a row say otherwise.
#[derive(Debug, Default)]
struct Record {
    bad: bool,
    against: u32,
}

impl Record {
    /// Whether this makes a difference, and then whether the member is good from now on.
    fn note(&mut self, good: bool, fall: u32, rise: u32) -> Option<bool> {
        if good != self.bad {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if self.bad { rise } else { fall };
        if self.against < enough {
            return None;
        }
        (self.bad, self.against) = (!self.bad, 0);
        Some(good)
    }
}

/// Asks a broker for connection.start. The error is a text for people.
async fn ask(connector: &Connector) -> Result<(), String> {
    let socket = connector.connect().await?;
    let broken = |error: std::io::Error| format!("the connection broke: {error}");
    write(&socket, &PROTOCOL_HEADER).await.map_err(broken)?;
    let answer = read_start(&socket).await;
    socket.shutdown_write();
    if answer.is_ok() {
        read_to_end(&socket).await;
    }
    answer
}

async fn write(socket: &Socket, bytes: &[u8]) -> std::io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        std::future::poll_fn(|cx| socket.poll_write_ready(cx)).await;
        match socket.try_write(&[std::io::IoSlice::new(&bytes[written..])]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    loop {
        match socket.try_flush() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::future::poll_fn(|cx| socket.poll_write_ready(cx)).await;
            }
            flushed => return flushed,
        }
    }
}

/// The next octets; none at the end.
async fn read(socket: &Socket, space: &mut [u8]) -> std::io::Result<usize> {
    loop {
        std::future::poll_fn(|cx| socket.poll_read_ready(cx)).await;
        match socket.try_read(space) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

async fn read_start(socket: &Socket) -> Result<(), String> {
    let (mut bytes, mut space) = (Vec::new(), [0; 4096]);
    loop {
        let n = read(socket, &mut space).await.map_err(|error| format!("the connection broke: {error}"))?;
        if n == 0 {
            return Err("the connection was closed without connection.start".into());
        }
        bytes.extend_from_slice(&space[..n]);
        match next_frame(&bytes, 0, u32::try_from(LONGEST_START).unwrap_or(u32::MAX)) {
            Ok(None) if bytes.len() < LONGEST_START => {}
            Ok(Some(frame)) if frame.kind == FRAME_METHOD => {
                return match Method::parse(frame.payload(&bytes)) {
                    Ok(Method::ConnectionStart(_)) => Ok(()),
                    _ => Err("another answer than connection.start".into()),
                };
            }
            _ => return Err("an answer that is not AMQP 0-9-1".into()),
        }
    }
}

/// Waits until the other side has finished too.
async fn read_to_end(socket: &Socket) {
    let mut space = [0; 1024];
    while read(socket, &mut space).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn so_many_failures_make_a_member_bad_and_so_many_successes_good() {
        let mut record = Record::default();
        let mut note = |good| record.note(good, 3, 2);
        assert_eq!([note(true), note(false), note(false), note(true)], [None; 4], "not in a row");
        assert_eq!([note(false), note(false), note(false)], [None, None, Some(false)]);
        assert_eq!([note(false), note(true), note(false), note(true)], [None; 4]);
        assert_eq!([note(true), note(true), note(true)], [Some(true), None, None]);
    }
}
