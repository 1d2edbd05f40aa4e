//! `basic.publish`, once its content is complete.

use std::sync::Arc;

use warren_wire::Method;
use warren_wire::content::BasicProperties;
use warren_wire::method::basic;

use crate::call::{Call, Right, unimplemented_method};
use crate::channel::Mode;
use crate::content::Content;
use crate::core::{ExchangeKey, QueueKey};
use crate::fault::{Fault, Outcome};
use crate::message::Message;
use crate::reply_to::{self, PSEUDO_QUEUE};
use crate::tx::HeldPublish;

/// Largest `expiration`, milliseconds: ten years.
const MAX_EXPIRATION: u64 = 315_360_000_000;

impl Call<'_> {
    /// Carries out a method that came with content. Faults blame it.
    pub(crate) fn run_content(&mut self, content: Content) -> Outcome {
        let blame = content.method;
        self.check_not_committing()
            .and_then(|()| match blame {
                basic::PUBLISH => self.publish(content),
                _ => Err(unimplemented_method()),
            })
            .map_err(|fault| if fault.code == 541 { fault } else { fault.at(blame) })
    }

    fn publish(&mut self, content: Content) -> Outcome {
        if content.immediate {
            return Err(Fault::connection(540, "immediate=true"));
        }
        let max = self.core.options.max_message_size;
        if content.size > max {
            let detail = format!("message size {} is larger than max size {max}", content.size);
            return Err(Fault::precondition(detail));
        }
        let mut message = content.message;
        self.check_exchange(Right::Write, message.exchange())?;
        let exchange = self.exchange_to_publish(message.exchange())?;
        self.check_properties(&mut message)?;

        let message = Arc::new(message);
        let mut routes = std::mem::take(&mut self.core.routes);
        routes.clear();
        self.route(exchange, &message, &mut routes);
        self.core.counters.publishes_accepted += 1;
        if let Mode::Tx(tx) = &mut self.channel().mode {
            tx.hold_publish(HeldPublish { message, routes: routes.clone(), mandatory: content.mandatory });
        } else {
            let accepted = self.deliver_to_queues(&message, &routes, content.mandatory);
            self.record_confirm(!routes.is_empty(), accepted);
        }
        self.core.routes = routes;
        Ok(())
    }

    fn exchange_to_publish(&self, name: &[u8]) -> Outcome<ExchangeKey> {
        let key = self.core.find_exchange(self.vhost, name);
        let Some(key) = key else {
            return Err(Fault::not_found(&self.exchange_text(name)));
        };
        if self.core.exchanges[key].internal {
            let detail = format!("cannot publish to internal {}", self.exchange_text(name));
            return Err(Fault::access_refused(detail));
        }
        Ok(key)
    }

    /// What RabbitMQ looks at in the properties, and the reply address it puts in for direct reply-to.
    fn check_properties(&mut self, message: &mut Message) -> Outcome {
        // Malformed properties crash RabbitMQ's channel process, which takes the connection with it (BROKER-FACTS).
        let Ok(properties) = BasicProperties::parse(message.properties()) else {
            return Err(Fault::connection(541, ""));
        };
        let persistent = properties.delivery_mode == Some(2);
        let mut rewritten = None;
        if properties.reply_to == Some(PSEUDO_QUEUE) {
            let Some(consumer) = &self.core.channels[self.key].reply_consumer else {
                return Err(Fault::precondition("fast reply consumer does not exist"));
            };
            let mut bytes = Vec::with_capacity(message.properties().len() + 48);
            let reply_to = Some(&*consumer.address);
            BasicProperties { reply_to, ..properties }.write(&mut bytes);
            rewritten = Some(bytes);
        }
        if let Some(claimed) = properties.user_id
            && claimed != self.user().name.as_bytes()
        {
            let detail = format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(claimed),
                self.user().name
            );
            return Err(Fault::precondition(detail));
        }
        if let Some(expiration) = properties.expiration {
            check_expiration(expiration)?;
        }
        if let Some(bytes) = rewritten {
            message.replace_properties(&bytes);
        }
        message.persistent = persistent;
        Ok(())
    }

    /// Puts a routed message into its queues, or returns it if it has none and was mandatory. False when a queue was full
    /// and refused it.
    pub(crate) fn deliver_to_queues(
        &mut self,
        message: &Arc<Message>,
        routes: &[QueueKey],
        mandatory: bool,
    ) -> bool {
        if routes.is_empty() && mandatory {
            self.return_message(message);
        }
        let mut accepted = true;
        for &queue in routes {
            accepted &= self.core.enqueue(queue, message);
        }
        accepted
    }

    fn return_message(&mut self, message: &Message) {
        let method = Method::BasicReturn(basic::Return {
            reply_code: 312,
            reply_text: b"NO_ROUTE",
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        });
        method.write(self.number, self.out);
        message.write_content(self.number, self.frame_max, self.out);
    }

    /// What no queue has to answer for is confirmed at once: in front of confirms that wait for their queues, and of the
    /// answer to what comes next.
    fn record_confirm(&mut self, routed: bool, accepted: bool) {
        let (conn, number) = (self.conn, self.number);
        let at_once = !routed && self.core.options.confirms.is_prompt(&mut self.core.rng);
        if let Mode::Confirm(confirms) = &mut self.core.channels[self.key].mode {
            if at_once {
                confirms.confirm_at_once(number, self.out);
                return;
            }
            if !confirms.is_due() {
                self.core.ready.insert((conn, number));
            }
            confirms.record(accepted);
        }
    }

    /// Queues that the message goes to; replies to direct reply-to are handed over at once and go to none.
    fn route(&mut self, exchange: ExchangeKey, message: &Arc<Message>, routes: &mut Vec<QueueKey>) {
        let key = message.routing_key();
        if !message.exchange().is_empty() {
            self.core.route(exchange, message, routes);
        } else if reply_to::is_address(key) {
            self.core.deliver_reply(message);
        } else {
            routes.extend(self.core.find_queue(self.vhost, key));
        }
    }
}

/// As RabbitMQ does: a decimal number of milliseconds and nothing behind it. It is only checked: there is no clock.
fn check_expiration(text: &[u8]) -> Outcome {
    let shown = String::from_utf8_lossy(text);
    let (sign, digits) = match text {
        [sign @ (b'-' | b'+'), rest @ ..] => (*sign, rest),
        all => (b'+', all),
    };
    let count = digits.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let problem = if count == 0 {
        "no_integer".to_owned()
    } else if count < digits.len() {
        let rest = String::from_utf8_lossy(&digits[count..]);
        format!("{{leftover_string,\"{rest}\"}}")
    } else {
        let number = std::str::from_utf8(digits).ok().and_then(|d| d.parse::<u64>().ok());
        match number {
            Some(0) => return Ok(()),
            Some(number) if sign == b'-' => format!("{{value_negative,-{number}}}"),
            Some(number) if number <= MAX_EXPIRATION => return Ok(()),
            _ => format!("{{value_too_large,{}}}", String::from_utf8_lossy(digits)),
        }
    };
    Err(Fault::precondition(format!("invalid expiration '{shown}': {problem}")))
}
