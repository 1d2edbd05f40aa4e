//! The control thread: the main thread, once the workers run. It serves HTTP ([`http`]), adds up what the workers
//! have counted ([`metrics`]), and ends the process in good order.

mod http;
mod metrics;

use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::signals::Signals;
use crate::worker::Handle;
use crate::worker::mailbox::{Mailbox, Message};
use metrics::Counts;

/// How long clients and brokers may take to close when the process is asked to end. Service managers commonly
/// wait 30 s or more before they kill.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// What clients are told then, with the code 320.
const STOPPING: &str = "Warren is being stopped";

/// The runtime of the control thread.
pub(crate) struct Control {
    runtime: Runtime,
    signals: Signals,
}

impl Control {
    /// Takes over the signals: to be done before the ports open, since whoever sees them open may already ask for
    /// an orderly end.
    pub(crate) fn new() -> anyhow::Result<Control> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let inside = runtime.enter();
        let signals = Signals::new().context("cannot take over SIGTERM and SIGINT")?;
        drop(inside);
        Ok(Control { runtime, signals })
    }

    /// Runs until a signal or the loss of a worker ends the process; returns its status.
    pub(crate) fn run(self, http: Vec<TcpListener>, workers: Vec<Handle>) -> anyhow::Result<ExitCode> {
        let code = self.runtime.block_on(control(self.signals, http, workers));
        self.runtime.shutdown_background();
        code
    }
}

async fn control(
    mut signals: Signals,
    http: Vec<TcpListener>,
    workers: Vec<Handle>,
) -> anyhow::Result<ExitCode> {
    let mailboxes: Vec<Mailbox> = workers.iter().map(|worker| worker.mailbox.clone()).collect();
    http::start(http, &Arc::new(Counts::new(mailboxes.clone()))).context("metrics cannot be served")?;
    let mut ends: Vec<_> = workers.into_iter().map(|worker| worker.ended).collect();
    tokio::select! {
        signal = signals.next() => tracing::info!("{signal}: telling clients and closing connections"),
        () = any(&mut ends) => anyhow::bail!("a worker has ended by itself"),
    }
    for mailbox in &mailboxes {
        mailbox.send(Message::Stop(STOPPING.into()));
    }
    Ok(tokio::select! {
        orderly = all(ends) => match orderly {
            true => {
                tracing::info!("everything is closed");
                ExitCode::SUCCESS
            }
            false => {
                tracing::error!("a worker has failed; its connections are cut off");
                ExitCode::FAILURE
            }
        },
        () = tokio::time::sleep(DRAIN_LIMIT) => {
            tracing::warn!("some connections did not close within {DRAIN_LIMIT:?} and are cut off");
            ExitCode::FAILURE
        }
        signal = signals.next() => {
            tracing::warn!("{signal} again: connections that are still open are cut off");
            ExitCode::FAILURE
        }
    })
}

/// Completes when one worker has ended.
async fn any(ends: &mut [oneshot::Receiver<()>]) {
    poll_fn(|cx| match ends.iter_mut().any(|end| pin!(end).poll(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Completes when all workers have ended; says whether all of them did so in good order.
async fn all(ends: Vec<oneshot::Receiver<()>>) -> bool {
    let mut orderly = true;
    for end in ends {
        orderly &= end.await.is_ok();
    }
    orderly
}
