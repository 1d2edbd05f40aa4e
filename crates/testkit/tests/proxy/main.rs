//! Warren between real clients and a real RabbitMQ.
//!
//! One test program, because it starts its nodes once: [`warren_testkit::rabbit::shared`] for tests that keep to their
//! own virtual host, [`warren_testkit::rabbit::exclusive`] for those that count, stop or kill. Most tests run both ways:
//! what is asserted through Warren has been seen without it a moment before.

mod alarms;
mod clients;
mod consuming;
mod crowd;
mod kit;
mod load;
mod login;
mod memory;
mod outages;
mod publishing;
mod queues;
mod readme;
mod slow;
mod stopping;
mod tls;
