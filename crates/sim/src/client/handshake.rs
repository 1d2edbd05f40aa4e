//! The connection: login, errors of the whole connection, and its end.

use amq_table::client_properties;
use warren_wire::Method;
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{connection, split_id};
use warren_wire::table::Table;

use super::channel::{Channel, Life, State};
use super::plan::Login;
use super::{Client, Ctx};
use crate::cover::Path;
use crate::oracle::Check;
use crate::oracle::message::Fate;

/// With more memory than that, whatever clients publish fits.
pub(super) const LITTLE_MEMORY: usize = 64 << 20;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing sent yet.
    Fresh,
    /// Protocol header sent.
    Greeted,
    /// Start-ok sent.
    LoggingIn,
    /// Tune-ok and open sent.
    Opening,
    /// Open-ok has come.
    Open,
    /// Connection.close sent.
    Closing,
    /// Both sides have closed; the socket ends now.
    Done,
    /// No socket any more.
    Gone,
}

mod amq_table {
    /// `capabilities` and the like as encoded entries, written by hand: two octets of flag names are all there is.
    pub(super) fn client_properties(told_refusal: bool, cancel_notify: bool) -> Vec<u8> {
        let mut flags = Vec::new();
        for (name, on) in [
            ("authentication_failure_close", told_refusal),
            ("consumer_cancel_notify", cancel_notify),
            ("basic.nack", true),
            ("publisher_confirms", true),
        ] {
            flags.push(name.len() as u8);
            flags.extend_from_slice(name.as_bytes());
            flags.extend_from_slice(&[b't', u8::from(on)]);
        }
        let mut table = Vec::new();
        table.push(b"capabilities".len() as u8);
        table.extend_from_slice(b"capabilities");
        table.push(b'F');
        table.extend_from_slice(&(flags.len() as u32).to_be_bytes());
        table.extend_from_slice(&flags);
        table
    }
}

impl Client {
    /// The first thing a client says.
    pub(super) fn greet(&mut self, ctx: &mut Ctx<'_>) {
        ctx.trace.line(format_args!("client {} connects: {:?}", self.me.session, self.plan));
        self.put(&PROTOCOL_HEADER, ctx.now);
        self.stage = Stage::Greeted;
    }

    pub(super) fn connection_method(&mut self, method: Method<'_>, ctx: &mut Ctx<'_>) -> Check {
        match (self.stage, method) {
            (Stage::Greeted, Method::ConnectionStart(_)) => self.start_ok(ctx),
            (Stage::LoggingIn, Method::ConnectionTune(tune)) => self.tune_ok(tune, ctx)?,
            (Stage::Opening, Method::ConnectionOpenOk) => {
                if self.plan.login != Login::Right {
                    return Err("a wrong login was accepted".to_owned());
                }
                ctx.cover.hit(Path::Session);
                self.stage = Stage::Open;
                self.me.open = true;
            }
            (Stage::Closing, Method::ConnectionCloseOk) => self.closed(ctx)?,
            (Stage::Done, Method::ConnectionCloseOk) if self.crossed => self.crossed = false,
            (_, Method::ConnectionClose(close)) => return self.close_came(close, ctx),
            (stage, method) => return Err(format!("{method:?} while {stage:?}")),
        }
        Ok(())
    }

    fn start_ok(&mut self, ctx: &mut Ctx<'_>) {
        let properties = client_properties(self.plan.told_refusal, self.plan.cancel_notify);
        let user = &ctx.scenario.users[self.plan.user];
        let wrong = if self.plan.login == Login::Password { "wrong" } else { "" };
        let response = format!("\0{user}\0{user}{wrong}");
        let start_ok = connection::StartOk {
            client_properties: Table::from_encoded(&properties).unwrap_or(Table::EMPTY),
            mechanism: b"PLAIN",
            response: response.as_bytes(),
            locale: b"en_US",
        };
        self.put_method(0, Method::ConnectionStartOk(start_ok), ctx);
        self.stage = Stage::LoggingIn;
    }

    fn tune_ok(&mut self, tune: connection::Tune, ctx: &mut Ctx<'_>) -> Check {
        let offered = if tune.frame_max == 0 { u32::MAX } else { tune.frame_max };
        let frame_max = self.plan.frame_max.min(offered);
        let most = if tune.channel_max == 0 { u16::MAX } else { tune.channel_max };
        self.plan.numbers = self.plan.numbers.min(most);
        self.plan.heartbeat = self.plan.heartbeat.min(tune.heartbeat);
        let tune_ok = connection::TuneOk { channel_max: most, frame_max, heartbeat: self.plan.heartbeat };
        self.put_method(0, Method::ConnectionTuneOk(tune_ok), ctx);
        self.me.frame_max = frame_max;
        if frame_max == 4096 {
            ctx.cover.hit(Path::SmallFrames);
        }
        let vhost = match self.plan.login {
            Login::Vhost => "nowhere",
            _ => &ctx.scenario.vhosts[self.plan.vhost],
        };
        let open = connection::Open { virtual_host: vhost.as_bytes() };
        self.put_method(0, Method::ConnectionOpen(open), ctx);
        self.stage = Stage::Opening;
        Ok(())
    }

    /// Whether channels may be opened now.
    pub(super) fn may_open_channels(&self) -> bool {
        match self.stage {
            Stage::Open => true,
            Stage::Opening => self.plan.pipelined,
            _ => false,
        }
    }

