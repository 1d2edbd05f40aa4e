//! Binding queues and exchanges to exchanges.

use warren_wire::Method;
use warren_wire::method::{exchange, queue};
use warren_wire::table::{Table, Value};

use crate::call::{Call, Right};
use crate::core::ExchangeKey;
use crate::exchange::{Kind, Target};
use crate::fault::{Fault, Outcome};
use crate::names::{Name, show, strip_line_ends};

/// A binding as a client names it.
struct Request<'a> {
    source: &'a [u8],
    destination: Destination<'a>,
    key: &'a [u8],
    arguments: Table<'a>,
}

enum Destination<'a> {
    Queue(&'a [u8]),
    Exchange(&'a [u8]),
}

impl Call<'_> {
    pub(crate) fn queue_bind(&mut self, m: queue::Bind<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        self.bind(&Request {
            source: &strip_line_ends(m.exchange),
            destination: Destination::Queue(&strip_line_ends(&name)),
            key: expand_key(m.queue, m.routing_key, &name),
            arguments: m.arguments,
        })?;
        self.reply_unless(m.no_wait, Method::QueueBindOk);
        Ok(())
    }

    pub(crate) fn queue_unbind(&mut self, m: queue::Unbind<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        self.unbind(&Request {
            source: &strip_line_ends(m.exchange),
            destination: Destination::Queue(&strip_line_ends(&name)),
            key: expand_key(m.queue, m.routing_key, &name),
            arguments: m.arguments,
        })?;
        self.reply(Method::QueueUnbindOk);
        Ok(())
    }

    pub(crate) fn exchange_bind(&mut self, m: exchange::Bind<'_>) -> Outcome {
        self.bind(&Request {
            source: &strip_line_ends(m.source),
            destination: Destination::Exchange(&strip_line_ends(m.destination)),
            key: m.routing_key,
            arguments: m.arguments,
        })?;
        self.reply_unless(m.no_wait, Method::ExchangeBindOk);
        Ok(())
    }

    pub(crate) fn exchange_unbind(&mut self, m: exchange::Unbind<'_>) -> Outcome {
        self.unbind(&Request {
            source: &strip_line_ends(m.source),
            destination: Destination::Exchange(&strip_line_ends(m.destination)),
            key: m.routing_key,
            arguments: m.arguments,
        })?;
        self.reply_unless(m.no_wait, Method::ExchangeUnbindOk);
        Ok(())
    }

    fn bind(&mut self, r: &Request<'_>) -> Outcome {
        self.check_bind_rights(r)?;
        let Some(source) = self.core.find_exchange(self.vhost, r.source) else {
            return Err(Fault::not_found(&self.exchange_text(r.source)));
        };
        let Some(target) = self.find_target(r) else {
            return Err(Fault::not_found(&match r.destination {
                Destination::Queue(name) => self.queue_text(name),
                Destination::Exchange(name) => self.exchange_text(name),
            }));
        };
        self.check_binding(source, r.arguments)?;
        self.check_target_owner(target)?;
        self.core.exchanges[source].bind(r.key, target, r.arguments.as_bytes());
        Ok(())
    }

    /// A binding that is not there counts as removed, whatever is missing.
    fn unbind(&mut self, r: &Request<'_>) -> Outcome {
        self.check_bind_rights(r)?;
        let source = self.core.find_exchange(self.vhost, r.source);
        let (Some(source), Some(target)) = (source, self.find_target(r)) else {
            return Ok(());
        };
        let arguments = r.arguments.as_bytes();
        if !self.core.exchanges[source].has_binding(r.key, target, arguments) {
            return Ok(());
        }
        self.check_target_owner(target)?;
        let exchange = &mut self.core.exchanges[source];
        exchange.unbind(r.key, target, arguments);
        if exchange.auto_delete && exchange.bindings.is_empty() {
            self.core.delete_exchange(source);
        }
        Ok(())
    }

    fn check_bind_rights(&self, r: &Request<'_>) -> Outcome {
        match r.destination {
            Destination::Queue(name) => self.check_queue(Right::Write, name)?,
            Destination::Exchange(name) => {
                self.check_exchange(Right::Write, name)?;
                self.refuse_default_exchange(name)?;
            }
        }
        self.refuse_default_exchange(r.source)?;
        self.check_exchange(Right::Read, r.source)
    }

    fn find_target(&self, r: &Request<'_>) -> Option<Target> {
        match r.destination {
            Destination::Queue(name) => self.core.find_queue(self.vhost, name).map(Target::Queue),
            Destination::Exchange(name) => self.core.find_exchange(self.vhost, name).map(Target::Exchange),
        }
    }

    fn check_target_owner(&self, target: Target) -> Outcome {
        match target {
            Target::Queue(key) => self.check_owner(key),
            Target::Exchange(_) => Ok(()),
        }
    }

    /// Only headers exchanges look at the arguments.
    fn check_binding(&self, source: ExchangeKey, arguments: Table<'_>) -> Outcome {
        if self.core.exchanges[source].kind != Kind::Headers {
            return Ok(());
        }
        let expected = "expected all, any, all-with-x, or any-with-x";
        match arguments.get(b"x-match") {
            None | Some(Value::Str(b"all" | b"any" | b"all-with-x" | b"any-with-x")) => Ok(()),
            Some(Value::Str(other)) => {
                let other = show(other);
                let detail = format!("Invalid x-match field value <<\"{other}\">>; {expected}");
                Err(Fault::precondition(detail))
            }
            Some(_) => Err(Fault::precondition("Invalid x-match field type; expected longstr")),
        }
    }
}

/// With neither queue nor key given, both stand for the queue declared last.
fn expand_key<'a>(queue: &[u8], key: &'a [u8], last: &'a Name) -> &'a [u8] {
    if queue.is_empty() && key.is_empty() { last } else { key }
}
