//! What the workers share of the edge: how clients come in, and how brokers are reached. Made once of a setup, before
//! anything runs: what is wrong with the files that it names is the operator's to know.

use std::ops::Range;
use std::sync::Arc;

use crate::connect::Connector;
use crate::setup::{Listening, Reach, Setup};
use crate::tls::Watch;
use crate::worker::entrance::Entrance;

/// See the module.
#[derive(Clone)]
pub(crate) struct Edge {
    /// One for each listener of the configuration.
    pub(crate) entrances: Arc<[Entrance]>,
    /// One for each backend of the configuration.
    pub(crate) connectors: Arc<[Connector]>,
}

/// Something wrong with the files of a listener or a backend.
#[derive(Debug)]
pub(crate) struct Fault {
    /// Such as `listener secure`.
    pub(crate) whose: String,
    /// Where the configuration file names them.
    pub(crate) said_at: Option<Range<usize>>,
    /// What is wrong, for people.
    pub(crate) text: String,
}

impl Edge {
    /// Reads all files. Everything that is wrong is found, not only the first.
    pub(crate) fn new(setup: &Setup) -> Result<Edge, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut entrances = Vec::new();
        for (name, listening) in listeners(setup) {
            match Entrance::new(name, listening) {
                Ok(entrance) => entrances.push(entrance),
                Err(text) => faults.push(of_listener(name, listening, text)),
            }
        }
        let limit = setup.engine.limits.connect_timeout;
        let mut connectors = Vec::new();
        for (name, reach) in backends(setup) {
            match Connector::new(name, reach, limit) {
                Ok(connector) => connectors.push(connector),
                Err(text) => faults.push(of_backend(name, reach, text)),
            }
        }
        match faults.is_empty() {
            true => Ok(Edge { entrances: entrances.into(), connectors: connectors.into() }),
            false => Err(faults),
        }
    }

    /// What is wrong with files although they can be used: certificates that have expired.
    pub(crate) fn stale(&self, setup: &Setup) -> Vec<Fault> {
        let entrances = self.entrances.iter().map(|e| e.tls.as_ref().and_then(|tls| tls.warning()));
        let entrances = listeners(setup).zip(entrances).filter_map(|((name, listening), warning)| {
            Some(of_listener(name, listening, warning?.to_owned()))
        });
        let connectors = self.connectors.iter().map(|c| c.tls.as_ref().and_then(|tls| tls.warning()));
        let connectors = backends(setup)
            .zip(connectors)
            .filter_map(|((name, reach), warning)| Some(of_backend(name, reach, warning?.to_owned())));
        entrances.chain(connectors).collect()
    }

    /// Tells the log what is not as it should be, although Warren can start with it.
    pub(crate) fn warn(&self, setup: &Setup) {
        for Fault { whose, text, .. } in self.stale(setup) {
            tracing::warn!("{whose}: {text}");
        }
        for ((name, _), connector) in backends(setup).zip(&*self.connectors) {
            if connector.tls.as_ref().is_some_and(|tls| tls.trusts_anybody()) {
                tracing::warn!(
                    "backend {name}: verify = \"none\": whoever is on the way to it can read and change everything"
                );
            }
        }
    }

    /// What has to look at its files now and then.
    pub(crate) fn watches(&self) -> Vec<Arc<dyn Watch>> {
        let entrances = self.entrances.iter().filter_map(|e| e.tls.as_ref()).map(|tls| tls.watch());
        let connectors = self.connectors.iter().filter_map(|c| c.tls.as_ref()).map(|tls| tls.watch());
        entrances.chain(connectors).collect()
    }
}

fn listeners(setup: &Setup) -> impl Iterator<Item = (&str, &Listening)> {
    setup.engine.listeners.iter().map(|l| l.name.as_str()).zip(&setup.listeners)
}

fn backends(setup: &Setup) -> impl Iterator<Item = (&str, &Reach)> {
    setup.engine.backends.iter().map(|b| b.name.as_str()).zip(&setup.backends)
}

fn of_listener(name: &str, listening: &Listening, text: String) -> Fault {
    let said_at = listening.tls.as_ref().and_then(|tls| tls.said_at.clone());
    Fault { whose: format!("listener {name}"), said_at, text }
}

fn of_backend(name: &str, reach: &Reach, text: String) -> Fault {
    let said_at = reach.tls.as_ref().and_then(|tls| tls.said_at.clone());
    Fault { whose: format!("backend {name}"), said_at, text }
}
