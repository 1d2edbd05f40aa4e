//! Whether credentials and virtual hosts are good: asked once for many, remembered for `auth_ttl`.

use crate::config::FarmId;
use crate::engine::Engine;
use crate::ids::{ChannelId, LoginId, TenantId, UpstreamId};
use crate::session::{Credentials, Phase};
use crate::tenant::{Inquiry, Login, Refusal, Tenant};
use crate::timers::TimerKey;

impl Engine {
    /// The login with these credentials, made if there is none.
    pub(crate) fn find_login(&mut self, farm: FarmId, credentials: &Credentials) -> LoginId {
        let key = (farm, credentials.user.clone());
        let known = self.login_names.get(&key).into_iter().flatten().copied().find(|&id| {
            let known = &self.logins[id].credentials;
            known.mechanism == credentials.mechanism && same_secret(&known.response, &credentials.response)
        });
        if let Some(id) = known {
            return id;
        }
        let id = self.logins.insert(Login {
            farm,
            credentials: credentials.clone(),
            verified_at: None,
            losses: 0,
            refused: None,
            verifying: None,
            queued: false,
            parked: None,
            waiters: Vec::new(),
            tenants: std::collections::BTreeMap::new(),
            sessions: 0,
            quota: None,
        });
        self.login_names.entry(key).or_default().push(id);
        id
    }

    pub(crate) fn login_is_fresh(&self, id: LoginId) -> bool {
        let ttl = self.config.limits.auth_ttl;
        self.logins.get(id).and_then(|l| l.verified_at).is_some_and(|at| self.now.since(at) < ttl)
    }

    /// A refusal that is young enough to stand for the next attempt too.
    pub(crate) fn fresh_refusal(&self, refusal: Option<&Refusal>) -> Option<Refusal> {
        refusal.filter(|r| self.now.since(r.at) < self.config.limits.refusal_ttl).cloned()
    }

    /// Has a connection find out, if somebody waits for it.
    pub(crate) fn check_login(&mut self, id: LoginId) {
        let Some(login) = self.logins.get_mut(id) else { return };
        login.waiters.retain(|s| self.sessions.get(*s).is_some_and(|s| s.asks_about(id)));
        if login.waiters.is_empty() || login.verifying.is_some() {
            return;
        }
        let farm = login.farm;
        let up = match self.take_greeted(farm, id) {
            Some(up) => {
                self.upstreams[up].login = Some(id);
                self.begin_inquiry(up);
                self.send_start_ok(up);
                Some(up)
            }
            None => self.inquire(farm, Inquiry::Login(id)),
        };
        self.logins[id].verifying = up;
    }

    /// A connection that was greeted and waits for credentials: at the node of the one who asks, if there is one.
    fn take_greeted(&mut self, farm: FarmId, login: LoginId) -> Option<UpstreamId> {
        let asks = self.logins[login].waiters.first().and_then(|s| self.sessions.get(*s));
        let node = asks.and_then(|s| s.turn).map(|(_, node)| node);
        let greeted = &mut self.farms[farm].greeted;
        let there = greeted.iter().rposition(|u| Some(self.upstreams[*u].backend) == node);
        let at = there.or(greeted.len().checked_sub(1))?;
        Some(greeted.remove(at))
    }

    /// The broker has accepted these credentials.
    pub(crate) fn login_verified(&mut self, id: LoginId) {
        let Some(login) = self.logins.get_mut(id) else {
            return;
        };
        login.verified_at = Some(self.now);
        login.refused = None;
        login.losses = 0;
        for session in std::mem::take(&mut login.waiters) {
            match self.sessions.get(session).filter(|s| s.asks_about(id)).map(|s| s.phase) {
                Some(Phase::Verifying) => self.send_tune(session),
                Some(_) => self.rekeyed(session),
                None => {}
            }
        }
    }

