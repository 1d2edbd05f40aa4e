//! What `/metrics` says: the workers' counters, added up, and a few facts about the process.
//!
//! Names are a promise to dashboards and do not change.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text::encode};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use warren_engine::metrics::{
    BIND_KINDS, BIND_WHYS, CLIENT_CLOSE_REASONS, MEMORY_PARTS, Metrics, UPSTREAM_CLOSE_REASONS,
};

use super::admitted::Admitted;
use super::backends::{BackendState, Backends};
use crate::admission::Admission;
use crate::limits;
use crate::worker::mailbox::{Mailbox, Message};
use crate::worker::tasks;

/// The format of [`text`].
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A worker answers in microseconds. One that does not within this time is counted as it was when it last answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Asks the workers for their counters.
pub(super) struct Counts {
    workers: Vec<Mailbox>,
    backends: Backends,
    admission: Arc<Admission>,
    /// Their last answers: a counter must not go back because a worker is busy.
    last: Mutex<Vec<Metrics>>,
}

impl Counts {
    pub(super) fn new(workers: Vec<Mailbox>, backends: Backends, admission: Arc<Admission>) -> Counts {
        let last = Mutex::new(vec![Metrics::default(); workers.len()]);
        Counts { workers, backends, admission, last }
    }

    /// Everything, as text.
    pub(super) async fn text(&self) -> Result<String, fmt::Error> {
        let metrics = self.total().await;
        text(metrics, self.backends.states(), self.admission.report().into())
    }

