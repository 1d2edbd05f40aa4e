//! The beginning of a connection, with any detail changed.

use super::{Closed, End, Incoming, PATIENCE, Peer};
use amq_protocol_types::{AMQPValue, FieldTable};
use std::net::SocketAddr;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::connection;
use warren_wire::{Method, Table, table::encode_table};

/// What a client says in the handshake. The default is guest on `/`, with all capabilities and no heartbeat.
#[derive(Clone, Debug)]
pub struct Handshake {
    /// User of the PLAIN response.
    pub user: String,
    /// Password of the PLAIN response.
    pub password: String,
    /// Virtual host.
    pub vhost: String,
    /// Mechanism.
    pub mechanism: String,
    /// Response to send instead of user and password.
    pub response: Option<Vec<u8>>,
    /// Client properties.
    pub properties: FieldTable,
    /// channel_max of tune-ok.
    pub channel_max: u16,
    /// frame_max of tune-ok.
    pub frame_max: u32,
    /// heartbeat of tune-ok.
    pub heartbeat: u16,
}

impl Default for Handshake {
    fn default() -> Self {
        let all =
            ["authentication_failure_close", "basic.nack", "connection.blocked", "consumer_cancel_notify"];
        Handshake {
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            mechanism: "PLAIN".to_owned(),
            response: None,
            properties: capabilities(&all),
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
        }
    }
}

impl Handshake {
    /// The default with another virtual host.
    pub fn on(vhost: &str) -> Handshake {
        Handshake { vhost: vhost.to_owned(), ..Handshake::default() }
    }

    /// With other credentials.
    pub fn by(mut self, user: &str, password: &str) -> Handshake {
        self.user = user.to_owned();
        self.password = password.to_owned();
        self
    }

    fn response(&self) -> Vec<u8> {
        let plain = || format!("\0{}\0{}", self.user, self.password).into_bytes();
        self.response.clone().unwrap_or_else(plain)
    }
}

/// Client properties that announce these capabilities and no others.
pub fn capabilities(names: &[&str]) -> FieldTable {
    let mut table = FieldTable::default();
    for name in names {
        table.insert((*name).into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("warren-testkit".into()));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(table));
    properties
}

/// Where in the handshake the other side refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for connection.start.
    Start,
    /// After start-ok: credentials.
    StartOk,
    /// After open: the virtual host.
    Open,
}

/// A connection that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Where.
    pub stage: Stage,
    /// How.
    pub end: End,
}

impl Refused {
    /// The close method, which there must have been.
    pub fn closed(&self) -> &Closed {
        match &self.end {
            End::Closed(closed) => closed,
            end => panic!("refused at {:?} without a close method: {end:?}", self.stage),
        }
    }
}

impl Peer {
    /// Connects as guest to `/`.
    pub fn connect(address: SocketAddr) -> Peer {
        Peer::connect_with(address, &Handshake::default())
    }

    /// Connects and must not be refused.
    pub fn connect_with(address: SocketAddr, handshake: &Handshake) -> Peer {
        let peer = Peer::try_connect(address, handshake);
        peer.unwrap_or_else(|refused| panic!("connecting to {address} was refused: {refused:?}"))
    }

    /// Connects, or says how it was refused.
    pub fn try_connect(address: SocketAddr, handshake: &Handshake) -> Result<Peer, Refused> {
        let mut peer = Peer::raw(address);
        peer.shake_hands(handshake)?;
        Ok(peer)
    }

    /// The handshake on a connection that was made with [`Peer::raw`].
    pub fn shake_hands(&mut self, handshake: &Handshake) -> Result<(), Refused> {
        self.send_bytes(&PROTOCOL_HEADER);
        self.read_start()?;
        self.go_on(handshake)
    }

    /// The handshake from connection.start on, which has come.
    pub fn go_on(&mut self, handshake: &Handshake) -> Result<(), Refused> {
        self.send_start_ok(handshake);
        let tune = self.step(Stage::StartOk, connection::TUNE)?;
        if let Method::ConnectionTune(tune) = tune.method() {
            self.tuned = (tune.channel_max, tune.frame_max, tune.heartbeat);
        }
        self.frame_max = handshake.frame_max;
        self.send_tune_ok_and_open(handshake);
        self.step(Stage::Open, connection::OPEN_OK)?;
        Ok(())
    }

    /// Waits for connection.start.
    pub fn read_start(&mut self) -> Result<(), Refused> {
        let start = self.step(Stage::Start, connection::START)?;
        if let Method::ConnectionStart(start) = start.method() {
            self.server_properties = start.server_properties.as_bytes().to_vec();
            self.mechanisms = String::from_utf8_lossy(start.mechanisms).into_owned();
        }
        Ok(())
    }

    /// Sends connection.start-ok.
    pub fn send_start_ok(&mut self, handshake: &Handshake) {
        let properties = encode_table(&handshake.properties);
        let response = handshake.response();
        let start_ok = connection::StartOk {
            client_properties: Table::from_encoded(&properties).expect("encoded a moment ago"),
            mechanism: handshake.mechanism.as_bytes(),
            response: &response,
            locale: b"en_US",
        };
        self.send(0, &Method::ConnectionStartOk(start_ok));
    }

    /// Sends connection.tune-ok and connection.open.
    pub fn send_tune_ok_and_open(&mut self, handshake: &Handshake) {
        let Handshake { channel_max, frame_max, heartbeat, .. } = *handshake;
        self.send(0, &Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat }));
        self.send(0, &Method::ConnectionOpen(connection::Open { virtual_host: handshake.vhost.as_bytes() }));
    }

    fn step(&mut self, stage: Stage, id: warren_wire::MethodId) -> Result<Incoming, Refused> {
        match self.try_next(0, PATIENCE) {
            Ok(Some(frame)) if frame.is(id) => Ok(frame),
            Ok(frame) => panic!("in the handshake, at {stage:?}: {frame:?}"),
            Err(end) => Err(Refused { stage, end }),
        }
    }
}
