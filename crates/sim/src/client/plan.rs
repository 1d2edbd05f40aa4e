//! What a client means to do, drawn when it connects.

use crate::rng::Rng;
use crate::scenario::Scenario;

/// How a session ends when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Waits for what is due, closes each channel, then the connection.
    Tidy,
    /// Closes the connection over whatever is under way.
    Close,
    /// Its socket breaks, at any octet.
    Vanish,
}

/// What is wrong with its login, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    Right,
    /// A wrong password: 403, or the end without a word.
    Password,
    /// A virtual host that is not there: 530.
    Vhost,
}

/// What one channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    Publisher,
    Confirmer,
    Transactor,
    Consumer,
    Getter,
    Owner,
    Requester,
    Responder,
    Visitor,
    Mixed,
}

/// All roles, for drawing.
pub const ROLES: [Role; 10] = [
    Role::Publisher,
    Role::Confirmer,
    Role::Transactor,
    Role::Consumer,
    Role::Getter,
    Role::Owner,
    Role::Requester,
    Role::Responder,
    Role::Visitor,
    Role::Mixed,
];

/// The plan of one session.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Virtual host.
    pub vhost: usize,
    /// User.
    pub user: usize,
    /// What is wrong with the login.
    pub login: Login,
    /// Announces `authentication_failure_close`: a refused login is told.
    pub told_refusal: bool,
    /// Announces `consumer_cancel_notify`.
    pub cancel_notify: bool,
    /// Asks for this frame_max, if the server offers as much.
    pub frame_max: u32,
    /// Seconds; 0 is none.
    pub heartbeat: u16,
    /// Writes tune-ok, open and its first channel's frames at once.
    pub pipelined: bool,
    /// Most channels at a time.
    pub channels: usize,
    /// Channel numbers are drawn from 1 to this.
    pub numbers: u16,
    /// Things to do before the end.
    pub acts: u32,
    /// Things to do on one channel before it is closed.
    pub channel_acts: u32,
    /// How it ends.
    pub end: End,
    /// Waits for open-ok before it uses a channel, and for answers before it goes on.
    pub patient: bool,
}

impl Plan {
    /// One of the many.
    pub fn draw(rng: &mut Rng, scenario: &Scenario) -> Plan {
        let login = match rng.below(40) {
            0 => Login::Password,
            1 => Login::Vhost,
            _ => Login::Right,
        };
        let short = rng.chance(scenario.short_sessions, 10);
        Plan {
            vhost: rng.below(scenario.vhosts.len()),
            user: rng.below(scenario.users.len()),
            login,
            told_refusal: rng.chance(3, 4),
            cancel_notify: rng.chance(3, 4),
            frame_max: *rng.pick(&[4096, 4096, 8192, 20_000, 131_072]),
            heartbeat: *rng.pick(&[0, 0, 10, 20, 60]),
            pipelined: rng.chance(1, 4),
            channels: 1 + rng.below(3),
            numbers: *rng.pick(&[3, 3, 10, 2047]),
            acts: if short { rng.between(1, 8) } else { rng.between(10, 120) } as u32,
            channel_acts: if short { rng.between(1, 6) } else { rng.between(3, 60) } as u32,
            end: match rng.below(10) {
                0..=4 => End::Tidy,
                5..=6 => End::Close,
                _ => End::Vanish,
            },
            patient: rng.chance(1, 3),
        }
    }
}
