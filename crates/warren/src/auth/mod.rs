//! The auth service of amqpprox: who may come in, asked over HTTP ([`wire`] has the bodies). It is asked from the control
//! thread. Whatever is not a clear answer is a failure, and the engine lets nobody in then.

mod cache;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use warren_engine::{AuthRequest, Verdict};

use crate::logging::Rarely;
use crate::setup::AuthService;
use cache::Cache;

/// Questions that are asked at one time; others wait, and their time runs. Each takes a connection; one is kept open.
const AT_ONE_TIME: usize = 32;
/// How long a connection is kept open that nobody needs.
const IDLE: Duration = Duration::from_secs(90);
/// Longest answer: a reason, and credentials.
const ANSWER_LIMIT: usize = 64 << 10;

/// What became of questions. The labels of `warren_auth_requests_total`.
pub(crate) const RESULTS: [&str; 4] = ["allow", "deny", "failed", "cached"];

/// Asks the service. All workers have the same one.
pub(crate) struct Authority {
    runtime: Handle,
    service: AuthService,
    client: Client<HttpConnector, Full<Bytes>>,
    turns: Semaphore,
    cache: Mutex<Cache>,
    results: [AtomicU64; RESULTS.len()],
    complaints: Rarely,
}

impl Authority {
    /// Nothing is asked yet. Connections are made on this runtime.
    pub(crate) fn new(service: &AuthService, runtime: Handle) -> Arc<Authority> {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build_http();
        Arc::new(Authority {
            runtime,
            client,
            turns: Semaphore::new(AT_ONE_TIME),
            cache: Mutex::new(Cache::new(service.cache)),
            results: Default::default(),
            complaints: Rarely::default(),
            service: service.clone(),
        })
    }

    /// How often each of [`RESULTS`] came.
    pub(crate) fn results(&self) -> [u64; RESULTS.len()] {
        std::array::from_fn(|n| self.results[n].load(Relaxed))
    }

    /// Asks, or remembers. Always has an answer when the service's time is over.
    pub(crate) async fn ask(self: &Arc<Self>, request: &AuthRequest) -> Verdict {
        let question = wire::question(request);
        if let Some(verdict) = self.cache().get(&question, Instant::now()) {
            self.results[3].fetch_add(1, Relaxed);
            return verdict;
        }
        let this = Arc::clone(self);
        let asked = question.clone();
        let task = self.runtime.spawn(async move { this.within_time(asked).await });
        // It is given up only when the process ends.
        let verdict = task.await.unwrap_or_else(|_| Verdict::Failed("it was not asked to the end".into()));
        self.cache().put(&question, &verdict, Instant::now());
        self.note(&verdict);
        verdict
    }

    async fn within_time(&self, question: Vec<u8>) -> Verdict {
        let limit = self.service.timeout;
        let answer = async {
            let _turn = self.turns.acquire().await;
            // A connection that was kept may end at the very moment when it is used again: that says nothing.
            match self.post(question.clone()).await {
                Err(Trouble::Lost(_)) => self.post(question).await,
                answer => answer,
            }
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(Trouble::Lost(why) | Trouble::Final(why))) => Verdict::Failed(why),
            Err(_) => Verdict::Failed(format!("no answer within {limit:?}")),
        }
    }

    async fn post(&self, question: Vec<u8>) -> Result<Verdict, Trouble> {
        let AuthService { place, target, allow_empty, .. } = &self.service;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{place}{target}"))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(Bytes::from(question)))
            .map_err(|error| Trouble::Final(format!("it cannot be asked: {error}")))?;
        let response = self.client.request(request).await.map_err(|error| match error.is_connect() {
            true => Trouble::Final("it cannot be reached".into()),
            false => Trouble::Lost("the connection to it was lost".into()),
        })?;
        if response.status() != StatusCode::OK {
            return Err(Trouble::Final(format!("it answered with status {}", response.status().as_u16())));
        }
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|_| Trouble::Final("its answer did not come to its end".into()))?.to_bytes();
        Ok(wire::verdict(&body, *allow_empty))
    }

    fn note(&self, verdict: &Verdict) {
        let result = match verdict {
            Verdict::Allow(_) => 0,
            Verdict::Deny(_) => 1,
            Verdict::Failed(why) => {
                self.complain(why);
                2
            }
        };
        self.results[result].fetch_add(1, Relaxed);
    }

    /// Says in the log, now and then, that nobody can come in.
    fn complain(&self, why: &str) {
        let place = &self.service.place;
        self.complaints.say(|| {
            tracing::warn!("the auth service at http://{place} failed, clients are refused: {why}");
        });
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
enum Trouble {
    /// The connection ended before there was one. It may have been an old one.
    Lost(String),
    /// Asking again would not help.
    Final(String),
}
