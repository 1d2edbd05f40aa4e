//! connection.update-secret: a client says its new password (or token) on a connection that lives on. Where many share
//! connections it cannot be passed on: the broker is asked on a connection of its own, and from then on the session's
//! channels are bound in the pools of the new secret.

use warren_wire::method::{Method, connection};
use warren_wire::reply;

use crate::close;
use crate::dial;
use crate::engine::Engine;
use crate::ids::{SessionId, UpstreamId};
use crate::session::Credentials;
use crate::tenant::NodeId;
use crate::upstream::Stage;

/// Class and method of connection.update-secret.
const AT: (u16, u16) = (10, 70);

impl Engine {
    pub(crate) fn client_updates_secret(&mut self, id: SessionId, update: &connection::UpdateSecret<'_>) {
        if self.sessions[id].recredited {
            // What the client says now is not what its broker knows it by.
            return self.secret_refused(id);
        }
        let Some(tenant) = self.sessions[id].tenant.and_then(|t| self.tenants.get(t)) else { return };
        let (farm, user) = (tenant.farm, self.logins[tenant.login].credentials.user.clone());
        let response = [b"\0", user.as_bytes(), b"\0", update.new_secret].concat();
        let credentials = Credentials { mechanism: b"PLAIN".to_vec(), response: response.into(), user };
        let login = self.find_login(farm, &credentials);
        self.logins[login].sessions += 1;
        let deadline = self.now + self.config.limits.wait_limit;
        let session = &mut self.sessions[id];
        let before = session.rekeying.replace(login);
        session.rekeys += 1;
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
        self.leave_login(before);
        if self.login_is_fresh(login) {
            self.rekeyed(id);
        } else if self.fresh_refusal(self.logins[login].refused.as_ref()).is_some() {
            self.secret_refused(id);
        } else {
            self.logins[login].waiters.push(id);
            self.check_login(login);
        }
    }

    /// The broker takes the new secret: the session belongs to its pools. Bindings that it has stay as they are.
    pub(crate) fn rekeyed(&mut self, id: SessionId) {
        let session = &mut self.sessions[id];
        let (Some(login), Some(old)) = (session.rekeying.take(), session.tenant) else { return };
        let before = session.login.replace(login);
        let vhost = self.tenants[old].vhost.clone();
        let new = self.find_tenant(login, &vhost);
        self.sessions[id].tenant = Some(new);
        self.tenants[old].sessions -= 1;
        self.tenants[old].last_used = self.now;
        self.tenants[new].sessions += 1;
        self.tenants[new].last_used = self.now;
        if let Some(backend) = self.sessions[id].node() {
            let (from, to) = (NodeId { tenant: old, backend }, NodeId { tenant: new, backend });
            self.change_node(id, from, to);
        }
        self.dial_lane_anew(id);
        let session = &mut self.sessions[id];
        session.deadline = None;
        for _ in 0..std::mem::take(&mut session.rekeys) {
            self.tell_client(id, 0, Method::ConnectionUpdateSecretOk);
        }
        self.serve(new);
        self.tenant_timer(old);
        self.leave_login(before);
    }

    /// A lane that is still being made carries the old secret, which the broker may refuse any moment.
    fn dial_lane_anew(&mut self, id: SessionId) {
        let lane = self.sessions[id].lane;
        let ready = |lane: &UpstreamId| self.upstreams.get(*lane).is_some_and(|u| u.stage >= Stage::Ready);
        if let Some(lane) = lane.filter(|lane| !ready(lane)) {
            self.close_upstream(lane, dial::IDLE, "its session has a new secret");
        }
    }

    /// As RabbitMQ says it.
    pub(crate) fn secret_refused(&mut self, id: SessionId) {
        let text = reply::text(530, "New secret was refused by one of the backends");
        self.close_session(id, 530, &text, AT, close::REFUSED);
    }
}
