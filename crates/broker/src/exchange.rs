//! Exchanges and the bindings that leave them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::{Core, ExchangeKey, QueueKey};
use crate::names::Name;
use crate::vhost::VhostId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub(crate) fn parse(name: &[u8]) -> Option<Kind> {
        Some(match name {
            b"direct" => Kind::Direct,
            b"fanout" => Kind::Fanout,
            b"topic" => Kind::Topic,
            b"headers" => Kind::Headers,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Fanout => "fanout",
            Kind::Topic => "topic",
            Kind::Headers => "headers",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) name: Name,
    pub(crate) vhost: VhostId,
    pub(crate) kind: Kind,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// Where messages go that this exchange routes nowhere.
    pub(crate) alternate: Option<Name>,
    /// By routing key, so that a direct exchange finds its own at once.
    pub(crate) bindings: BTreeMap<Box<[u8]>, Vec<Binding>>,
}

/// The end of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Queue(QueueKey),
    Exchange(ExchangeKey),
}

#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) target: Target,
    /// Arguments as they came: two bindings are one when target, key and these are equal.
    pub(crate) arguments: Arc<[u8]>,
}

impl Exchange {
    pub(crate) fn new(name: Name, vhost: VhostId, kind: Kind) -> Self {
        Exchange {
            name,
            vhost,
            kind,
            durable: false,
            auto_delete: false,
            internal: false,
            alternate: None,
            bindings: BTreeMap::new(),
        }
    }

    pub(crate) fn bind(&mut self, key: &[u8], target: Target, arguments: &[u8]) {
        let bindings = self.bindings.entry(key.into()).or_default();
        if !bindings.iter().any(|b| b.target == target && *b.arguments == *arguments) {
            bindings.push(Binding { target, arguments: arguments.into() });
        }
    }

    /// Whether there was such a binding.
    pub(crate) fn unbind(&mut self, key: &[u8], target: Target, arguments: &[u8]) -> bool {
        let Some(bindings) = self.bindings.get_mut(key) else {
            return false;
        };
        let before = bindings.len();
        bindings.retain(|b| b.target != target || *b.arguments != *arguments);
        let removed = bindings.len() < before;
        if bindings.is_empty() {
            self.bindings.remove(key);
        }
        removed
    }

    pub(crate) fn has_binding(&self, key: &[u8], target: Target, arguments: &[u8]) -> bool {
        self.bindings
            .get(key)
            .is_some_and(|all| all.iter().any(|b| b.target == target && *b.arguments == *arguments))
    }

    /// Removes what leads to `target`; whether there was any.
    pub(crate) fn forget(&mut self, target: Target) -> bool {
        let mut removed = false;
        self.bindings.retain(|_, bindings| {
            let before = bindings.len();
            bindings.retain(|b| b.target != target);
            removed |= bindings.len() < before;
            !bindings.is_empty()
        });
        removed
    }
}

impl Core {
    pub(crate) fn add_exchange(&mut self, exchange: Exchange) -> ExchangeKey {
        let (vhost, name) = (exchange.vhost, exchange.name.clone());
        let key = self.exchanges.insert(exchange);
        self.vhosts[vhost].exchanges.insert(name, key);
        key
    }

    pub(crate) fn find_exchange(&self, vhost: VhostId, name: &[u8]) -> Option<ExchangeKey> {
        self.vhosts[vhost].exchanges.get(name).copied()
    }

    /// Deletes the exchange, the bindings from and to it, and auto-delete exchanges that lose their last binding so.
    pub(crate) fn delete_exchange(&mut self, key: ExchangeKey) {
        if let Some(exchange) = self.exchanges.remove(key) {
            self.vhosts[exchange.vhost].exchanges.remove(&exchange.name);
            self.forget_target(exchange.vhost, Target::Exchange(key));
        }
    }

    /// Removes every binding to `target` in the vhost, and exchanges that go with their last binding.
    pub(crate) fn forget_target(&mut self, vhost: VhostId, target: Target) {
        let mut done = Vec::new();
        for &key in self.vhosts[vhost].exchanges.values() {
            if let Some(exchange) = self.exchanges.get_mut(key)
                && exchange.forget(target)
                && exchange.auto_delete
                && exchange.bindings.is_empty()
            {
                done.push(key);
            }
        }
        for key in done {
            self.delete_exchange(key);
        }
    }
}
