//! Publishing: to queues that stay, to its own, to nowhere, and requests and replies.

use warren_wire::content::{write_body, write_header};
use warren_wire::frame::FRAME_OVERHEAD;
use warren_wire::method::basic;
use warren_wire::{BasicProperties, Method};

use super::channel::{Channel, Mark, Mode, Unit};
use super::{Ctx, Me};
use crate::cover::Path;
use crate::oracle::message::{Fate, MsgId, body};
use crate::oracle::{Kind, QueueIx};
use crate::rng::Rng;
use crate::scenario::{DIRECT, FAN, REPLY_TO};

/// Where a publish goes and what it carries.
#[derive(Debug, Default)]
pub struct Publish<'a> {
    /// Exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub key: &'a [u8],
    /// Return it if it goes nowhere.
    pub mandatory: bool,
    /// Queues it goes to.
    pub targets: Vec<QueueIx>,
    /// Property of this name.
    pub reply_to: Option<&'a [u8]>,
    /// Property of this name.
    pub user_id: Option<&'a [u8]>,
    /// Where the answer comes to.
    pub reply_queue: Option<QueueIx>,
    /// The error it commits.
    pub offence: Option<&'static [u16]>,
}

impl Channel {
    /// Publishes one message, in as many frames as chance wants.
    pub fn publish(&mut self, publish: &Publish<'_>, me: Me, ctx: &mut Ctx<'_>) -> MsgId {
        let flood = ctx.scenario.flood && ctx.rng.chance(1, 2);
        let size =
            if flood { ctx.rng.between(100_000, 280_000) as usize } else { draw_size(me.frame_max, ctx.rng) };
        let id = ctx.oracle.add_message(self.chan, size, publish.exchange, publish.key);
        let nowhere = publish.targets.is_empty() && publish.offence.is_none() && publish.mandatory;
        ctx.oracle.messages[id].targets = publish.targets.clone();
        ctx.oracle.messages[id].reply_queue = publish.reply_queue;
        self.write_publish(publish, id, size, me, ctx);
        ctx.cover.hit(match size {
            0 => Path::PublishedEmpty,
            20_000.. => Path::PublishedLarge,
            _ => Path::Published,
        });
        self.cover_purpose(1, ctx);
        if self.doomed {
            ctx.cover.hit(Path::SentAfterError);
        }
        if self.doomed || publish.offence.is_some() {
            ctx.oracle.messages[id].fate = Fate::Never;
        } else {
            self.record(id, nowhere, ctx);
        }
        if let (Some(codes), false) = (publish.offence, self.doomed) {
            self.expect.push_back(super::replies::Expect::Error { codes, method: basic::PUBLISH });
            self.doomed = true;
            ctx.oracle.chans[self.chan].may_be_spared = self.mode == Mode::Confirm;
        }
        id
    }

    /// What a good publish makes due.
    fn record(&mut self, id: MsgId, nowhere: bool, ctx: &mut Ctx<'_>) {
        match self.mode {
            Mode::Tx => self.tx_publishes.push((id, nowhere)),
            Mode::Plain => {
                ctx.oracle.expect_arrival(self.chan, id);
                self.plain_before = true;
            }
            Mode::Confirm => {
                ctx.oracle.expect_arrival(self.chan, id);
                self.unconfirmed.insert(self.confirm_next, id);
                self.confirm_next += 1;
            }
        }
        if self.mode != Mode::Tx && self.may_be_ignored(ctx) {
            let losses = ctx.oracle.losses;
            ctx.oracle.messages[id].loose.get_or_insert(losses);
            self.ignored |= self.mode == Mode::Plain;
        }
        if nowhere && self.mode != Mode::Tx {
            self.returns_due.push_back(id);
        }
    }

    fn write_publish(&mut self, publish: &Publish<'_>, id: MsgId, size: usize, me: Me, ctx: &mut Ctx<'_>) {
        let method = Method::BasicPublish(basic::Publish {
            exchange: publish.exchange,
            routing_key: publish.key,
            mandatory: publish.mandatory,
            immediate: false,
        });
        let name = id.to_string();
        let properties = BasicProperties {
            message_id: Some(name.as_bytes()),
            reply_to: publish.reply_to,
            user_id: publish.user_id,
            delivery_mode: ctx.rng.chance(1, 2).then_some(2),
            ..BasicProperties::default()
        };
        let body = body(id, size);
        let most = me.frame_max as usize - FRAME_OVERHEAD;
        let most = if ctx.rng.chance(1, 6) { (1 + size / 3).clamp(1, most) } else { most };
        let mut frames: Vec<Vec<u8>> = Vec::with_capacity(2);
        let mut frame = Vec::new();
        method.write(self.number, &mut frame);
        frames.push(std::mem::take(&mut frame));
        write_header(self.number, size as u64, &properties, &mut frame);
        frames.push(std::mem::take(&mut frame));
        for part in body.chunks(most) {
            write_body(self.number, part, &mut frame);
            frames.push(std::mem::take(&mut frame));
        }
        // In a transaction it counts when the commit is written.
        let counts = !self.doomed && publish.offence.is_none() && self.mode != Mode::Tx;
        let seal = Mark::Seal { sealed: usize::from(counts), settles: 0 };
        if ctx.rng.chance(1, 2) {
            self.outgoing.push_back(Unit { bytes: frames.concat(), mark: seal });
            return;
        }
        let last = frames.len() - 1;
        for (at, bytes) in frames.into_iter().enumerate() {
            let mark = if at == last { seal } else { Mark::ContentPart };
            self.outgoing.push_back(Unit { bytes, mark });
        }
    }

