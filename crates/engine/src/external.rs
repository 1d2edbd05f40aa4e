//! EXTERNAL: a client's certificate stands for credentials at the broker. The client shows the certificate in its TLS
//! handshake, where its authority was verified; an identity of the configuration says which user it stands for.

use warren_wire::reply;
use zeroize::Zeroizing;

use crate::engine::Engine;
use crate::ids::SessionId;
use crate::session::Credentials;
use crate::tenant::Refusal;
use crate::time::Time;

/// The mechanism's name.
pub(crate) const NAME: &[u8] = b"EXTERNAL";

impl Engine {
    /// What a client may log in with.
    pub(crate) fn mechanisms(&self, id: SessionId) -> &'static [u8] {
        match self.offers_external(id) {
            true => b"PLAIN AMQPLAIN EXTERNAL",
            false => b"PLAIN AMQPLAIN",
        }
    }

    /// Whether certificates stand for credentials where a client has connected. A common name that a PROXY protocol
    /// header tells of, at a listener that does not ask for certificates itself, stands for nothing.
    pub(crate) fn offers_external(&self, id: SessionId) -> bool {
        let listener = self.config.listeners.get(self.sessions[id].peer.listener);
        !self.config.identities.is_empty() && listener.is_some_and(|l| l.asks_certificates)
    }

    /// The credentials that a client's certificate stands for; else what is wrong.
    pub(crate) fn identity_of(&self, id: SessionId) -> Result<Credentials, String> {
        let tls = self.sessions[id].peer.tls.as_ref().ok_or("connection not on TLS")?;
        let cn = tls.certificate_cn.as_deref().ok_or("no peer certificate with a common name")?;
        let identity = self.config.identities.iter().find(|identity| identity.certificate_cn == cn);
        let identity = identity.ok_or_else(|| format!("no identity for the common name '{cn}'"))?;
        let (user, password) = (identity.user.as_bytes(), identity.password.as_slice());
        // Of its final size from the beginning, so that no part of it is left behind where it has grown.
        let mut response = Zeroizing::new(Vec::with_capacity(user.len() + password.len() + 2));
        for part in [b"\0", user, b"\0", password] {
            response.extend_from_slice(part);
        }
        Ok(Credentials { mechanism: b"PLAIN".to_vec(), response, user: identity.user.clone() })
    }
}

/// RabbitMQ's text for a refused login, with the reason, which RabbitMQ has in its log.
pub(crate) fn refusal(detail: &str, at: Time) -> Refusal {
    let text =
        reply::text(403, &format!("Login was refused using authentication mechanism EXTERNAL: {detail}"));
    Refusal { code: 403, text: text.into_bytes(), class: 0, method: 0, at }
}