    /// The broker has refused these credentials.
    pub(crate) fn login_refused(&mut self, id: LoginId, refusal: &Refusal) {
        let Some(login) = self.logins.get_mut(id) else {
            return;
        };
        login.verified_at = None;
        for session in std::mem::take(&mut login.waiters) {
            match self.sessions.get(session).is_some_and(|s| s.rekeying == Some(id)) {
                true => self.secret_refused(session),
                false => self.refuse_login(session, refusal),
            }
        }
        let Some(login) = self.logins.get_mut(id) else {
            return;
        };
        let tenants: Vec<TenantId> = login.tenants.values().copied().collect();
        login.refused = Some(refusal.clone());
        for tenant in tenants {
            // A proof of these pools was older: they serve no new session.
            self.tenants[tenant].proven_at = None;
            self.tenant_refused(tenant, refusal);
        }
        self.wheel.schedule(self.now + self.config.limits.refusal_ttl, TimerKey::Login(id));
    }

    /// Channels that wait for one connection more, which these credentials open no longer: that is final.
    fn refuse_waiting(&mut self, id: TenantId, refusal: &Refusal) {
        let text = String::from_utf8_lossy(&refusal.text).into_owned();
        let nodes = self.tenants[id].nodes.values_mut();
        let waiting: Vec<ChannelId> = nodes.flat_map(|n| std::mem::take(&mut n.waiting)).collect();
        for channel in waiting {
            if let Some(session) = self.channels.get(channel).map(|c| c.session) {
                let at = (refusal.class, refusal.method);
                self.close_session(session, refusal.code, &text, at, crate::close::REFUSED);
            }
        }
    }

    /// The broker went away while it checked these credentials. Once may be its own trouble; twice is what RabbitMQ
    /// does with credentials that it cannot read. Those that were good before can be read.
    pub(crate) fn login_lost(&mut self, id: LoginId) {
        let Some(login) = self.logins.get_mut(id) else { return };
        login.losses += 1;
        if login.losses >= 2 && login.verified_at.is_none() {
            let text = "ACCESS_REFUSED - the broker closed the connection while it checked the credentials";
            let refusal = Refusal { code: 403, text: text.into(), class: 0, method: 0, at: self.now };
            self.login_refused(id, &refusal);
        }
    }

    /// A session names this login no more.
    pub(crate) fn leave_login(&mut self, id: Option<LoginId>) {
        if let Some(id) = id
            && let Some(login) = self.logins.get_mut(id)
        {
            login.sessions -= 1;
            if login.sessions == 0 {
                self.wheel.schedule(self.now + self.config.limits.refusal_ttl, TimerKey::Login(id));
            }
        }
    }

    /// Whoever waits for these credentials asks again.
    pub(crate) fn check_tenants_of(&mut self, id: LoginId) {
        let tenants: Vec<TenantId> =
            self.logins.get(id).into_iter().flat_map(|l| l.tenants.values().copied()).collect();
        for tenant in tenants {
            self.check_tenant(tenant);
        }
    }

    /// Forgets a login that nobody needs any more.
    pub(crate) fn login_timer(&mut self, id: LoginId) {
        let Some(login) = self.logins.get(id) else { return };
        let busy = login.sessions > 0
            || !login.tenants.is_empty()
            || login.verifying.is_some()
            || login.parked.is_some()
            || !login.waiters.is_empty();
        if busy {
            return;
        }
        if self.stopping.is_none() && self.fresh_refusal(login.refused.as_ref()).is_some() {
            return; // it stands for the next attempt; the timer that it was given will come
        }
        if let Some(at) = login.verified_at
            && self.stopping.is_none()
            && self.now.since(at) < self.config.limits.auth_ttl
        {
            self.wheel.schedule(at + self.config.limits.auth_ttl, TimerKey::Login(id));
            return;
        }
        if let Some(login) = self.logins.remove(id) {
            let key = (login.farm, login.credentials.user);
            if let Some(ids) = self.login_names.get_mut(&key) {
                ids.retain(|l| *l != id);
                if ids.is_empty() {
                    self.login_names.remove(&key);
                }
            }
        }
    }