    /// To a queue that stays, by its name or by a binding.
    pub fn publish_stable(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, Kind::Stable).collect();
        let queue = *ctx.rng.pick(&queues);
        let key = ctx.oracle.queues[queue].name.clone();
        let user = ctx.scenario.users[me.user].clone();
        let publish = Publish {
            exchange: if ctx.rng.chance(1, 2) { b"" } else { DIRECT },
            key: &key,
            mandatory: ctx.rng.chance(1, 5),
            targets: vec![queue],
            user_id: ctx.rng.chance(1, 10).then_some(user.as_bytes()),
            ..Publish::default()
        };
        self.publish(&publish, me, ctx);
    }

    /// To all fan queues at once.
    pub fn publish_fan(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let targets = ctx.oracle.queues_of(me.vhost, Kind::Fan).collect();
        let publish = Publish { exchange: FAN, key: b"any", targets, ..Publish::default() };
        self.publish(&publish, me, ctx);
    }

    /// To no queue, to be returned as often as not.
    pub fn publish_nowhere(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let publish = Publish {
            exchange: if ctx.rng.chance(1, 2) { b"" } else { DIRECT },
            key: b"nowhere",
            mandatory: ctx.rng.chance(2, 3),
            ..Publish::default()
        };
        self.publish(&publish, me, ctx);
    }

    /// To its own queue. False when it has none that it can name.
    pub fn publish_own(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let Some(own) = &self.own else { return false };
        let queue = own.queue;
        let name = ctx.oracle.queues[queue].name.clone();
        let by_name = own.named && !name.is_empty();
        let (exchange, key): (&[u8], Vec<u8>) = match &own.bound {
            Some(key) if !by_name || ctx.rng.chance(1, 2) => (DIRECT, key.clone()),
            _ if by_name => (b"", name),
            _ => return false,
        };
        let publish = Publish {
            exchange,
            key: &key,
            mandatory: ctx.rng.chance(1, 4),
            targets: vec![queue],
            ..Publish::default()
        };
        let doomed = self.doomed;
        let id = self.publish(&publish, me, ctx);
        let certain = self.mode != Mode::Tx && !self.may_be_ignored(ctx);
        if let Some(own) = self.own.as_mut().filter(|_| !doomed) {
            match &mut own.content {
                Some(content) if certain => content.push_back(id),
                // What a transaction holds is not there yet: from now on nobody knows.
                content => *content = None,
            }
        }
        true
    }

    /// A request for a responder. False when nobody here listens for replies.
    pub fn request_reply(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let Some(reply_queue) = self.reply_queue else { return false };
        let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, Kind::Stable).collect();
        let queue = queues[0];
        let key = ctx.oracle.queues[queue].name.clone();
        let reply_name = ctx.oracle.queues[reply_queue].name.clone();
        let reply_to: &[u8] = if reply_name.is_empty() { REPLY_TO } else { &reply_name };
        let publish = Publish {
            key: &key,
            targets: vec![queue],
            reply_to: Some(reply_to),
            reply_queue: Some(reply_queue),
            ..Publish::default()
        };
        ctx.cover.hit(Path::Request);
        self.publish(&publish, me, ctx);
        true
    }

    /// A reply that is owed. False when there is none.
    pub fn reply(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let Some((address, queue)) = self.owed.pop_front() else { return false };
        let publish = Publish { key: &address, targets: vec![queue], ..Publish::default() };
        self.publish(&publish, me, ctx);
        true
    }

    /// Which purposes the channel has had, and in which order: 0 control, 1 publish, 2 consume.
    pub fn cover_purpose(&mut self, purpose: usize, ctx: &mut Ctx<'_>) {
        if self.did[purpose] {
            return;
        }
        match (purpose, self.did) {
            (1, [_, _, true]) => ctx.cover.hit(Path::ConsumeThenPublish),
            (2, [_, true, _]) => ctx.cover.hit(Path::PublishThenConsume),
            (1, [true, _, _]) => ctx.cover.hit(Path::ControlThenPublish),
            _ => {}
        }
        self.did[purpose] = true;
    }
}

/// Mostly small; sometimes about a frame, sometimes many frames.
fn draw_size(frame_max: u32, rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..=4 => 0,
        5..=69 => rng.between(1, 80) as usize,
        70..=88 => rng.between(100, 2000) as usize,
        89..=94 => frame_max.min(9000) as usize - FRAME_OVERHEAD - 2 + rng.below(5),
        95..=98 => rng.between(8000, 30_000) as usize,
        _ => rng.between(100_000, 280_000) as usize,
    }
}
