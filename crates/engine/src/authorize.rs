//! The auth service of amqpprox: asked once about each client, when its credentials and its virtual host are known and
//! before a broker is asked. It may say no, and it may put other credentials in the place of the client's. When it
//! fails, nobody comes in.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use warren_wire::reply;
use zeroize::Zeroizing;

use crate::api::Command;
use crate::close;
use crate::engine::Engine;
use crate::handshake;
use crate::ids::SessionId;
use crate::session::{Credentials, Phase};
use crate::time::Time;

/// Class and method of connection.open.
const AT: (u16, u16) = (10, 40);

/// The edge answers at the latest when the service's time is over. This is for when it does not.
const LATER: Duration = Duration::from_secs(1);

/// What the auth service is asked.
#[derive(Clone)]
pub struct AuthRequest {
    /// The virtual host, as the client said it.
    pub vhost: String,
    /// The client's mechanism.
    pub mechanism: Vec<u8>,
    /// Its response.
    pub response: Zeroizing<Vec<u8>>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// The name of its address, where somebody was to look it up and found one.
    pub host: Option<Box<str>>,
    /// The name that it gave its connection; empty when it gave none.
    pub connection_name: String,
}

impl fmt::Debug for AuthRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthRequest({} on {:?})", self.peer, self.vhost)
    }
}

/// Credentials that the service puts in the place of the client's.
#[derive(Clone)]
pub struct Replacement {
    /// Empty: the client's.
    pub mechanism: Vec<u8>,
    /// The response.
    pub response: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Replacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replacement")
    }
}

/// What the auth service says of a client.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It may come in, perhaps with other credentials.
    Allow(Option<Replacement>),
    /// It may not, for this reason.
    Deny(String),
    /// The service has not answered as it should: what happened, for people.
    Failed(String),
}

impl Engine {
    /// Has the service asked, if there is one. `false`: there is none, go on.
    pub(crate) fn ask_auth_service(&mut self, id: SessionId) -> bool {
        let Some(timeout) = self.config.auth_timeout else { return false };
        let Some(session) = self.sessions.get_mut(id) else { return true };
        let Some(credentials) = session.credentials.as_deref() else { return true };
        let request = Box::new(AuthRequest {
            vhost: session.vhost.to_string(),
            mechanism: credentials.mechanism.clone(),
            response: credentials.response.clone(),
            peer: session.peer.address,
            host: session.peer.host.clone(),
            connection_name: std::mem::take(&mut session.connection_name).into(),
        });
        session.phase = Phase::Authorizing;
        let deadline = self.now + timeout + LATER;
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
        self.commands.push_back(Command::Authorize { session: id, request });
        true
    }

    /// A [`Command::Authorize`] is answered.
    pub fn authorized(&mut self, now: Time, id: SessionId, verdict: Verdict) {
        self.now = now;
        // It may have ended meanwhile.
        if self.sessions.get(id).is_some_and(|s| s.phase == Phase::Authorizing) {
            self.heed(id, verdict);
        }
        self.settle_step();
    }

    fn heed(&mut self, id: SessionId, verdict: Verdict) {
        match verdict {
            Verdict::Allow(replacement) => {
                if let Some(replacement) = replacement {
                    self.recredit(id, replacement);
                }
                if self.may_come_from_there(id) {
                    self.open_route(id);
                }
            }
            Verdict::Deny(reason) => self.refuse_auth(id, &reason),
            Verdict::Failed(why) => self.auth_service_failed(id, &why),
        }
    }

    /// The service has failed, or has not answered in time.
    pub(crate) fn auth_service_failed(&mut self, id: SessionId, why: &str) {
        self.refuse_auth(id, &format!("the auth service failed: {why}"));
    }

    fn refuse_auth(&mut self, id: SessionId, reason: &str) {
        self.close_session(id, 403, &reply::text(403, reason), AT, close::REFUSED);
    }

    fn recredit(&mut self, id: SessionId, replacement: Replacement) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let before = session.credentials.take().unwrap_or_default();
        let Replacement { mechanism, response } = replacement;
        let mechanism = if mechanism.is_empty() { before.mechanism } else { mechanism };
        let user = handshake::user(&mechanism, &response).unwrap_or(before.user);
        session.credentials = Some(Box::new(Credentials { mechanism, response, user }));
        session.recredited = true;
    }
}
