//! What decides about clients beside the engines, and is shared by all workers: limits that are counted together, and the
//! auth service.

use std::sync::Arc;

use tokio::runtime::Handle;
use warren_engine::Allowances;
use warren_engine::allowances::Report;
use warren_engine::{AuthRequest, Config, Verdict};

use crate::auth::{Authority, RESULTS};
use crate::setup::AuthService;
use crate::worker::clock::Clock;

/// Limits and the auth service.
pub(crate) struct Admission {
    allowances: Arc<Allowances>,
    authority: Option<Arc<Authority>>,
    clock: Clock,
}

impl Admission {
    /// Nobody has come yet. The service is asked from `runtime`.
    pub(crate) fn new(
        config: &Config,
        service: Option<&AuthService>,
        runtime: &Handle,
        clock: Clock,
    ) -> Arc<Self> {
        let authority = service.map(|service| Authority::new(service, runtime.clone()));
        Arc::new(Admission { allowances: Allowances::new(config), authority, clock })
    }

    /// What sessions have together.
    pub(crate) fn allowances(&self) -> &Arc<Allowances> {
        &self.allowances
    }

    /// Has the auth service asked.
    pub(crate) async fn ask(&self, request: &AuthRequest) -> Verdict {
        match &self.authority {
            Some(authority) => authority.ask(request).await,
            None => Verdict::Failed("there is none".into()),
        }
    }

    /// For the metrics: what is used of limits, and what became of questions to the auth service.
    pub(crate) fn report(&self) -> (Report, [u64; RESULTS.len()]) {
        let results = self.authority.as_ref().map(|authority| authority.results());
        (self.allowances.report(self.clock.now()), results.unwrap_or_default())
    }
}
