//! Warren between real clients and a real RabbitMQ.
//!
//! One test program, because it starts its nodes once: [`warren_testkit::rabbit::shared`] for tests that keep to their
//! own virtual host, [`warren_testkit::rabbit::exclusive`] for those that count, stop or kill. Most tests run both ways:
//! what is asserted through Warren has been seen without it a moment before.

mod alarms;
mod auth_service;
mod bystander;
mod capabilities;
mod clients;
mod consuming;
mod crowd;
mod dedicated;
mod descriptors;
mod farms;
mod floods;
mod kit;
mod limits;
mod load;
mod login;
mod many;
mod memory;
mod outages;
mod peers;
mod publishing;
mod quarantine;
mod queues;
mod quotas;
mod raw;
mod readme;
mod restarts;
mod resume;
mod rights;
mod secrets;
mod slow;
mod stopping;
mod streams;
mod tls;