    /// The sum over all workers.
    pub(super) async fn total(&self) -> Metrics {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let ask = |worker: &Mailbox| {
            let (sender, answer) = oneshot::channel();
            worker.send(Message::Metrics(sender));
            answer
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        for (i, answer) in answers.into_iter().enumerate() {
            if let Ok(Ok(metrics)) = timeout_at(deadline, answer).await {
                self.last.lock().unwrap_or_else(PoisonError::into_inner)[i] = metrics;
            }
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().fold(Metrics::default(), |mut total, metrics| {
            total.add(metrics);
            total
        })
    }
}

/// The counters and the process, as text.
fn text(metrics: Metrics, backends: Vec<BackendState>, admitted: Admitted) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let process = Process::now();
    registry.register_collector(Box::new(Snapshot { metrics, backends, admitted, process }));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot {
    metrics: Metrics,
    backends: Vec<BackendState>,
    admitted: Admitted,
    process: Process,
}

impl Snapshot {
    fn encode_backends(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let connections = |n: usize| self.metrics.backend_connections.get(n).copied().unwrap_or(0);
        type Value<'a> = &'a dyn Fn(usize, &BackendState) -> u64;
        let up = "Whether a backend is one that is tried before others";
        let families: [(&str, &str, Value<'_>); 3] = [
            ("warren_backend_up", up, &|_, b| u64::from(b.up)),
            ("warren_backend_connections", "Connections to a backend", &|n, _| connections(n)),
            ("warren_backend_sessions", "Client connections that belong to a backend", &|_, b| b.sessions),
        ];
        for (name, help, value) in families {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (n, backend) in self.backends.iter().enumerate() {
                let value = i64::try_from(value(n, backend)).unwrap_or(i64::MAX);
                let label = [("backend", backend.name.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&label)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in gauges(&self.metrics).into_iter().chain(self.process.gauges()) {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Gauge,
            )?)?;
        }
        for (name, help, value) in counters(&self.metrics) {
            ConstCounter::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                None,
                MetricType::Counter,
            )?)?;
        }
        let m = &self.metrics;
        let help =
            "Memory that buffers hold, by what it is for; a block that several look at counts for each";
        let mut family = encoder.encode_descriptor("warren_memory_bytes", help, None, MetricType::Gauge)?;
        for (part, octets) in MEMORY_PARTS.iter().zip(&m.memory_octets) {
            let value = i64::try_from(*octets).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(family.encode_family(&[("part", *part)])?)?;
        }
        self.encode_backends(&mut encoder)?;
        let help = "Client connections ended, by reason";
        let family = encoder.encode_descriptor("warren_client_closes", help, None, MetricType::Counter)?;
        by_reason(family, &CLIENT_CLOSE_REASONS, &m.client_closes)?;
        let help = "Connections to brokers ended, by reason";
        let family = encoder.encode_descriptor("warren_upstream_closes", help, None, MetricType::Counter)?;
        by_reason(family, &UPSTREAM_CLOSE_REASONS, &m.upstream_closes)?;
        let help = "Upstream channels given to client channels: how they were found, and what for";
        let mut family = encoder.encode_descriptor("warren_binds", help, None, MetricType::Counter)?;
        for (kind, counts) in BIND_KINDS.iter().zip(&m.binds) {
            for (why, count) in BIND_WHYS.iter().zip(counts) {
                let labels = [("kind", *kind), ("why", *why)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        self.admitted.encode(&mut encoder)
    }
}

fn by_reason(mut family: MetricEncoder<'_>, reasons: &[&str], counts: &[u64]) -> Result<(), fmt::Error> {
    for (reason, count) in reasons.iter().zip(counts) {
        ConstCounter::new(*count).encode(family.encode_family(&[("reason", *reason)])?)?;
    }
    Ok(())
}

/// Name, help and value.
type Sample = (&'static str, &'static str, u64);

fn gauges(m: &Metrics) -> [Sample; 12] {
    [
        ("warren_client_connections", "Client connections", m.client_connections),
        ("warren_client_handshakes", "Client connections that are not let in yet", m.client_handshakes),
        ("warren_logins", "Credentials that are remembered, good or refused", m.logins),
        ("warren_tenants", "Pools, one for each virtual host that credentials use", m.tenants),
        ("warren_upstream_connections", "Connections to brokers", m.upstream_connections),
        ("warren_client_channels", "Channels that clients have open", m.client_channels),
        ("warren_upstream_channels", "Channels open at brokers, idle ones included", m.upstream_channels),
        ("warren_waiting_channels", "Client channels that wait for an upstream channel", m.waiting_channels),
        ("warren_buffer_bytes", "Memory that buffers hold", m.buffer_octets),
        ("warren_memory_limit_bytes", "Memory that buffers may hold", m.memory_limit_octets),
        ("warren_reserved_bytes", "Memory that incomplete publishes have reserved", m.reserved_octets),
        ("warren_waiting_publishes", "Publishes that wait for memory", m.waiting_publishes),
    ]
}

/// The encoder appends `_total`.
fn counters(m: &Metrics) -> [Sample; 16] {
    [
        ("warren_client_received_bytes", "Bytes read from clients", m.client_received_octets),
        ("warren_client_sent_bytes", "Bytes written to clients", m.client_sent_octets),
        ("warren_upstream_received_bytes", "Bytes read from brokers", m.upstream_received_octets),
        ("warren_upstream_sent_bytes", "Bytes written to brokers", m.upstream_sent_octets),
        (
            "warren_published_messages",
            "Complete messages from clients, passed on to brokers",
            m.published_messages,
        ),
        ("warren_delivered_messages", "Messages delivered to clients", m.delivered_messages),
        ("warren_returned_messages", "Messages returned to clients as unroutable", m.returned_messages),
        ("warren_client_connects", "Client connections accepted", m.client_connects),
        ("warren_upstream_connects", "Connections to brokers that became ready", m.upstream_connects),
        (
            "warren_upstream_connect_failures",
            "Connections to brokers that failed",
            m.upstream_connect_failures,
        ),
        ("warren_channel_errors", "Client channels closed with an error", m.channel_errors),
        ("warren_barriers", "Barriers sent to prove that publishes were processed", m.barriers),
        ("warren_hand_offs", "Sessions handed from one worker to another", m.hand_offs),
        ("warren_resumes", "Channels that went on after their upstream connection was lost", m.resumes),
        (
            "warren_session_moves",
            "Sessions that went from one member of their farm to another",
            m.session_moves,
        ),
        (
            "warren_lost_publishes",
            "Publishes answered with basic.nack because their connection was lost",
            m.lost_publishes,
        ),
    ]
}

/// The process as the system sees it; what cannot be found out is left out.
#[derive(Debug)]
struct Process {
    resident: Option<u64>,
    open: Option<u64>,
    most: Option<u64>,
}

impl Process {
    fn now() -> Process {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        let open = std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        Process {
            resident: pages.map(|pages| pages * rustix::param::page_size() as u64),
            open: open.map(|open| open as u64),
            most: limits::descriptors(),
        }
    }

    fn gauges(&self) -> impl Iterator<Item = Sample> {
        let known = |name, help, value: Option<u64>| value.map(|value| (name, help, value));
        [
            known(
                "warren_tasks",
                "Tasks of the workers, one for each connection and a few more",
                Some(tasks::alive() as u64),
            ),
            known("process_resident_memory_bytes", "Memory of the process", self.resident),
            known("process_open_fds", "Open file descriptors", self.open),
            known("process_max_fds", "File descriptors that may be open", self.most),
        ]
        .into_iter()
        .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(text: &'a str, sample: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))
    }

    #[test]
    fn every_promised_name_is_there() {
        let text = text(Metrics::default(), Vec::new(), Admitted::default()).expect("encodes");
        for name in [
            "warren_client_connections",
            "warren_client_handshakes",
            "warren_logins",
            "warren_tenants",
            "warren_upstream_connections",
            "warren_client_channels",
            "warren_upstream_channels",
            "warren_waiting_channels",
            "warren_buffer_bytes",
            "warren_memory_limit_bytes",
            "warren_memory_bytes{part=\"to_clients\"}",
            "warren_memory_bytes{part=\"incomplete_publishes\"}",
            "warren_reserved_bytes",
            "warren_waiting_publishes",
            "warren_client_received_bytes_total",
            "warren_client_sent_bytes_total",
            "warren_upstream_received_bytes_total",
            "warren_upstream_sent_bytes_total",
            "warren_published_messages_total",
            "warren_delivered_messages_total",
            "warren_returned_messages_total",
            "warren_client_connects_total",
            "warren_client_closes_total{reason=\"vanished\"}",
            "warren_upstream_connects_total",
            "warren_upstream_connect_failures_total",
            "warren_upstream_closes_total{reason=\"idle\"}",
            "warren_binds_total{kind=\"reused\",why=\"first_publish\"}",
            "warren_channel_errors_total",
            "warren_barriers_total",
            "warren_hand_offs_total",
        ] {
            assert_eq!(value(&text, name), Some("0"), "{name} in {text}");
        }
        for name in ["process_resident_memory_bytes", "process_open_fds", "process_max_fds"] {
            assert!(value(&text, name).is_some_and(|v| v != "0"), "{name} in {text}");
        }
    }

    #[test]
    fn values_are_under_their_own_names() {
        let mut metrics =
            Metrics { client_connections: 3, published_messages: 1 << 40, ..Metrics::default() };
        metrics.client_closes[1] = 7;
        metrics.binds[2][3] = 9;
        metrics.backend_connections = vec![0, 5];
        let state = |name: &str, up| BackendState { name: name.into(), up, sessions: 3 };
        let text = text(metrics, vec![state("one", false), state("two", true)], Admitted::default())
            .expect("encodes");
        assert_eq!(value(&text, "warren_client_connections"), Some("3"));
        assert_eq!(value(&text, "warren_published_messages_total"), Some("1099511627776"));
        assert_eq!(value(&text, "warren_client_closes_total{reason=\"vanished\"}"), Some("7"));
        assert_eq!(value(&text, "warren_binds_total{kind=\"rebound\",why=\"own_lane\"}"), Some("9"));
        assert_eq!(value(&text, "warren_backend_up{backend=\"one\"}"), Some("0"));
        assert_eq!(value(&text, "warren_backend_up{backend=\"two\"}"), Some("1"));
        assert_eq!(value(&text, "warren_backend_connections{backend=\"two\"}"), Some("5"));
        assert_eq!(value(&text, "warren_backend_sessions{backend=\"one\"}"), Some("3"));
        assert!(text.ends_with("# EOF\n"));
    }
}
