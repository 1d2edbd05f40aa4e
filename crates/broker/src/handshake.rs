//! From the protocol header to `connection.open-ok`, and the other methods of channel 0.

use warren_wire::Method;
use warren_wire::frame::{FRAME_MIN_SIZE, PROTOCOL_HEADER};
use warren_wire::method::connection::{self as wire, Blocked};
use warren_wire::table::{Table, Value};

use crate::auth::{self, Failure};
use crate::connection::{Capabilities, Connection, State};
use crate::core::Core;
use crate::fault::{Fault, Outcome};
use crate::names::show;
use crate::options::Options;

/// The header of 0-9, which RabbitMQ takes for 0-9-1.
const PROTOCOL_0_9: [u8; 8] = *b"AMQP\x01\x01\0\x09";

impl Connection {
    pub(crate) fn protocol_header(&mut self, core: &mut Core, input: &[u8]) -> bool {
        let Some(header) = input.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return false;
        };
        self.at += header.len();
        if *header != PROTOCOL_HEADER && *header != PROTOCOL_0_9 {
            // The rule of the protocol: say what is spoken here, then close.
            self.output.extend_from_slice(&PROTOCOL_HEADER);
            self.vanish(core, false);
            return true;
        }
        let properties = server_properties(&core.options);
        let start = wire::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: Table::from_encoded(&properties).unwrap_or(Table::EMPTY),
            mechanisms: auth::MECHANISMS,
            locales: b"en_US",
        };
        Method::ConnectionStart(start).write(0, &mut self.output);
        self.state = State::Starting;
        true
    }

    pub(crate) fn run_connection_method(&mut self, core: &mut Core, method: &Method<'_>) -> Outcome {
        match (self.state, method) {
            (State::Starting, Method::ConnectionStartOk(m)) => self.start_ok(core, m),
            (State::Tuning, Method::ConnectionTuneOk(m)) => self.tune_ok(core, m),
            (State::Opening, Method::ConnectionOpen(m)) => self.open(core, m),
            (State::Running, Method::ConnectionClose(_)) => {
                self.answer_close(core);
                Ok(())
            }
            (State::Running, Method::ConnectionUpdateSecret(_)) => {
                // Passwords kept inside the broker do not expire, so there is nothing to update.
                Method::ConnectionUpdateSecretOk.write(0, &mut self.output);
                Ok(())
            }
            (State::Closed { .. }, _) => {
                self.run_while_closed(core, method);
                Ok(())
            }
            (state, _) => {
                let state = format!("{state:?}").to_lowercase();
                let detail = format!("unexpected method in connection state {state}");
                Err(Fault::connection(504, detail))
            }
        }
    }

    fn start_ok(&mut self, core: &mut Core, m: &wire::StartOk<'_>) -> Outcome {
        self.capabilities = capabilities(m.client_properties);
        match auth::login(&core.options.users, m.mechanism, m.response) {
            Ok(user) => {
                self.user = user;
                let tune = wire::Tune {
                    channel_max: core.options.channel_max,
                    frame_max: core.options.frame_max,
                    heartbeat: core.options.heartbeat,
                };
                Method::ConnectionTune(tune).write(0, &mut self.output);
                self.state = State::Tuning;
            }
            Err(Failure::Refused) if self.capabilities.authentication_failure_close => {
                let mechanism = show(m.mechanism);
                let detail = format!(
                    "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
                );
                // RabbitMQ waits for no answer, and resets the socket a moment later.
                self.close(core, &Fault::access_refused(detail));
                self.vanish(core, false);
            }
            Err(_) => self.vanish(core, true),
        }
        Ok(())
    }

    fn tune_ok(&mut self, core: &mut Core, m: &wire::TuneOk) -> Outcome {
        let options = &core.options;
        negotiate(m.frame_max, FRAME_MIN_SIZE, options.frame_max)?;
        negotiate(m.channel_max.into(), 1, options.channel_max.into())?;
        self.frame_max = if m.frame_max == 0 { u32::MAX } else { m.frame_max };
        self.channel_max = m.channel_max;
        self.heartbeat = m.heartbeat;
        self.state = State::Opening;
        Ok(())
    }

    fn open(&mut self, core: &mut Core, m: &wire::Open<'_>) -> Outcome {
        let wanted = show(m.virtual_host);
        let Some(vhost) = core.vhosts.iter().position(|v| v.name == wanted) else {
            return Err(Fault::connection(530, format!("vhost {wanted} not found")));
        };
        let user = &core.options.users[self.user];
        if !user.vhosts.is_empty() && !user.vhosts.iter().any(|v| *v == wanted) {
            let name = &user.name;
            let detail = format!("access to vhost '{wanted}' refused for user '{name}'");
            return Err(Fault::connection(530, detail));
        }
        self.vhost = vhost;
        self.state = State::Running;
        core.counters.connections_opened += 1;
        Method::ConnectionOpenOk.write(0, &mut self.output);
        Ok(())
    }

    /// Content came: during an alarm the connection is read no further, and is told so if it wants to know.
    pub(crate) fn note_content(&mut self, core: &Core) {
        if !core.alarm || self.blocked {
            return;
        }
        self.blocked = true;
        if self.capabilities.connection_blocked && !core.options.quirks.alarms_in_silence {
            self.blocked_told = true;
            let reason = b"low on memory";
            Method::ConnectionBlocked(Blocked { reason }).write(0, &mut self.output);
        }
    }

    /// The alarm is over.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
        if std::mem::take(&mut self.blocked_told) && self.state == State::Running {
            Method::ConnectionUnblocked.write(0, &mut self.output);
        }
    }
}

