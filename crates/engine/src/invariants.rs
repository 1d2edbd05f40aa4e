//! What must always hold, checked by the tests and by the simulation after every step.

use crate::channel::{Claim, ConsumerState, Content, Standing, Switch};
use crate::dedicated::Dedicated;
use crate::engine::Engine;
use crate::ids::SessionId;
use crate::session::{Phase, Session};
use crate::upstream::{Incoming, Pending, Purpose, Stage};

impl Engine {
    /// Asserts everything that must always hold. Called by tests and by the simulation after every step.
    ///
    /// # Panics
    /// When something does not hold: a bug in the engine.
    pub fn check_invariants(&self) {
        assert!(self.pieces.is_empty(), "runs were left behind");
        assert!(self.replays.is_empty(), "held frames were left behind");
        self.check_memory();
        self.check_sessions();
        self.check_channels();
        self.check_up_channels();
        self.check_upstreams();
        self.check_tenants();
    }

    fn check_memory(&self) {
        let held: usize = self.channels.values().map(|c| c.held.len()).sum();
        assert_eq!(self.budget.held(), held, "octets of held frames that are not counted");
        let of = |claim: Claim| self.channels.iter().filter(move |(_, c)| c.claim == claim);
        self.budget.check(
            of(Claim::Small).map(|(_, c)| c.announced).sum(),
            of(Claim::Reserved).map(|(_, c)| c.announced).sum(),
            of(Claim::Waiting).map(|(id, _)| id).collect(),
        );
        for (id, session) in self.sessions.iter() {
            let waits = session.channels.ids().iter().any(|c| self.channels[*c].claim == Claim::Waiting);
            let ends = matches!(session.phase, Phase::CloseSent | Phase::Ended | Phase::Gone);
            assert!(session.awaits_memory == waits || ends, "{id:?} waits for memory and asked for none");
        }
    }

    fn check_sessions(&self) {
        let knocking = self.sessions.values().filter(|s| s.knocks).count();
        assert_eq!(self.handshakes, knocking, "handshakes that nobody makes");
        let outside = |s: &Session| match &s.dedicated {
            Some(dedicated) => dedicated.opening.is_some(),
            None => s.tenant.is_none(),
        };
        assert!(self.sessions.values().all(|s| s.knocks == outside(s)), "who has a tenant or a broker is in");
        for (id, session) in self.sessions.iter() {
            for channel in session.channels.ids() {
                assert_eq!(self.channels[channel].session, id, "a channel of another session");
            }
            let announced: u64 = session.channels.ids().iter().map(|c| self.channels[*c].announced).sum();
            assert_eq!(session.announced, announced, "octets that are announced by nobody");
            let counted = session.channels.ids().iter().filter(|c| self.channels[**c].counts).count();
            let pass = session.pass.as_ref();
            let exact = |channels| session.dedicated.is_some() || channels == counted as u64;
            assert!(pass.is_none_or(|p| exact(p.channels())), "channels that count for nothing");
            if let Some(lane) = session.lane {
                assert_eq!(self.upstreams[lane].session, Some(id), "a lane of another session");
            }
            if let Some(up) = session.stalled_on {
                assert!(self.upstreams[up].stalled.contains(&id), "a session stalls where nobody wakes it");
            }
            if session.phase == Phase::Ended {
                assert!(session.channels.is_empty(), "an ended session has channels");
            }
            if let Some(dedicated) = &session.dedicated {
                self.check_dedicated(id, session, dedicated);
            }
        }
    }

    fn check_dedicated(&self, id: SessionId, session: &Session, dedicated: &Dedicated) {
        assert!(
            session.channels.is_empty() && session.tenant.is_none(),
            "a dedicated session shares something"
        );
        assert!(session.login.is_none() || session.knocks, "a dedicated session has a login of its farm");
        if session.relays() {
            let up = session.lane.expect("a dedicated session that runs has an upstream connection");
            assert_eq!(self.upstreams[up].stage, Stage::Ready, "a dedicated session runs without its broker");
        }
        if session.relays() && dedicated.farewell.is_some() {
            assert!(self.is_within_frame(id), "a last word waits for the end of no frame");
            assert!(session.deadline.is_some(), "a last word may wait for ever");
        }
        if session.phase == Phase::Leaving {
            assert!(session.deadline.is_some(), "the end of a dedicated session may take for ever");
        }
    }

