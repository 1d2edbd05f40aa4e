//! The limit of channels that a broker may set for a user (RabbitMQ's `max-channels`). It closes the connection on which
//! one more is opened, and names neither class nor method: so the limit is learned, and afterwards kept to.

use warren_wire::method::connection;

use crate::engine::Engine;
use crate::ids::{LoginId, UpstreamId};

impl Engine {
    /// A broker has closed a connection because its user has too many channels. Whoever counts with others (another
    /// worker, another proxy) may use them up too, so that what is open here at the moment is all there is.
    pub(crate) fn learn_channel_limit(&mut self, id: UpstreamId, close: &connection::Close<'_>) {
        if !is_channel_limit(close) {
            return;
        }
        let Some(login) = self.upstreams[id].login else { return };
        let (here, opening) = self.channels_of(login);
        let limit = (here - opening).max(1);
        let until = self.now + self.config.limits.auth_ttl;
        if let Some(login) = self.logins.get_mut(login) {
            login.channel_limit = Some((limit, until));
        }
    }

    /// Whether one channel more is allowed. If not, one that is idle gives way.
    pub(crate) fn may_open_channel(&mut self, id: UpstreamId) -> bool {
        let Some(login) = self.upstreams[id].login else { return true };
        let limit =
            self.logins.get(login).and_then(|l| l.channel_limit).filter(|(_, until)| self.now < *until);
        let Some((limit, _)) = limit else { return true };
        if self.channels_of(login).0 < limit {
            return true;
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
