//! What may befall the world besides what clients do, and how much of it a run gets. Clients that vanish at any octet are
//! part of every run; these are for runs that ask for them ([`crate::Settings::faults`]).

use crate::rng::Rng;

/// One misfortune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An upstream connection breaks without a word; what was under way in it is lost. `lingers`: the broker still
    /// carries out what it has received.
    LoseUpstream {
        /// Which.
        place: usize,
        /// The broker notices later than the engine.
        lingers: bool,
    },
    /// The broker dies at its end of an upstream connection; what it wrote before still comes.
    Die(usize),
    /// Nothing comes from the broker on an upstream connection any more, and what goes there is lost.
    Hang(usize),
    /// The broker closes an upstream connection out of the blue with a code and no class or method.
    Close(usize, u16),
    /// Connections to the broker are refused, or again accepted.
    Refuse(bool),
    /// The broker raises or ends a resource alarm.
    Alarm(bool),
    /// Octets for the client at this place are not taken for now, or again.
    Stall(usize, bool),
}

/// What the engine is to do when an upstream connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It may close every session with 320.
    Closes,
    /// It resumes: only sessions that lost what cannot be made good are closed.
    Resumes,
}

/// What the engine does as it is now: what `--faults` expects of it.
pub const ENGINE: Expected = Expected::Resumes;

/// Codes that RabbitMQ closes connections with for reasons that no client can see.
pub const CAUSES: [u16; 3] = [541, 541, 506];

/// How much befalls one run.
#[derive(Clone, Copy, Debug)]
pub struct Misfortune {
    /// What the engine is to do about it.
    pub expected: Expected,
    /// One step in so many.
    pub every: usize,
    /// Out of ten times, what comes next comes at once.
    pub storms: usize,
    /// Weight of each kind: lost, dead, hung, closed with 320, closed for cause, refusing, alarm.
    pub weights: [u32; 7],
    /// Heartbeat that the broker asks for, in seconds.
    pub heartbeat: u16,
    /// Most channels of one connection, as the broker allows.
    pub channel_max: u16,
    /// The broker calls itself LavinMQ, and has its ways as far as the model broker knows them.
    pub lavinmq: bool,
}

impl Misfortune {
    /// The misfortune of a run.
    pub fn draw(rng: &mut Rng, expected: Expected) -> Misfortune {
        let mut weights = [0; 7];
        for weight in &mut weights {
            *weight = *rng.pick(&[0, 1, 1, 3]);
        }
        Misfortune {
            expected,
            every: *rng.pick(&[100, 200, 400, 1000]),
            storms: *rng.pick(&[0, 2, 5]),
            weights,
            heartbeat: *rng.pick(&[5, 5, 20, 60]),
            channel_max: *rng.pick(&[2047, 2047, 2047, 3, 5]),
            lavinmq: rng.chance(1, 4),
        }
    }
}
