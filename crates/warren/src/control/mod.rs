//! The control thread: the main thread, once the workers run. It serves HTTP ([`http`]), adds up what the workers
//! have counted ([`metrics`]), asks backends whether they work ([`backends`]), and ends the process in good order.

mod admitted;
pub(crate) mod backends;
mod http;
mod metrics;

use std::future::poll_fn;
use std::net::TcpListener;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::admission::Admission;
use crate::setup::Stopping;
use crate::signals::{self, Signals};
use crate::tls::Watch;
use crate::worker;
use crate::worker::mailbox::{Mailbox, Message};
use backends::Backends;
use metrics::Counts;

/// How often to look whether clients are left, while they are waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often to look whether files have changed. What has changed is read when it was left alone for so long.
const LOOK_AT_FILES: Duration = Duration::from_millis(500);
/// What clients are told when the process ends, with the code 320.
const STOPPING: &str = "Warren is being stopped";

/// The runtime of the control thread.
pub(crate) struct Control {
    runtime: Runtime,
    signals: Signals,
    hang_up: Signal,
}

impl Control {
    /// Takes over the signals: to be done before the ports open, since whoever sees them open may already ask for
    /// an orderly end.
    pub(crate) fn new() -> anyhow::Result<Control> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let inside = runtime.enter();
        let signals = Signals::new().context("cannot take over SIGTERM and SIGINT")?;
        let hang_up = signals::hang_up().context("cannot take over SIGHUP")?;
        drop(inside);
        Ok(Control { runtime, signals, hang_up })
    }

    /// Where what the control thread does runs.
    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Runs until a signal or the loss of a worker ends the process; returns its status.
    pub(crate) fn run(
        self,
        http: Vec<TcpListener>,
        workers: Vec<worker::Handle>,
        backends: Backends,
        admission: Arc<Admission>,
        watches: Vec<Arc<dyn Watch>>,
        stopping: Stopping,
    ) -> anyhow::Result<ExitCode> {
        self.runtime.spawn(watch(watches.into(), self.hang_up));
        let control = control(self.signals, http, workers, backends, admission, stopping);
        // A local set: connections of health checks are not made for several threads.
        let code = LocalSet::new().block_on(&self.runtime, control);
        self.runtime.shutdown_background();
        code
    }
}

async fn control(
    mut signals: Signals,
    http: Vec<TcpListener>,
    workers: Vec<worker::Handle>,
    backends: Backends,
    admission: Arc<Admission>,
    stopping: Stopping,
) -> anyhow::Result<ExitCode> {
    let mailboxes: Vec<Mailbox> = workers.iter().map(|worker| worker.mailbox.clone()).collect();
    backends.start_checks();
    let counts = Arc::new(Counts::new(mailboxes.clone(), backends, admission));
    let draining = Arc::new(AtomicBool::new(false));
    http::start(http, &counts, &draining).context("metrics cannot be served")?;
    let mut ends: Vec<_> = workers.into_iter().map(|worker| worker.ended).collect();
    tokio::select! {
        signal = signals.next() => tracing::info!("{signal}: no client is accepted any more"),
        () = any(&mut ends) => anyhow::bail!("a worker has ended by itself"),
    }
    draining.store(true, Ordering::Relaxed);
    mailboxes.iter().for_each(|mailbox| mailbox.send(Message::StopAccepting));
    tokio::select! {
        code = stop(&mailboxes, &counts, ends, stopping) => Ok(code),
        signal = signals.next() => {
            tracing::warn!("{signal} again: connections that are still open are cut off");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Has files looked at every now and then, and at once on SIGHUP. A disk may take its time: others do not wait for it.
async fn watch(watches: Arc<[Arc<dyn Watch>]>, mut hang_up: Signal) {
    loop {
        let at_once = tokio::select! {
            () = sleep(LOOK_AT_FILES), if !watches.is_empty() => false,
            Some(()) = hang_up.recv() => true,
        };
        if at_once {
            tracing::info!("SIGHUP: looking at the files of TLS");
        }
        let watches = Arc::clone(&watches);
        let look = move || watches.iter().for_each(|watch| watch.look(at_once));
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

/// Waits for the clients, sends them Close, waits again; returns the status of the process.
async fn stop(
    mailboxes: &[Mailbox],
    counts: &Counts,
    ends: Vec<oneshot::Receiver<()>>,
    stopping: Stopping,
) -> ExitCode {
    if timeout(stopping.before_close, no_clients(counts)).await.is_err() {
        tracing::info!("telling the clients that are left to close");
    }
    mailboxes.iter().for_each(|mailbox| mailbox.send(Message::Stop(STOPPING.into())));
    let orderly = match stopping.after_close {
        Some(limit) => timeout(limit, all(ends)).await,
        None => Ok(all(ends).await),
    };
    match orderly {
        Ok(true) => {
            tracing::info!("everything is closed");
            return ExitCode::SUCCESS;
        }
        Ok(false) => tracing::error!("a worker has failed; its connections are cut off"),
        Err(_) => tracing::warn!("some connections did not close in time and are cut off"),
    }
    ExitCode::FAILURE
}

/// Completes when there is no client any more.
async fn no_clients(counts: &Counts) {
    while counts.total().await.client_connections > 0 {
        sleep(LOOK_AGAIN).await;
    }
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
