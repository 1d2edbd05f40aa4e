//! Inquiries: connections that find out whether credentials or a virtual host are good. Only so many are made at one
//! time, and those who were let in before go first, so that a crowd of strangers takes neither the broker's time nor
//! Warren's descriptors from those who work.

use crate::config::FarmId;
use crate::engine::Engine;
use crate::ids::UpstreamId;
use crate::tenant::Inquiry;

impl Engine {
    /// Begins a connection that asks, or notes that it is wanted while enough others are at it.
    pub(crate) fn inquire(&mut self, farm: FarmId, what: Inquiry) -> Option<UpstreamId> {
        let most = self.most_inquiries();
        if self.farms[farm].inquiring >= most {
            self.inquire_later(farm, what);
            return None;
        }
        let (login, tenant) = match what {
            Inquiry::Login(id) => (id, None),
            Inquiry::Tenant(id) => (self.tenants[id].login, Some(id)),
        };
        let up = self.dial(farm, Some(login), tenant)?;
        self.begin_inquiry(up);
        Some(up)
    }

    /// This worker's share of the inquiries that may be made at one time.
    fn most_inquiries(&self) -> usize {
        (self.config.limits.inquiries / self.options.workers).max(1)
    }

    fn inquire_later(&mut self, farm: FarmId, what: Inquiry) {
        let (queued, known) = match what {
            Inquiry::Login(id) => {
                let login = &mut self.logins[id];
                (&mut login.queued, login.verified_at.is_some())
            }
            Inquiry::Tenant(id) => (&mut self.tenants[id].queued, true),
        };
        if std::mem::replace(queued, true) {
            return;
        }
        let state = &mut self.farms[farm];
        let queue = if known { &mut state.inquiries_known } else { &mut state.inquiries };
        queue.push_back(what);
    }

    /// Asks what waited for a connection to be done.
    pub(crate) fn inquire_next(&mut self, farm: FarmId) {
        let most = self.most_inquiries();
        while self.farms[farm].inquiring < most {
            let state = &mut self.farms[farm];
            let Some(what) = state.inquiries_known.pop_front().or_else(|| state.inquiries.pop_front()) else {
                return;
            };
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
            }
        }
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
}