    /// The pools of a login on a virtual host, made if there are none.
    pub(crate) fn find_tenant(&mut self, login: LoginId, vhost: &str) -> TenantId {
        if let Some(&id) = self.logins[login].tenants.get(vhost) {
            return id;
        }
        let id = self.tenants.insert(Tenant {
            login,
            farm: self.logins[login].farm,
            vhost: vhost.into(),
            proven_at: None,
            refused: None,
            proving: None,
            queued: false,
            entering: Vec::new(),
            nodes: std::collections::BTreeMap::new(),
            sessions: 0,
            last_used: self.now,
        });
        self.logins[login].tenants.insert(vhost.into(), id);
        id
    }

    /// Has a connection prove the virtual host, if somebody waits for it, and gives waiting channels what there is.
    pub(crate) fn check_tenant(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get_mut(id) else { return };
        tenant.entering.retain(|s| self.sessions.get(*s).is_some_and(|s| s.phase == Phase::Entering));
        if !tenant.entering.is_empty() && tenant.proving.is_none() {
            let (login, farm) = (tenant.login, tenant.farm);
            let up = match self.logins[login].parked.take() {
                Some(up) => {
                    self.upstreams[up].tenant = Some(id);
                    self.node_mut(self.upstream_node(up, id)).upstreams.push(up);
                    self.begin_inquiry(up);
                    self.open_vhost(up);
                    Some(up)
                }
                None => self.inquire(farm, Inquiry::Tenant(id)),
            };
            self.tenants[id].proving = up;
        }
        self.serve(id);
    }

    /// The broker has opened this virtual host to these credentials.
    pub(crate) fn tenant_proven(&mut self, id: TenantId) {
        let Some(tenant) = self.tenants.get_mut(id) else {
            return;
        };
        tenant.proven_at = Some(self.now);
        tenant.refused = None;
        let login = tenant.login;
        let entering = std::mem::take(&mut tenant.entering);
        self.logins[login].verified_at = Some(self.now);
        for session in entering {
            if self.sessions.get(session).is_some_and(|s| s.phase == Phase::Entering) {
                self.enter_ok(session, id);
            }
        }
    }

    /// The broker has refused this virtual host.
    pub(crate) fn tenant_refused(&mut self, id: TenantId, refusal: &Refusal) {
        let Some(tenant) = self.tenants.get_mut(id) else {
            return;
        };
        tenant.proven_at = None;
        let entering = std::mem::take(&mut tenant.entering);
        tenant.refused = Some(refusal.clone());
        for session in entering {
            self.refuse_login(session, refusal);
        }
        self.refuse_waiting(id, refusal);
        self.wheel.schedule(self.now + self.config.limits.refusal_ttl, TimerKey::Tenant(id));
    }

    /// Forgets a tenant that nobody needs any more.
    pub(crate) fn tenant_timer(&mut self, id: TenantId) {
        if let Some(tenant) = self.tenants.get_mut(id) {
            for node in tenant.nodes.values_mut() {
                node.waiting.retain(|c| self.channels.contains_key(*c));
            }
            tenant.entering.retain(|s| self.sessions.contains_key(*s));
        }
        let Some(tenant) = self.tenants.get(id) else {
            return;
        };
        let idle = tenant.sessions == 0
            && tenant.upstreams().next().is_none()
            && !tenant.has_waiting()
            && tenant.entering.is_empty()
            && tenant.proving.is_none();
        if !idle {
            return;
        }
        let login = tenant.login;
        if let Some(tenant) = self.tenants.remove(id) {
            self.logins[login].tenants.remove(&tenant.vhost);
            let same = |t: &Tenant| t.farm == tenant.farm && t.vhost == tenant.vhost;
            if !self.tenants.values().any(same) {
                self.farms[tenant.farm].known.remove(&tenant.vhost);
            }
        }
        self.login_timer(login);
    }
}

/// Compares secrets in a time that does not tell where they differ.
fn same_secret(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}
