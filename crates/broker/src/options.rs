//! What a broker is made with.

/// Settings of a [`Broker`](crate::Broker), fixed for its life.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may log in. Default: `guest`, password `guest`, every right.
    pub users: Vec<User>,
    /// Virtual hosts that exist. Default: `/`.
    pub vhosts: Vec<String>,
    /// Largest frame offered in `connection.tune`, octets with overhead.
    pub frame_max: u32,
    /// Most channels of one connection, as offered in `connection.tune`.
    pub channel_max: u16,
    /// Heartbeat interval offered in `connection.tune`, seconds. Heartbeats themselves are the driver's business.
    pub heartbeat: u16,
    /// `product` of the server properties.
    pub product: String,
    /// `version` of the server properties. The behaviour is that of RabbitMQ 3.10 whatever is written here.
    pub version: String,
    /// How confirms are grouped and ordered.
    pub confirms: ConfirmStyle,
    /// Seed of generated names, and of [`ConfirmStyle::Mixed`].
    pub seed: u64,
    /// Largest message in octets of body; a larger one closes its channel with 406. RabbitMQ 3.10 has 128 MiB.
    pub max_message_size: u64,
    /// How the broker departs from RabbitMQ.
    pub quirks: Quirks,
    /// Prefetch of consumers on channels that sent no `basic.qos`; 0 is no limit.
    pub default_prefetch: u16,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            users: vec![User::new("guest", "guest")],
            vhosts: vec!["/".to_owned()],
            frame_max: 131_072,
            channel_max: 2047,
            heartbeat: 60,
            product: "Warren embedded broker".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            confirms: ConfirmStyle::Coalesced,
            seed: 0,
            max_message_size: 134_217_728,
            quirks: Quirks::default(),
            default_prefetch: 0,
        }
    }
}

/// Ways of other brokers, as far as a proxy must bear them. All off: RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Direct replies always have delivery tag 1.
    pub replies_are_first: bool,
    /// Nobody is told of an alarm.
    pub alarms_in_silence: bool,
    /// `channel.flow` is answered even after `channel.close` was sent.
    pub flow_outlives_channel: bool,
}

impl Quirks {
    /// Those of LavinMQ (BROKER-FACTS).
    pub fn of_lavinmq() -> Quirks {
        Quirks { replies_are_first: true, alarms_in_silence: true, flow_outlives_channel: true }
    }
}

impl Options {
    /// The default, but calling itself RabbitMQ 3.10.8: for peers that choose their rules by product and version.
    pub fn like_rabbitmq() -> Self {
        Options { product: "RabbitMQ".to_owned(), version: "3.10.8".to_owned(), ..Options::default() }
    }
}

/// How confirms are written that are due at a [`pump`](crate::Broker::pump).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ConfirmStyle {
    /// As RabbitMQ does: one alone as itself, several as one with `multiple`.
    #[default]
    Coalesced,
    /// Each as itself, in order.
    Single,
    /// A seeded coin at each pump: `multiple` or not, in order or not, all or some, now or at a later pump. RabbitMQ may
    /// show the like when messages go to queues of different kinds; only that what goes to no queue may wait too is made
    /// up here.
    Mixed,
}

/// One user. Rights are the same in every vhost that the user may enter.
#[derive(Clone, Debug)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Password, compared as it is.
    pub password: String,
    /// Virtual hosts the user may enter; empty for all.
    pub vhosts: Vec<String>,
    /// Right to declare and delete.
    pub configure: Access,
    /// Right to publish, and to bind to the entity.
    pub write: Access,
    /// Right to consume, get, purge, and to bind from the entity.
    pub read: Access,
}

impl User {
    /// A user with every right in every vhost.
    pub fn new(name: &str, password: &str) -> Self {
        User {
            name: name.to_owned(),
            password: password.to_owned(),
            vhosts: Vec::new(),
            configure: Access::All,
            write: Access::All,
            read: Access::All,
        }
    }
}

/// Which entities a right covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every entity.
    All,
    /// None.
    Nothing,
    /// All but the one of this name.
    AllBut(Vec<u8>),
    /// Those whose name begins so. The default exchange counts as `amq.default`.
    Prefix(String),
}

impl Access {
    pub(crate) fn covers(&self, name: &[u8]) -> bool {
        match self {
            Access::All => true,
            Access::Nothing => false,
            Access::AllBut(one) => name != one,
            Access::Prefix(prefix) => name.starts_with(prefix.as_bytes()),
        }
    }
}