/// Refuses a value that was not on offer; 0 asks for no limit. RabbitMQ has a text for it, 530, but fails to send it: the
/// socket is reset (probed on 3.10.8).
fn negotiate(client: u32, min: u32, server: u32) -> Outcome {
    let too_low = client != 0 && client < min;
    let too_high = server != 0 && (client == 0 || client > server);
    if too_low || too_high { Err(Fault::reset()) } else { Ok(()) }
}

fn capabilities(properties: Table<'_>) -> Capabilities {
    let Some(Value::Table(table)) = properties.get(b"capabilities") else {
        return Capabilities::default();
    };
    let has = |name: &[u8]| table.get(name) == Some(Value::Bool(true));
    Capabilities {
        authentication_failure_close: has(b"authentication_failure_close"),
        consumer_cancel_notify: has(b"consumer_cancel_notify"),
        connection_blocked: has(b"connection.blocked"),
    }
}

/// Entries in the order in which RabbitMQ sends them.
fn server_properties(options: &Options) -> Vec<u8> {
    const CAPABILITIES: [&[u8]; 9] = [
        b"publisher_confirms",
        b"exchange_exchange_bindings",
        b"basic.nack",
        b"consumer_cancel_notify",
        b"connection.blocked",
        b"consumer_priorities",
        b"authentication_failure_close",
        b"per_consumer_qos",
        b"direct_reply_to",
    ];
    let mut capabilities = Vec::new();
    for name in CAPABILITIES {
        put_key(&mut capabilities, name);
        capabilities.extend_from_slice(b"t\x01");
    }
    let mut table = Vec::with_capacity(capabilities.len() + 256);
    put_key(&mut table, b"capabilities");
    table.push(b'F');
    put_long(&mut table, &capabilities);
    put_string(&mut table, b"cluster_name", b"rabbit@localhost");
    let note = b"An embedded broker in memory, for demonstration";
    put_string(&mut table, b"information", note);
    put_string(&mut table, b"platform", b"Warren");
    put_string(&mut table, b"product", options.product.as_bytes());
    put_string(&mut table, b"version", options.version.as_bytes());
    table
}

fn put_key(table: &mut Vec<u8>, key: &[u8]) {
    table.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    table.extend_from_slice(key);
}

fn put_long(table: &mut Vec<u8>, value: &[u8]) {
    table.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    table.extend_from_slice(value);
}

/// Appends an entry whose value is a long string. `key` must be short enough for a short string.
pub(crate) fn put_string(table: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put_key(table, key);
    table.push(b'S');
    put_long(table, value);
}
