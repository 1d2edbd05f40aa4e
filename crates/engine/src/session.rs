//! Stub while the engine is being written.

/// What another worker needs to know of a session that moves to it.
#[derive(Debug)]
pub struct HandOff {
    /// Octets that were not yet written to the client: the first in the new outbox.
    pub unsent: Vec<u8>,
}