    fn close_came(&mut self, close: connection::Close<'_>, ctx: &mut Ctx<'_>) -> Check {
        let code = close.reply_code;
        let refused = match self.plan.login {
            Login::Right => false,
            Login::Password => code == 403 && self.plan.told_refusal,
            Login::Vhost => code == 530,
        };
        if self.is_loss(&close, ctx) {
            self.put_method(0, Method::ConnectionCloseOk, ctx);
            self.give_up(ctx);
            self.stage = Stage::Done;
            return Ok(());
        }
        let method = u32::from(close.class_id) << 16 | u32::from(close.method_id);
        if refused && matches!(self.stage, Stage::LoggingIn | Stage::Opening) {
            ctx.cover.hit(if code == 403 { Path::LoginRefused } else { Path::VhostRefused });
        } else if self.waited_in_vain(&close, ctx) || self.is_too_much(&close, ctx) {
            self.publishes_are_lost(ctx);
            ctx.cover.hit(Path::ConnectionError);
        } else if self.doom == Some((code, method)) {
            ctx.cover.hit(Path::ConnectionError);
        } else {
            let due = self.doom.map(|(code, method)| (code, split_id(method)));
            let text = String::from_utf8_lossy(close.reply_text);
            return Err(format!("connection.close {code} '{text}' for {method:x}, due was {due:?}"));
        }
        self.put_method(0, Method::ConnectionCloseOk, ctx);
        for channel in self.channels.iter().filter(|c| c.state != State::Free) {
            ctx.oracle.doubt(channel.chan);
        }
        self.finish(ctx);
        self.stage = Stage::Done;
        Ok(())
    }

    /// Where caps are low, clients wait for each other, and a client's channels for each other: what waits for too long is
    /// refused.
    fn waited_in_vain(&self, close: &connection::Close<'_>, ctx: &Ctx<'_>) -> bool {
        let mut live = self.channels.iter().filter(|c| c.state != State::Free);
        let publishes = live.any(|c| ctx.oracle.chans[c.chan].has_outstanding());
        // A consumer that is to begin again waits for a binding, and its client for nothing.
        let consumes = |c: &Channel| c.consumers.iter().any(|c| c.life != Life::Ended);
        let resumes = ctx.scenario.misfortune.is_some() && self.channels.iter().any(consumes);
        let own = self.doom.is_some() || self.vanishing;
        let waits = own || publishes || resumes || self.waits_for().is_some();
        let text = String::from_utf8_lossy(close.reply_text);
        ctx.scenario.tight && close.reply_code == 506 && waits && text.contains("none became free within")
    }

    /// Where memory is short, a client with several publishes under way may have announced more than there is.
    fn is_too_much(&self, close: &connection::Close<'_>, ctx: &Ctx<'_>) -> bool {
        let text = String::from_utf8_lossy(close.reply_text);
        // Which of its publishes have come to Warren is not known here, and a transaction's not to the record.
        let several = self.channels.iter().filter(|c| c.state != State::Free).count() > 1;
        let little = ctx.scenario.limits.memory <= LITTLE_MEMORY;
        close.reply_code == 506 && little && several && text.contains("several large publishes")
    }

    /// Whether `unread`, which came and was not read when the client vanished, tells it that it has waited in vain, or that
    /// there is no memory for it: then what it published is given up.
    pub(super) fn was_refused(&self, unread: &[u8], ctx: &Ctx<'_>) -> bool {
        let octets = [&self.rx, unread].concat();
        let mut at = 0;
        while let Ok(Some(frame)) = next_frame(&octets, at, u32::MAX) {
            at = frame.end;
            if frame.channel == 0
                && let Ok(Method::ConnectionClose(close)) = Method::parse(frame.payload(&octets))
            {
                let text = String::from_utf8_lossy(close.reply_text);
                let slow = ctx.scenario.limits.memory <= LITTLE_MEMORY && text.contains("read fast enough");
                return slow || self.waited_in_vain(&close, ctx) || self.is_too_much(&close, ctx);
            }
        }
        false
    }

    /// Our close was answered: all that was published before it is at the broker.
    fn closed(&mut self, ctx: &mut Ctx<'_>) -> Check {
        ctx.cover.hit(Path::ConnectionClosed);
        for channel in self.channels.iter_mut().filter(|c| c.state != State::Free) {
            ctx.oracle.prove(channel.chan, "its connection was closed with close-ok")?;
            let due = channel.returns_due.iter().find(|&&id| ctx.oracle.messages[id].fate != Fate::Never);
            if let (Some(id), false) = (due, channel.doomed) {
                return Err(format!("message {id} was not returned before connection.close-ok"));
            }
        }
        self.finish(ctx);
        self.stage = Stage::Done;
        Ok(())
    }

    pub(super) fn finish(&mut self, ctx: &mut Ctx<'_>) {
        for channel in &mut self.channels {
            if channel.state != State::Free {
                channel.outgoing.clear();
                ctx.oracle.drop_unsealed(channel.chan);
                channel.end(ctx);
            }
        }
        self.end_queues(ctx);
    }

    /// Asks for the end of the connection.
    pub(super) fn close(&mut self, ctx: &mut Ctx<'_>) {
        for channel in &mut self.channels {
            if channel.state != State::Free {
                // What was not written by now never will be. A content cut short is nobody's business here: real
                // clients finish theirs, and so does this one before it closes.
                channel.give_up_deliveries(ctx);
                channel.outgoing.clear();
                ctx.oracle.drop_unsealed(channel.chan);
            }
        }
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.put_method(0, Method::ConnectionClose(close), ctx);
        self.stage = Stage::Closing;
    }
}
