//! How often each interesting path was taken: a simulation that never gets to a place proves nothing about it.

/// One interesting thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
#[allow(missing_docs)] // the names say it, and NAMES shows them
pub enum Path {
    Session,
    LoginRefused,
    VhostRefused,
    PipelinedOpen,
    SmallFrames,
    ChannelOpened,
    NumberReused,
    ChannelClosed,
    ConnectionClosed,
    Vanished,
    VanishedInContent,
    VanishedInFrame,
    Published,
    PublishedLarge,
    PublishedEmpty,
    Interleaved,
    Proved,
    ConfirmSingle,
    ConfirmMultiple,
    Returned,
    Committed,
    RolledBack,
    ErrorClose,
    MissingExchange,
    CrossingClose,
    SentAfterError,
    ContentCutByError,
    Deliver,
    Redelivered,
    GetOk,
    GetEmpty,
    AckOne,
    AckMultiple,
    AckAll,
    Requeued,
    Rejected,
    Recovered,
    Consumed,
    ConsumedNamedByServer,
    Cancelled,
    CancelledByBroker,
    PrefetchHeld,
    ServerNamed,
    ServerNamedNoWait,
    EmptyName,
    Exclusive,
    Locked,
    ReadOwnWrite,
    ControlThenPublish,
    PublishThenConsume,
    ConsumeThenPublish,
    Request,
    Reply,
    HeartbeatSent,
    HeartbeatReceived,
    ConnectionError,
    HandOff,
    Waited,
    Settled,
    Quiet,
    Lost,
    LostWhenQuiet,
    LostAgain,
    Hung,
    BrokerClosed,
    BrokerClosedForCause,
    Outage,
    Alarm,
    KeptThroughLoss,
    ClosedByLoss,
    NackedAtLoss,
    MovedUnsent,
    ConsumerResumed,
    AckSwallowed,
    SettledAgain,
    ReplayRefused,
    SuspectTold,
    SuspectSpared,
}

/// How many there are.
pub const PATHS: usize = Path::SuspectSpared as usize + 1;

/// Their names in reports.
pub const NAMES: [&str; PATHS] = [
    "session",
    "login refused",
    "vhost refused",
    "pipelined open",
    "small frames",
    "channel opened",
    "number reused",
    "channel closed",
    "connection closed",
    "vanished",
    "vanished in content",
    "vanished in frame",
    "published",
    "published large",
    "published empty",
    "contents interleaved",
    "publishes proved",
    "confirm single",
    "confirm multiple",
    "returned",
    "committed",
    "rolled back",
    "channel error",
    "missing exchange",
    "crossing close",
    "sent after error",
    "content cut by error",
    "deliver",
    "redelivered",
    "get-ok",
    "get-empty",
    "ack one",
    "ack multiple",
    "ack all",
    "requeued",
    "rejected",
    "recovered",
    "consumed",
    "consumed, tag by server",
    "cancelled",
    "cancelled by broker",
    "prefetch held",
    "server-named queue",
    "server-named, no-wait",
    "empty queue name",
    "exclusive queue",
    "locked queue",
    "read own write",
    "control, then publish",
    "publish, then consume",
    "consume, then publish",
    "request",
    "reply",
    "heartbeat sent",
    "heartbeat received",
    "connection error",
    "hand-off",
    "waited for a cap",
    "settled all",
    "quiet time",
    "upstream lost",
    "lost when quiet",
    "lost again",
    "upstream hung",
    "broker closed, 320",
    "broker closed, for cause",
    "outage",
    "alarm",
    "kept through a loss",
    "closed by a loss",
    "nacked at a loss",
    "moved unsent",
    "consumer resumed",
    "ack swallowed",
    "settled again",
    "replay refused",
    "suspect told",
    "suspect spared",
];

/// Counters by [`Path`].
#[derive(Clone, Debug)]
pub struct Cover([u64; PATHS]);

impl Default for Cover {
    fn default() -> Self {
        Cover([0; PATHS])
    }
}

impl Cover {
    /// Counts one.
    pub fn hit(&mut self, path: Path) {
        self.0[path as usize] += 1;
    }

    /// Counts many.
    pub fn hits(&mut self, path: Path, times: u64) {
        self.0[path as usize] += times;
    }

    /// How often so far.
    pub fn count(&self, path: Path) -> u64 {
        self.0[path as usize]
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Cover) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// Name and count of each.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.iter().copied().zip(self.0)
    }
}
