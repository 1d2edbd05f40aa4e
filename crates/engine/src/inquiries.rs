//! Inquiries: connections that find out whether credentials or a virtual host are good. Only so many are made at one
//! time, and those who were let in before go first, so that a crowd of strangers takes neither the broker's time nor
//! Warren's descriptors from those who work. Nor are more than so many made at one time for those who are let in: when a
//! broker comes back, it is not asked for thousands of connections at once.

use crate::config::FarmId;
use crate::engine::Engine;
use crate::ids::UpstreamId;
use crate::tenant::{Inquiry, NodeId};
use crate::timers::TimerKey;
use crate::tries::To;

impl Engine {
    /// Begins a connection that asks, or notes that it is wanted while enough others are at it.
    pub(crate) fn inquire(&mut self, farm: FarmId, what: Inquiry) -> Option<UpstreamId> {
        if self.farms[farm].inquiring >= self.most_inquiries(self.is_known(what)) {
            self.inquire_later(farm, what);
            return None;
        }
        let (login, tenant, asks) = match what {
            Inquiry::Login(id) => (Some(id), None, self.logins[id].waiters.first().copied()),
            Inquiry::Tenant(id) => {
                (Some(self.tenants[id].login), Some(id), self.tenants[id].entering.first().copied())
            }
            Inquiry::Session(id) => (None, None, Some(id)),
        };
        let asks = asks.filter(|s| self.sessions.contains_key(*s));
        let first = asks.map(|session| self.take_turn(session, farm));
        let up = self.dial(farm, login, tenant, To::Any { first })?;
        self.begin_inquiry(up);
        Some(up)
    }

    /// This worker's share of the inquiries that may be made at one time. Strangers leave a quarter to those whose
    /// credentials were good before.
    fn most_inquiries(&self, known: bool) -> usize {
        let most = (self.config.limits.inquiries / self.options.workers).max(1);
        if known { most } else { most - most / 4 }
    }

    fn is_known(&self, what: Inquiry) -> bool {
        match what {
            Inquiry::Login(id) => self.logins.get(id).is_some_and(|l| l.verified_at.is_some()),
            Inquiry::Tenant(_) => true,
            Inquiry::Session(_) => false,
        }
    }

    fn inquire_later(&mut self, farm: FarmId, what: Inquiry) {
        let known = self.is_known(what);
        let queued = match what {
            Inquiry::Login(id) => &mut self.logins[id].queued,
            Inquiry::Tenant(id) => &mut self.tenants[id].queued,
            Inquiry::Session(id) => match self.own_queued(id) {
                Some(queued) => queued,
                None => return,
            },
        };
        if std::mem::replace(queued, true) {
            return;
        }
        let state = &mut self.farms[farm];
        let queue = if known { &mut state.inquiries_known } else { &mut state.inquiries };
        queue.push_back(what);
    }

    /// Makes the inquiries and the connections that there is room for now.
    pub(crate) fn inquire_next(&mut self, farm: FarmId) {
        self.dial_next(farm);
        while let Some(what) = self.next_inquiry(farm) {
            match what {
                Inquiry::Login(id) => {
                    if let Some(login) = self.logins.get_mut(id) {
                        login.queued = false;
                    }
                    self.check_login(id);
                }
                Inquiry::Tenant(id) => {
                    if let Some(tenant) = self.tenants.get_mut(id) {
                        tenant.queued = false;
                    }
                    self.check_tenant(id);
                }
                Inquiry::Session(id) => {
                    if let Some(queued) = self.own_queued(id) {
                        *queued = false;
                    }
                    self.want_own(id);
                }
            }
        }
    }

    fn next_inquiry(&mut self, farm: FarmId) -> Option<Inquiry> {
        let (most, most_of_strangers) = (self.most_inquiries(true), self.most_inquiries(false));
        let state = &mut self.farms[farm];
        let known = if state.inquiring < most { state.inquiries_known.pop_front() } else { None };
        known.or_else(|| if state.inquiring < most_of_strangers { state.inquiries.pop_front() } else { None })
    }

    /// This connection finds something out.
    pub(crate) fn begin_inquiry(&mut self, id: UpstreamId) {
        let upstream = &mut self.upstreams[id];
        if !std::mem::replace(&mut upstream.inquires, true) {
            self.farms[upstream.farm].inquiring += 1;
        }
    }

    /// A connection has its answer, or is gone.
    pub(crate) fn end_inquiry(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && std::mem::take(&mut upstream.inquires)
        {
            self.farms[upstream.farm].inquiring -= 1;
            self.freed.push(upstream.farm);
        }
    }

    /// The broker has said no. That counts on for a moment, so that refusals do not come faster than a broker likes to
    /// give them.
    pub(crate) fn inquiry_refused(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && std::mem::take(&mut upstream.inquires)
        {
            let farm = upstream.farm;
            self.farms[farm].refusals += 1;
            self.wheel.schedule(self.now + self.config.limits.refusal_pause, TimerKey::Refusal(farm));
        }
    }

    /// Begins a connection for a pool or a lane, or notes that it is wanted while enough others are being made.
    pub(crate) fn dial_for(&mut self, node: NodeId) -> Option<UpstreamId> {
        let most = self.most_dials();
        let state = &self.tenants[node.tenant];
        let (farm, login) = (state.farm, state.login);
        if self.farms[farm].dialling >= most {
            if !std::mem::replace(&mut self.node_mut(node).dials, true) {
                self.farms[farm].dials.push_back(node);
            }
            return None;
        }
        let up = self.dial(farm, Some(login), Some(node.tenant), To::Only(node.backend))?;
        self.upstreams[up].dialled = true;
        self.farms[farm].dialling += 1;
        Some(up)
    }

    /// This worker's share of the connections that may be being made at one time.
    fn most_dials(&self) -> usize {
        (self.config.limits.dials / self.options.workers).max(1)
    }

    /// Those who wanted a connection ask again, in order.
    fn dial_next(&mut self, farm: FarmId) {
        while self.farms[farm].dialling < self.most_dials()
            && let Some(node) = self.farms[farm].dials.pop_front()
        {
            if let Some(state) =
                self.tenants.get_mut(node.tenant).and_then(|t| t.nodes.get_mut(&node.backend))
            {
                state.dials = false;
                self.serve_node(node);
            }
        }
    }

    /// A connection is ready, or gone.
    pub(crate) fn end_dial(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && std::mem::take(&mut upstream.dialled)
        {
            self.farms[upstream.farm].dialling -= 1;
            self.freed.push(upstream.farm);
        }
    }

    pub(crate) fn refusal_timer(&mut self, farm: FarmId) {
        let state = &mut self.farms[farm];
        state.refusals -= 1;
        state.inquiring -= 1;
        self.freed.push(farm);
    }
}
