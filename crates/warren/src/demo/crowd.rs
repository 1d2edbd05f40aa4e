//! Many short-lived clients, some at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::client::Client;

/// A client that takes longer than this will not be served.
const CLIENT_LIMIT: Duration = Duration::from_secs(15);
/// How often progress is told: often enough to seem alive.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Clients to come.
pub(super) struct Crowd<'a> {
    /// Where they connect to.
    pub(super) address: SocketAddr,
    /// Where their messages go.
    pub(super) queue: &'a str,
    /// How many come altogether.
    pub(super) clients: usize,
    /// How many are there at a time.
    pub(super) at_once: usize,
    /// None comes any more after this time.
    pub(super) longest: Duration,
}

/// How clients were served.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// How many.
    pub(super) clients: usize,
    /// All of them together.
    pub(super) took: Duration,
    /// One of them, from its connect until it knows that its message has arrived and has said goodbye.
    pub(super) median: Duration,
}

/// What the clients share.
struct Tally {
    address: SocketAddr,
    queue: String,
    end: Instant,
    left: AtomicUsize,
    done: AtomicUsize,
}

impl Crowd<'_> {
    /// Has them all come; `tell` hears how many have gone. The first that fails is the end.
    pub(super) async fn serve(&self, mut tell: impl FnMut(usize)) -> anyhow::Result<Served> {
        let start = Instant::now();
        let tally = Arc::new(Tally {
            address: self.address,
            queue: self.queue.to_owned(),
            end: start + self.longest,
            left: AtomicUsize::new(self.clients),
            done: AtomicUsize::new(0),
        });
        let mut places = JoinSet::new();
        for _ in 0..self.at_once {
            places.spawn(one_after_another(Arc::clone(&tally)));
        }
        let mut times = Vec::with_capacity(self.clients);
        let mut tick = interval(TELL_EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => tell(tally.done.load(Ordering::Relaxed)),
                ended = places.join_next() => match ended {
                    Some(served) => times.extend(served??),
                    None => break,
                },
            }
        }
        tell(times.len());
        Ok(Served { clients: times.len(), took: start.elapsed(), median: median(&mut times) })
    }
}

/// Clients one after another, until none are left; how long each took.
async fn one_after_another(tally: Arc<Tally>) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let take = |left: usize| left.checked_sub(1);
    while Instant::now() < tally.end
        && let Ok(number) = tally.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
    {
        let start = Instant::now();
        let served = timeout(CLIENT_LIMIT, one(&tally, number)).await;
        served.with_context(|| format!("a client was not served within {CLIENT_LIMIT:?}"))??;
        times.push(start.elapsed());
        tally.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(times)
}

async fn one(tally: &Tally, number: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(tally.address).await?;
    client.open_channel().await?;
    client.publish(&tally.queue, &format!("message {number}")).await?;
    client.close().await
}

/// The one in the middle; zero when there are none.
pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
