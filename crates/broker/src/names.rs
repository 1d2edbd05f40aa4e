//! Names of entities, as they are kept and as they are shown.

use std::borrow::Cow;
use std::sync::Arc;

use crate::rng::Rng;

/// A name shared by everything that mentions it. Shared with a count that threads may touch, so that a whole broker can
/// be moved to another thread.
pub(crate) type Name = Arc<[u8]>;

/// A name as text. Names from the wire were checked to be UTF-8; what was not is shown as it can be.
pub(crate) fn show(name: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(name)
}

/// `queue 'x' in vhost '/'`, as RabbitMQ names entities in its texts.
pub(crate) fn entity(kind: &str, name: &[u8], vhost: &str) -> String {
    format!("{kind} '{}' in vhost '{vhost}'", show(name))
}

/// RabbitMQ drops line ends from names in declare, bind and delete.
pub(crate) fn strip_line_ends(name: &[u8]) -> Cow<'_, [u8]> {
    if name.iter().any(|octet| matches!(octet, b'\n' | b'\r')) {
        let kept = name.iter().copied().filter(|octet| !matches!(octet, b'\n' | b'\r'));
        Cow::Owned(kept.collect())
    } else {
        Cow::Borrowed(name)
    }
}

/// A name made by the server: `prefix-` and 22 characters, as RabbitMQ writes 16 octets in base64url.
pub(crate) fn generate(prefix: &str, rng: &mut Rng) -> Name {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut name = Vec::with_capacity(prefix.len() + 23);
    name.extend_from_slice(prefix.as_bytes());
    name.push(b'-');
    for _ in 0..2 {
        let bits = rng.next();
        name.extend((0..11).map(|place| ALPHABET[(bits >> (place * 5) & 63) as usize]));
    }
    name.into()
}
