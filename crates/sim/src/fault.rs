//! What may befall the world besides what clients do. Clients that vanish at any octet are part of every run; these are
//! for runs that ask for them, by [`crate::world::World::inflict`].

/// One misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An upstream connection breaks without a word; what was under way in it is lost.
    LoseUpstream(usize),
    /// The broker raises or ends a resource alarm.
    Alarm(bool),
    /// Octets for the client at this place are not taken for now, or again.
    Stall(usize, bool),
}
