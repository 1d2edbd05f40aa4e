//! What the broker does, one test for each behaviour, by theme. See `support` for how to run the same tests against a
//! real RabbitMQ.

mod channels;
mod confirms;
mod consume;
mod content;
mod exchanges;
mod faults;
mod handshake;
mod ordering;
mod publish;
mod queues;
mod reply_to;
mod settle;
mod support;
