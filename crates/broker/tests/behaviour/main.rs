//! What the broker does, one test for each behaviour, by theme. See `support` for how to run the same tests against a
//! real RabbitMQ.

mod handshake;
mod support;
