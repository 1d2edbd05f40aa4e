//! Faults of the engines' sockets, and what they may cost the clients.

use warren_broker::ConnId;

use super::link::Ending;
use super::{Outside, Warren};
use crate::client::loss::Loss;
use crate::cover::Path;
use crate::fault::{Expected, Fault};
use crate::oracle::Check;
use crate::oracle::tap::Tap;
use crate::world::Place;

impl Warren {
    /// Upstream connections that a fault may befall: those that were made, are not ending, and have not been hit.
    pub(in crate::world) fn targets(&self) -> Vec<Place> {
        let fits = |u: &super::Upstream| u.conn.is_some() && u.ending == Ending::Never && u.loss.is_none();
        let places = self.upstreams.iter().enumerate();
        places.filter(|(_, u)| u.as_ref().is_some_and(fits)).map(|(place, _)| place).collect()
    }

    /// The upstream connection that a consumer is on.
    pub(in crate::world) fn consumes_on(&self, tag: &[u8], tap: &Tap) -> Option<Place> {
        let mut targets = self.targets().into_iter();
        targets.find(|&place| {
            let conn = self.upstreams[place].as_ref().and_then(|u| u.conn);
            conn.is_some_and(|conn| tap.consumer_tags(conn).iter().any(|t| t == tag))
        })
    }

    /// Whether the engine has yet to find out that something has happened to one of its connections.
    pub(in crate::world) fn is_deceived(&self) -> bool {
        self.upstreams.iter().flatten().any(|u| u.hung)
    }

    pub(in crate::world) fn inflict(&mut self, fault: &Fault, outside: &mut Outside<'_>) -> Check {
        match *fault {
            Fault::LoseUpstream { place, lingers } => {
                let Some(conn) = self.strike(place, None, lingers, outside) else { return Ok(()) };
                self.mark_place(place, |u| u.ending = Ending::Now);
                if !lingers {
                    outside.broker.cut(conn, true, outside.ctx.oracle);
                }
            }
            Fault::Die(place) => {
                let Some(conn) = self.strike(place, None, false, outside) else { return Ok(()) };
                outside.broker.cut(conn, false, outside.ctx.oracle);
            }
            Fault::Hang(place) => {
                if self.strike(place, None, false, outside).is_some() {
                    outside.ctx.cover.hit(Path::Hung);
                    self.mark_place(place, |u| u.hung = true);
                }
            }
            Fault::Close(place, code) => {
                let open = |conn: &ConnId| outside.broker.tap.is_open(*conn);
                let conn = self.upstreams.get(place).and_then(|u| u.as_ref()).and_then(|u| u.conn);
                if !conn.is_some_and(|conn| open(&conn)) {
                    return Ok(());
                }
                let blame = (code != 320).then_some(code);
                let Some(conn) = self.strike(place, blame, false, outside) else { return Ok(()) };
                outside.ctx.oracle.causes.extend(blame);
                let (oracle, trace) = (&mut *outside.ctx.oracle, &mut *outside.ctx.trace);
                outside.broker.close(conn, code, oracle, trace)?;
                outside.ctx.cover.hit(match blame {
                    Some(_) => Path::BrokerClosedForCause,
                    None => Path::BrokerClosed,
                });
            }
            Fault::Refuse(on) => self.refusing = on,
            Fault::Alarm(on) => {
                let (oracle, trace) = (&mut *outside.ctx.oracle, &mut *outside.ctx.trace);
                outside.broker.alarm(on, oracle, trace)?;
            }
            Fault::Stall(place, stalled) => {
                if let Some(Some(session)) = self.sessions.get_mut(place) {
                    session.stalled = stalled;
                }
            }
        }
        Ok(())
    }

    fn mark_place(&mut self, place: Place, set: impl FnOnce(&mut super::Upstream)) {
        if let Some(Some(upstream)) = self.upstreams.get_mut(place) {
            set(upstream);
        }
    }

    /// An upstream connection is lost: finds out what this may cost whom.
    fn strike(
        &mut self,
        place: Place,
        blame: Option<u16>,
        lingers: bool,
        outside: &mut Outside<'_>,
    ) -> Option<ConnId> {
        let upstream = self.upstreams.get(place)?.as_ref()?;
        let conn = upstream.conn.filter(|_| upstream.loss.is_none())?;
        let ctx = &mut outside.ctx;
        let again = outside.clients.iter().any(|client| client.has_faced_loss());
        ctx.cover.hit(Path::Lost);
        if again {
            ctx.cover.hit(Path::LostAgain);
        }
        ctx.oracle.losses += 1;
        let tags = outside.broker.tap.consumer_tags(conn);
        ctx.oracle.orphan_tags.extend(tags.iter().cloned());
        let expected = ctx.scenario.misfortune.map_or(Expected::Closes, |m| m.expected);
        let loss = Loss {
            conn,
            cut: outside.broker.cut_content(conn, ctx.oracle),
            lane: outside.broker.tap.is_lane(conn),
            lingers,
            tags,
            blame,
            alarm: outside.broker.alarmed_at(ctx.now),
            expected,
        };
        outside.broker.tap.breaks(conn);
        outside.ctx.oracle.loosen_the_gone();
        self.assess(&loss, outside);
        self.mark_place(place, |u| u.loss = Some(loss));
        Some(conn)
    }

    /// Before the engine hears of a loss: what has come under way since it happened may be lost as well.
    pub(super) fn assess_again(&mut self, place: Place, outside: &mut Outside<'_>) {
        let Some(upstream) = &mut self.upstreams[place] else { return };
        let Some(loss) = &mut upstream.loss else { return };
        loss.cut = outside.broker.cut_content(loss.conn, outside.ctx.oracle).or(loss.cut);
        loss.lane |= outside.broker.tap.is_lane(loss.conn);
        loss.tags.extend(outside.broker.tap.consumer_tags(loss.conn));
        let loss = loss.clone();
        self.assess(&loss, outside);
    }

    fn assess(&self, loss: &Loss, outside: &mut Outside<'_>) {
        for (place, client) in outside.clients.iter_mut().enumerate() {
            // One that is on its way to another worker has no channels yet.
            let delivered = self.sessions.get(place).and_then(Option::as_ref).map_or(0, |s| s.delivered);
            client.assess(loss, delivered, &mut outside.ctx);
        }
    }
}
