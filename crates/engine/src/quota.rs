//! The limit of channels that a broker may set for a user (RabbitMQ's `max-channels`). It closes the connection on which
//! one more is opened, and names neither class nor method: so the limit is learned, and afterwards kept to.

use std::time::Duration;

use warren_wire::method::connection;

use crate::engine::Engine;
use crate::ids::{LoginId, UpstreamId};
use crate::time::Time;
use crate::timers::TimerKey;

/// A broker counts channels in its own time: one that is closed counts on for a moment.
const COUNTS_ON: Duration = Duration::from_millis(200);

/// What was learned of a user's limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    most: usize,
    /// It counts until then.
    until: Time,
    /// Channels that were closed a moment ago, and until when they count.
    freed: usize,
    freed_until: Time,
}

impl Engine {
    /// A broker has closed a connection because its user has too many channels. Whoever counts with others (another
    /// worker, another proxy) may use them up too: if there are not more here than the limit that the broker names, then
    /// what is open here at the moment is all there is.
    pub(crate) fn learn_channel_limit(&mut self, id: UpstreamId, close: &connection::Close<'_>) {
        if !is_channel_limit(close) {
            return;
        }
        let Some(login) = self.upstreams[id].login else { return };
        let (here, opening) = self.channels_of(login);
        let named = named_limit(close.reply_text).filter(|named| here > *named);
        let most = named.unwrap_or(here - opening).max(1);
        let until = self.now + self.config.limits.auth_ttl;
        let lost = self.upstreams[id].numbers.len();
        if let Some(login) = self.logins.get_mut(login) {
            login.quota = Some(Quota { most, until, freed: 0, freed_until: self.now });
        }
        self.channels_freed(Some(login), lost);
    }

    /// Channels are closed: where there is a limit, others may take their places in a moment.
    pub(crate) fn channels_freed(&mut self, login: Option<LoginId>, count: usize) {
        let Some(id) = login else { return };
        let (now, free_at) = (self.now, self.now + COUNTS_ON);
        let quota = self.logins.get_mut(id).and_then(|l| l.quota.as_mut()).filter(|q| now < q.until);
        let Some(quota) = quota else { return };
        quota.freed = if now < quota.freed_until { quota.freed + count } else { count };
        quota.freed_until = free_at;
        self.wheel.schedule(free_at, TimerKey::Login(id));
    }

    /// Whether one channel more is allowed. If not, one that is idle gives way.
    pub(crate) fn may_open_channel(&mut self, id: UpstreamId) -> bool {
        let Some(login) = self.upstreams[id].login else { return true };
        let quota = self.logins.get(login).and_then(|l| l.quota).filter(|q| self.now < q.until);
        let Some(quota) = quota else { return true };
        let open = self.channels_of(login).0;
        let freed = if self.now < quota.freed_until { quota.freed } else { 0 };
        if open + freed < quota.most {
            return true;
        }
        if open < quota.most {
            return false; // in a moment
        }
        let of_login = |u: &&crate::upstream::UpChannel| self.upstreams[u.upstream].login == Some(login);
        let gives_way = self.up_channels.values().any(|u| u.closing && of_login(&u));
        let idle = self.up_channels.iter().find(|(_, u)| u.idle && of_login(u)).map(|(up, _)| up);
        if let Some(up) = idle.filter(|_| !gives_way) {
            let state = &self.up_channels[up];
            let upstream = &mut self.upstreams[state.upstream];
            upstream.idle_plain.retain(|u| *u != up);
            upstream.idle_confirm.retain(|u| *u != up);
            self.close_channel(up);
        }
        false
    }

    /// Channels that are open for these credentials, and how many of them the broker has not answered yet.
    fn channels_of(&self, login: LoginId) -> (usize, usize) {
        let of_login = self.up_channels.values().filter(|u| self.upstreams[u.upstream].login == Some(login));
        of_login.fold((0, 0), |(all, opening), u| (all + 1, opening + usize::from(u.is_opening())))
    }
}

/// Whether it is this limit that a close is about (BROKER-FACTS: 530, class 0 method 0).
pub(crate) fn is_channel_limit(close: &connection::Close<'_>) -> bool {
    let text = String::from_utf8_lossy(close.reply_text);
    close.reply_code == 530 && close.class_id == 0 && text.contains("channels") && text.contains("limit")
}

/// The limit that the text names: RabbitMQ's ends with `user limit of (5)`.
fn named_limit(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    let (_, number) = text.strip_suffix(')')?.rsplit_once('(')?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::named_limit;

    #[test]
    fn a_limit_is_read_from_the_text() {
        let text = b"NOT_ALLOWED - number of channels opened for user 'u' has reached the maximum allowed user limit of (5)";
        assert_eq!(named_limit(text), Some(5));
        for other in
            [b"NOT_ALLOWED - too many channels".as_slice(), b"()", b")", b"limit of (many)", b"\xff(5)"]
        {
            assert_eq!(named_limit(other), None);
        }
    }
}
