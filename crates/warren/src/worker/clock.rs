//! One clock for all workers, and the timer that calls the engine when its time has come.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use warren_engine::time::Time;

/// Reads the time as the engine knows it. All workers share the beginning, since times travel with sessions that
/// are handed over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that shows zero now.
    pub(crate) fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    /// The time. Read once per wake-up, not per frame.
    pub(crate) fn now(self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When the clock will show `time`; far away when it never will.
    fn instant(self, time: Time) -> Instant {
        let never = || Instant::now() + Duration::from_secs(3600);
        self.start.checked_add(Duration::from_millis(time.0)).unwrap_or_else(never)
    }
}

/// Sleeps until the engine's next deadline, wherever that moves meanwhile.
pub(crate) struct Timer {
    /// What the sleep under way ends at; `None`: nothing.
    armed: Cell<Option<Time>>,
    earlier: Notify,
}

impl Timer {
    /// A timer that is not armed.
    pub(crate) fn new() -> Timer {
        Timer { armed: Cell::new(None), earlier: Notify::new() }
    }

    /// Says when the engine wants to be called. A later time than before needs nothing: the timer finds out when
    /// it wakes.
    pub(crate) fn arm(&self, deadline: Option<Time>) {
        let sooner = match (deadline, self.armed.get()) {
            (Some(deadline), Some(armed)) => deadline < armed,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if sooner {
            self.armed.set(deadline);
            self.earlier.notify_one();
        }
    }

    /// Waits until `deadline`, or the earlier one that [`Timer::arm`] was told of meanwhile. May return too early.
    pub(crate) async fn sleep(&self, clock: Clock, deadline: Option<Time>) {
        self.armed.set(deadline);
        let Some(deadline) = deadline else {
            return self.earlier.notified().await;
        };
        // At least a millisecond: a deadline in the past must not make the worker spin.
        let least = Instant::now() + Duration::from_millis(1);
        let until = clock.instant(deadline).max(least);
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = self.earlier.notified() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// Runs on a worker's kind of runtime and returns how long it took.
    fn timed(work: impl Future<Output = ()>) -> Duration {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let start = Instant::now();
        LocalSet::new().block_on(&runtime, work);
        start.elapsed()
    }

    #[test]
    fn sleeps_until_the_deadline() {
        let clock = Clock::start();
        let timer = Timer::new();
        let deadline = clock.now() + Duration::from_millis(30);
        let took = timed(async { timer.sleep(clock, Some(deadline)).await });
        assert!(clock.now() >= deadline, "woke {took:?} after the start");
    }

    #[test]
    fn an_earlier_deadline_wakes_and_a_later_one_does_not() {
        let clock = Clock::start();
        let timer = Rc::new(Timer::new());
        let took = timed(async {
            let sleeper = Rc::clone(&timer);
            let far = clock.now() + Duration::from_secs(60);
            let task = spawn_local(async move { sleeper.sleep(clock, Some(far)).await });
            tokio::task::yield_now().await;
            timer.arm(Some(far + Duration::from_secs(1)));
            timer.arm(None);
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert!(!task.is_finished());
            timer.arm(Some(clock.now() + Duration::from_secs(1)));
            task.await.expect("no panic");
        });
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn a_deadline_said_before_the_sleep_is_not_lost() {
        let clock = Clock::start();
        let timer = Timer::new();
        timer.arm(Some(clock.now()));
        let took = timed(async { timer.sleep(clock, None).await });
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    #[test]
    fn a_deadline_in_the_past_does_not_spin() {
        let clock = Clock::start();
        let timer = Timer::new();
        let took = timed(async { timer.sleep(clock, Some(Time(0))).await });
        assert!(took >= Duration::from_millis(1), "{took:?}");
    }

    #[test]
    fn a_time_that_never_comes_is_only_far_away() {
        assert!(Clock::start().instant(Time(u64::MAX)) > Instant::now());
    }
}
