//! Which node of its farm a session belongs to. All its bindings are there, so that what it does through one of them is
//! seen through the others at once. It comes to the one whose turn it is, and goes elsewhere only when it has lost all
//! its bindings and that node cannot be reached.

use std::collections::BTreeSet;

use crate::balance::For;
use crate::config::{BackendId, FarmId, Select};
use crate::dial;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, TenantId, UpstreamId};
use crate::session::Session;
use crate::tenant::{Node, NodeId};
use crate::upstream::Stage;

/// Turns that are kept for others. More sessions than that do not break off their handshakes between two that do not.
const MOST_TURNS: usize = 1024;

impl Engine {
    /// What a tenant has at a node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        static NOTHING: Node = Node::new();
        self.tenants[id.tenant].nodes.get(&id.backend).unwrap_or(&NOTHING)
    }

    /// The same, made if there is nothing yet.
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.tenants[id.tenant].nodes.entry(id.backend).or_default()
    }

    /// Where the session of a channel belongs.
    pub(crate) fn channel_node(&self, id: ChannelId) -> Option<NodeId> {
        let session = self.channels.get(id)?.session;
        self.sessions.get(session)?.place()
    }

    /// Where a connection is, for a tenant.
    pub(crate) fn upstream_node(&self, id: UpstreamId, tenant: TenantId) -> NodeId {
        NodeId { tenant, backend: self.upstreams[id].backend }
    }

    /// A session takes its turn at a farm, unless it has it already.
    pub(crate) fn take_turn(&mut self, id: SessionId, farm: FarmId) -> BackendId {
        if let Some((of, backend)) = self.sessions[id].turn {
            if of == farm {
                return backend;
            }
            self.return_turn(of, backend);
        }
        let backend = self.draw(farm);
        self.balance.enter(backend);
        self.sessions[id].turn = Some((farm, backend));
        backend
    }

    /// Whose turn it is. Turns of those who never came in go first.
    fn draw(&mut self, farm: FarmId) -> BackendId {
        while let Some(backend) = self.farms[farm].turns.pop() {
            if self.balance.is_best(farm, backend, self.now) {
                return backend;
            }
        }
        let next = self.balance.next(farm, For::Session, &[], self.now, &mut self.random);
        next.unwrap_or(self.config.farms[farm].backends[0])
    }

    fn return_turn(&mut self, farm: FarmId, backend: BackendId) {
        self.balance.leave(backend);
        let turns = &mut self.farms[farm].turns;
        if self.config.farms[farm].select == Select::RoundRobin && turns.len() < MOST_TURNS {
            turns.push(backend);
        }
    }

    /// The turn of the first of those who wait to hear what a farm's brokers say of themselves.
    pub(crate) fn turn_of_curious(&mut self, farm: FarmId) -> Option<BackendId> {
        let first = *self.farms[farm].curious.iter().find(|s| self.sessions.contains_key(**s))?;
        (self.only_farm(first) == Some(farm)).then(|| self.take_turn(first, farm))
    }

    /// A session is let in: it belongs to the node whose turn it was, or, if that one has failed meanwhile and has
    /// nothing that works, to another.
    pub(crate) fn settle_down(&mut self, id: SessionId, tenant: TenantId) {
        let farm = self.tenants[tenant].farm;
        let mut backend = self.take_turn(id, farm);
        if self.is_dead(NodeId { tenant, backend })
            && let Some(better) = self.better_than(farm, backend)
        {
            self.belongs_to(id, farm, better);
            backend = better;
        }
        let now = self.now;
        let node = self.node_mut(NodeId { tenant, backend });
        node.sessions += 1;
        node.last_used = now;
    }

    /// A session belongs to this member now, whoever's turn it was.
    pub(crate) fn belongs_to(&mut self, id: SessionId, farm: FarmId, backend: BackendId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if let Some((_, before)) = session.turn.replace((farm, backend)) {
            self.balance.leave(before);
        }
        self.balance.enter(backend);
    }

    /// A session is over.
    pub(crate) fn give_turn_back(&mut self, session: &Session) {
        let Some((farm, backend)) = session.turn else { return };
        let now = self.now;
        match session.place() {
            None if session.knocks => self.return_turn(farm, backend),
            None => self.balance.leave(backend),
            Some(place) => {
                self.balance.leave(backend);
                if let Some(node) =
                    self.tenants.get_mut(place.tenant).and_then(|t| t.nodes.get_mut(&place.backend))
                {
                    node.sessions -= 1;
                    node.last_used = now;
                }
            }
        }
    }

    /// Whether a member does not work, as far as anybody knows, and has no connection that works nevertheless.
    fn is_dead(&self, id: NodeId) -> bool {
        let farm = self.tenants[id.tenant].farm;
        let ready = |u: &UpstreamId| self.upstreams[*u].stage == Stage::Ready;
        self.has_choice(farm)
            && self.balance.is_out(farm, id.backend, self.now)
            && !self.node(id).upstreams.iter().any(ready)
    }

    /// Another member that can be tried now and is not known to be out.
    fn better_than(&mut self, farm: FarmId, backend: BackendId) -> Option<BackendId> {
        self.other_than(farm, backend).filter(|other| !self.balance.is_out(farm, *other, self.now))
    }

    /// Another member that can be tried now.
    fn other_than(&mut self, farm: FarmId, backend: BackendId) -> Option<BackendId> {
        let cannot = |b: &BackendId| *b == backend || self.is_paused(farm, *b);
        let but: Vec<BackendId> =
            self.config.farms[farm].backends.iter().copied().filter(|b| cannot(b)).collect();
        self.balance.next(farm, For::Move, &but, self.now, &mut self.random)
    }

    /// A channel is about to ask for a binding at a node that is known not to work: its session goes elsewhere first, if
    /// nothing holds it there.
    pub(crate) fn leave_dead_node(&mut self, id: ChannelId) {
        let Some(node) = self.channel_node(id) else { return };
        let (session, farm) = (self.channels[id].session, self.tenants[node.tenant].farm);
        if self.is_dead(node)
            && !self.is_held(session)
            && let Some(to) = self.better_than(farm, node.backend)
        {
            self.move_session(session, node, to);
        }
    }

    /// A node cannot be reached at the moment: whoever waits for something there looks elsewhere.
    pub(crate) fn leave_if_paused(&mut self, id: NodeId) {
        let farm = self.tenants[id.tenant].farm;
        let waits = !self.node(id).waiting.is_empty();
        if waits && self.has_choice(farm) && self.is_paused(farm, id.backend) {
            self.deserted.push((farm, id.backend));
        }
    }

    /// A member of a farm cannot be reached: sessions that wait for something there, and have nothing that still works,
    /// go to others.
    pub(crate) fn desert(&mut self, farm: FarmId, backend: BackendId) {
        let tenants = self.tenants.iter().filter(|(_, t)| t.farm == farm);
        let waits = |t: &crate::tenant::Tenant| t.nodes.get(&backend).is_some_and(|n| !n.waiting.is_empty());
        let nodes: Vec<NodeId> =
            tenants.filter(|(_, t)| waits(t)).map(|(tenant, _)| NodeId { tenant, backend }).collect();
        for node in nodes {
            let waiting = &self.node(node).waiting;
            let sessions: BTreeSet<SessionId> =
                waiting.iter().filter_map(|c| self.channels.get(*c)).map(|c| c.session).collect();
            let mut found = BTreeSet::new();
            for session in sessions.into_iter().filter(|s| !self.is_held(*s)).collect::<Vec<_>>() {
                let Some(to) = self.other_than(farm, backend) else { break };
                self.move_session(session, node, to);
                found.insert(to);
            }
            for backend in found {
                self.serve_node(NodeId { tenant: node.tenant, backend });
            }
        }
    }

    /// Whether something that still works ties a session to its node.
    fn is_held(&self, id: SessionId) -> bool {
        let session = &self.sessions[id];
        let ready = |lane: UpstreamId| self.upstreams.get(lane).is_some_and(|u| u.stage >= Stage::Ready);
        let bound =
            |c: &ChannelId| self.channels.get(*c).is_some_and(|c| c.current.is_some() || !c.older.is_empty());
        session.lane.is_some_and(ready) || session.channels.ids().iter().any(bound)
    }

    /// A session belongs to another node from now on.
    fn move_session(&mut self, id: SessionId, from: NodeId, to: BackendId) {
        let farm = self.tenants[from.tenant].farm;
        self.metrics.session_moves += 1;
        self.belongs_to(id, farm, to);
        if let Some(lane) = self.sessions[id].lane {
            self.close_upstream(lane, dial::IDLE, "its session has gone to another node");
        }
        self.change_node(id, from, NodeId { tenant: from.tenant, backend: to });
    }

    /// Takes what belongs to a session from one place to another.
    pub(crate) fn change_node(&mut self, id: SessionId, from: NodeId, to: NodeId) {
        let now = self.now;
        let channels = &self.channels;
        let moves = |c: &ChannelId| channels.get(*c).is_some_and(|c| c.session == id);
        let old = self.tenants[from.tenant].nodes.entry(from.backend).or_default();
        let (moved, stay) = std::mem::take(&mut old.waiting).into_iter().partition::<Vec<_>, _>(moves);
        old.waiting = stay.into();
        old.sessions -= 1;
        old.last_used = now;
        let new = self.node_mut(to);
        new.sessions += 1;
        new.last_used = now;
        for channel in moved {
            self.wait_in_turn(to, channel);
        }
    }
}
