//! Login: PLAIN and AMQPLAIN.

use warren_wire::table::{Table, Value};

use crate::options::User;

/// What `connection.start` offers.
pub(crate) const MECHANISMS: &[u8] = b"PLAIN AMQPLAIN";

/// Why a login failed. Both end without a word unless the client announced that it understands refusals.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The mechanism is unknown, or the response is not of its form.
    Syntax,
    /// User or password is wrong.
    Refused,
}

/// Place of the user in `users`.
pub(crate) fn login(users: &[User], mechanism: &[u8], response: &[u8]) -> Result<usize, Failure> {
    let (name, password) = match mechanism {
        b"PLAIN" => plain(response).ok_or(Failure::Syntax)?,
        b"AMQPLAIN" => amqplain(response).ok_or(Failure::Syntax)?,
        _ => return Err(Failure::Syntax),
    };
    let user = users.iter().position(|u| u.name.as_bytes() == name);
    match user {
        Some(place) if users[place].password.as_bytes() == password => Ok(place),
        _ => Err(Failure::Refused),
    }
}

/// NUL, name, NUL, password. RabbitMQ takes no authorization identity before the first NUL.
fn plain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = response.strip_prefix(b"\0")?;
    let nul = rest.iter().position(|&octet| octet == 0)?;
    let (name, password) = (&rest[..nul], &rest[nul + 1..]);
    (!password.contains(&0)).then_some((name, password))
}

/// The entries of a table without its length.
fn amqplain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let table = Table::from_encoded(response).ok()?;
    match (table.get(b"LOGIN")?, table.get(b"PASSWORD")?) {
        (Value::Str(name), Value::Str(password)) => Some((name, password)),
        _ => None,
    }
}
