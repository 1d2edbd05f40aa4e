//! AMQP 0-9-1 on the wire: frames, methods, tables, content headers.
//!
//! The first of Warren's three layers. It knows bytes and nothing else: no runtime, no clock, no I/O, no state.
//! In the order in which data flows:
//!
//! - [`frame`]: the walk over frames in a buffer, in place.
//! - [`method`]: the methods of every class, parsed and written; everything read is borrowed from the buffer.
//! - [`content`]: content headers, properties and bodies.
//! - [`table`]: field tables, checked and read without allocation, converted when somebody wants to keep them.
//! - [`reply`]: reply codes and texts.
//!
//! Whatever is read here comes from a peer that may be hostile: no input panics, and nothing allocates in
//! proportion to a length that was only announced.

pub mod content;
pub mod frame;
#[doc(hidden)]
pub mod fuzz_entry;
pub mod method;
mod read;
pub mod reply;
pub mod table;
mod write;

pub use content::{BasicProperties, ContentHeader};
pub use frame::{Frame, FrameError};
pub use method::{Method, MethodError, MethodId};
pub use table::{Table, Value};

/// Bytes that are not what AMQP 0-9-1 says they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed table or properties")
    }
}

impl std::error::Error for Malformed {}
