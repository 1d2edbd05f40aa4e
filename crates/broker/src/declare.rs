//! `queue.declare` and `exchange.declare`.

use warren_wire::Method;
use warren_wire::method::{exchange, queue};
use warren_wire::table::{Table, Value};

use crate::args::{self, QueueKind};
use crate::call::{Call, Right};
use crate::consume::count;
use crate::core::QueueKey;
use crate::exchange::{Exchange, Kind};
use crate::fault::{Fault, Outcome};
use crate::names::{self, Name, show, strip_line_ends};
use crate::queue::Queue;
use crate::reply_to::PSEUDO_QUEUE;

/// Names that only the server may give.
const RESERVED: &[u8] = b"amq.";

impl Call<'_> {
    pub(crate) fn queue_declare(&mut self, m: queue::Declare<'_>) -> Outcome {
        let name = strip_line_ends(m.queue);
        let (name, messages, consumers) = if name.starts_with(PSEUDO_QUEUE) {
            let (messages, consumers) = self.declare_reply_queue(&name)?;
            (Name::from(&*name), messages, consumers)
        } else {
            let key = if m.passive { self.usable_queue(&name)? } else { self.declare_active(&name, m)? };
            let queue = &self.core.queues[key];
            let messages = count(queue.ready.len());
            (queue.name.clone(), messages, count(queue.consumers.len()))
        };
        self.channel().last_queue = Some(name.clone());
        self.reply_unless(
            m.no_wait,
            Method::QueueDeclareOk(queue::DeclareOk {
                queue: &name,
                message_count: messages,
                consumer_count: consumers,
            }),
        );
        Ok(())
    }

    fn declare_active(&mut self, name: &[u8], m: queue::Declare<'_>) -> Outcome<QueueKey> {
        if name.starts_with(RESERVED) && !name.is_empty() {
            let detail = format!("queue name '{}' contains reserved prefix 'amq.*'", show(name));
            return Err(Fault::access_refused(detail));
        }
        let name = if name.is_empty() { self.server_name(m.arguments)? } else { name.into() };
        self.check_queue(Right::Configure, &name)?;
        // An exclusive queue dies with its connection, so durable means nothing.
        let durable = m.durable && !m.exclusive;
        match self.core.find_queue(self.vhost, &name) {
            Some(key) => {
                self.check_queue_equal(key, m, durable)?;
                Ok(key)
            }
            None => self.create_queue(name, m, durable),
        }
    }

    fn server_name(&mut self, arguments: Table<'_>) -> Outcome<Name> {
        match QueueKind::of(arguments) {
            QueueKind::Classic => Ok(names::generate("amq.gen", &mut self.core.rng)),
            kind @ QueueKind::Quorum => {
                let kind = kind.name();
                let detail = format!("Cannot declare a server-named queue for type {kind}");
                Err(Fault::precondition(detail))
            }
        }
    }

    /// As RabbitMQ: exclusiveness is looked at first, and both ways.
    fn check_queue_equal(&self, key: QueueKey, m: queue::Declare<'_>, durable: bool) -> Outcome {
        let queue = &self.core.queues[key];
        let owner = m.exclusive.then_some(self.conn);
        if queue.owner != owner {
            return Err(self.locked(&queue.name));
        }
        let entity = self.queue_text(&queue.name);
        args::check_flag("durable", &entity, durable, queue.durable)?;
        args::check_flag("auto_delete", &entity, m.auto_delete, queue.auto_delete)?;
        let current = Table::from_encoded(&queue.arguments).unwrap_or(Table::EMPTY);
        args::check_queue_equivalence(current, m.arguments, &entity)
    }

    fn create_queue(&mut self, name: Name, m: queue::Declare<'_>, durable: bool) -> Outcome<QueueKey> {
        if let Some(Value::Str(exchange)) = m.arguments.get(b"x-dead-letter-exchange") {
            self.check_queue(Right::Read, &name)?;
            self.check_exchange(Right::Write, exchange)?;
        }
        let arguments = args::check_queue_arguments(m.arguments, &self.queue_text(&name))?;
        if arguments.kind == QueueKind::Quorum {
            self.check_quorum(&name, m)?;
        }
        let mut queue = Queue::new(name, self.vhost);
        queue.kind = arguments.kind;
        queue.durable = durable;
        queue.auto_delete = m.auto_delete;
        queue.owner = m.exclusive.then_some(self.conn);
        queue.arguments = m.arguments.as_bytes().into();
        queue.max_length = arguments.max_length;
        queue.overflow = arguments.overflow;
        queue.single_active = arguments.single_active;
        Ok(self.core.add_queue(queue))
    }

    fn check_quorum(&self, name: &[u8], m: queue::Declare<'_>) -> Outcome {
        let property = if m.auto_delete {
            "auto-delete"
        } else if m.exclusive {
            "exclusive-owner"
        } else if !m.durable {
            "non-durable"
        } else {
            return Ok(());
        };
        let queue = self.queue_text(name);
        Err(Fault::precondition(format!("invalid property '{property}' for {queue}")))
    }

    pub(crate) fn exchange_declare(&mut self, m: exchange::Declare<'_>) -> Outcome {
        let name = strip_line_ends(m.exchange);
        if m.passive {
            self.refuse_default_exchange(&name)?;
            if self.core.find_exchange(self.vhost, &name).is_none() {
                return Err(Fault::not_found(&self.exchange_text(&name)));
            }
        } else {
            self.declare_exchange(&name, m)?;
        }
        self.reply_unless(m.no_wait, Method::ExchangeDeclareOk);
        Ok(())
    }

    fn declare_exchange(&mut self, name: &[u8], m: exchange::Declare<'_>) -> Outcome {
        let Some(kind) = Kind::parse(m.kind) else {
            let detail = format!("unknown exchange type '{}'", show(m.kind));
            return Err(Fault::connection(503, detail));
        };
        self.refuse_default_exchange(name)?;
        self.check_exchange(Right::Configure, name)?;
        if let Some(key) = self.core.find_exchange(self.vhost, name) {
            return self.check_exchange_equal(&self.core.exchanges[key], kind, m);
        }
        if name.starts_with(RESERVED) {
            let detail = format!("exchange name '{}' contains reserved prefix 'amq.*'", show(name));
            return Err(Fault::access_refused(detail));
        }
        let alternate = match m.arguments.get(b"alternate-exchange") {
            Some(Value::Str(alternate)) => {
                self.check_exchange(Right::Read, name)?;
                self.check_exchange(Right::Write, alternate)?;
                Some(Name::from(alternate))
            }
            _ => None,
        };
        let mut exchange = Exchange::new(name.into(), self.vhost, kind);
        exchange.durable = m.durable;
        exchange.auto_delete = m.auto_delete;
        exchange.internal = m.internal;
        exchange.alternate = alternate;
        self.core.add_exchange(exchange);
        Ok(())
    }

    fn check_exchange_equal(&self, current: &Exchange, kind: Kind, m: exchange::Declare<'_>) -> Outcome {
        let entity = self.exchange_text(&current.name);
        if kind != current.kind {
            let received = format!("'{}'", kind.name());
            let shown = format!("'{}'", current.kind.name());
            return Err(args::inequivalent("type", &entity, &received, &shown));
        }
        args::check_flag("durable", &entity, m.durable, current.durable)?;
        args::check_flag("auto_delete", &entity, m.auto_delete, current.auto_delete)?;
        args::check_flag("internal", &entity, m.internal, current.internal)?;
        let current_arguments = alternate_argument(current.alternate.as_deref());
        let current_table = Table::from_encoded(&current_arguments).unwrap_or(Table::EMPTY);
        args::check_equivalence(current_table, m.arguments, b"alternate-exchange", &entity)
    }

    pub(crate) fn refuse_default_exchange(&self, name: &[u8]) -> Outcome {
        if name.is_empty() {
            let detail = "operation not permitted on the default exchange";
            return Err(Fault::access_refused(detail));
        }
        Ok(())
    }
}

/// The one argument of an exchange that counts, as it came.
fn alternate_argument(alternate: Option<&[u8]>) -> Vec<u8> {
    let mut table = Vec::new();
    if let Some(alternate) = alternate {
        crate::handshake::put_string(&mut table, b"alternate-exchange", alternate);
    }
    table
}
