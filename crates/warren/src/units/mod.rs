//! Quantities as people write them.

pub(crate) mod size;
pub(crate) mod time;