    fn check_channels(&self) {
        for (id, channel) in self.channels.iter() {
            assert!(self.sessions.contains_key(channel.session), "a channel without session");
            for up in channel.bindings() {
                assert_eq!(self.up_channels[up].owner, Some(id), "a binding that belongs to another channel");
            }
            if channel.standing == Standing::Closing {
                assert!(!channel.older.is_empty(), "a close that nobody answers");
                for up in &channel.older {
                    let state = &self.up_channels[*up];
                    let proves = state.pending.iter().any(|p| matches!(p, Pending::Barrier));
                    let ends = state.closing || proves || state.incoming != Incoming::None;
                    assert!(
                        ends,
                        "a close that waits for nothing: {:?}, unproven {}, unconfirmed {}",
                        state.pending,
                        state.unproven,
                        state.unconfirmed.len()
                    );
                }
            }
            for consumer in &channel.consumers {
                let waits = consumer.state == ConsumerState::Settling || !channel.again.is_empty();
                let there = self.up_channels.contains_key(consumer.up);
                assert!(there || waits, "a consumer on a binding that is gone");
            }
            if let Some(up) = channel.speaking {
                assert_eq!(
                    self.up_channels[up].owner,
                    Some(id),
                    "a binding speaks on a channel that left it"
                );
            }
            if channel.assembly.is_none() && channel.standing == Standing::Open {
                assert_eq!(channel.content, Content::None, "a content without its frames");
            }
            if matches!(channel.switch, Switch::Binding { .. }) {
                assert!(channel.current.is_none(), "a bound channel waits for a binding");
                let waits = self.channel_node(id).is_some_and(|n| self.node(n).waiting.contains(&id));
                assert!(waits, "a channel waits where nobody serves it");
            }
        }
    }

    fn check_up_channels(&self) {
        for (id, state) in self.up_channels.iter() {
            let upstream = &self.upstreams[state.upstream];
            assert_eq!(upstream.numbers.get(state.number), Some(id), "a channel without its number");
            let idle = upstream.idle_plain.contains(&id) || upstream.idle_confirm.contains(&id);
            assert_eq!(idle, state.idle, "an idle channel that is not where idle ones are");
            if state.idle {
                assert!(state.owner.is_none(), "an idle channel has an owner");
                assert!(state.is_proven() && !state.dirty, "an idle channel is not clean");
                assert!(state.unacked.is_empty(), "an idle channel has deliveries to settle");
            }
            if let Some(owner) = state.owner.and_then(|o| self.channels.get(o)) {
                assert!(owner.bindings().contains(&id), "an owner that does not know its binding");
            }
        }
    }

    fn check_upstreams(&self) {
        for (id, upstream) in self.upstreams.iter() {
            if upstream.stage == Stage::Ended {
                assert!(
                    !self.up_channels.values().any(|u| u.upstream == id),
                    "channels outlive their connection"
                );
                continue;
            }
            for up in upstream.numbers.all() {
                assert_eq!(self.up_channels[up].upstream, id, "a number of another connection");
            }
            let held = self.sessions.values().any(|s| s.holds_back.contains(&id));
            assert_eq!(upstream.held_back, held, "an upstream is held back and nobody lets it go");
            if upstream.purpose == Purpose::Lane {
                assert!(upstream.session.is_some(), "a lane of nobody");
            }
            if upstream.purpose == Purpose::Dedicated {
                let of = upstream.session.and_then(|s| self.sessions.get(s));
                let ends = matches!(upstream.stage, Stage::Closing | Stage::Ended);
                assert!(
                    ends || of.is_some_and(|s| s.lane == Some(id)),
                    "a broker waits for a session that left"
                );
                assert_eq!(upstream.numbers.len(), 0, "Warren has channels on a dedicated connection");
                assert!(
                    upstream.tenant.is_none() && upstream.login.is_none(),
                    "a pool has a dedicated connection"
                );
            }
            let whole = matches!(upstream.purpose, Purpose::Dedicated) || upstream.lacks == 0;
            assert!(whole, "a part of a frame was passed on in shared mode");
        }
    }

    fn check_tenants(&self) {
        assert!(self.freed.is_empty(), "a farm may be asked more and nobody does");
        assert!(self.deserted.is_empty(), "sessions stay where they cannot");
        for (farm, state) in self.farms.iter().enumerate() {
            let inquiring = self.upstreams.values().filter(|u| u.inquires && u.farm == farm).count();
            assert_eq!(state.inquiring, inquiring + state.refusals, "inquiries that nobody makes");
            let waits = !(state.inquiries.is_empty() && state.inquiries_known.is_empty());
            assert!(!waits || state.inquiring > 0, "inquiries that wait for nothing");
            let dialled = self.upstreams.values().filter(|u| u.dialled && u.farm == farm).count();
            assert_eq!(state.dialling, dialled, "connections that nobody makes");
            assert!(state.dials.is_empty() || dialled > 0, "those who want a connection wait for nothing");
        }
        for tenant in self.tenants.values() {
            assert!(self.logins.contains_key(tenant.login), "a tenant without login");
            for (backend, node) in &tenant.nodes {
                for up in &node.upstreams {
                    let there = self.upstreams.get(*up).is_some_and(|u| u.backend == *backend);
                    assert!(there, "a pool counts a connection that is gone, or elsewhere");
                }
            }
        }
    }
}
