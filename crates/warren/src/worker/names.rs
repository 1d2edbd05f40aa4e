//! What clients' addresses are called (reverse DNS), for brokers and the auth service. The system is asked, on threads of
//! its own, by few at a time; what it said is remembered for a while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use warren_engine::ids::SessionId;

use super::Worker;

/// How long a client's handshake may wait for the name of its address.
const LOOKUP_LIMIT: Duration = Duration::from_secs(2);
/// How long an answer stands for the next client from there. The system does not say how long it may.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Addresses remembered: about 1 MiB at worst.
const REMEMBERED_MOST: usize = 4096;
/// Threads of a worker that may wait for the system at one time.
const AT_ONCE: usize = 16;
/// The longest name that DNS has.
const NAME_MOST: usize = 253;

/// The name of an address, if it has one, and since when that is known.
type Known = (Option<Box<str>>, Instant);

/// Names that were looked up lately.
pub(super) struct Names {
    known: RefCell<HashMap<IpAddr, Known>>,
    places: Arc<Semaphore>,
}

impl Default for Names {
    fn default() -> Names {
        Names { known: RefCell::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Names {
    /// The name of an address, if it has one that is known within [`LOOKUP_LIMIT`].
    async fn of(&self, address: IpAddr) -> Option<Box<str>> {
        if let Some((name, at)) = self.known.borrow().get(&address)
            && at.elapsed() < REMEMBERED_FOR
        {
            return name.clone();
        }
        let name = timeout(LOOKUP_LIMIT, self.ask(address)).await.ok()??;
        let mut known = self.known.borrow_mut();
        if known.len() >= REMEMBERED_MOST {
            known.retain(|_, (_, at)| at.elapsed() < REMEMBERED_FOR);
        }
        if known.len() < REMEMBERED_MOST {
            known.insert(address, (name.clone(), Instant::now()));
        }
        name
    }

    /// `None`: nobody could be asked; `Some(None)`: it has no name. A lookup that nobody waits for any more keeps its
    /// place until the system gives it up.
    async fn ask(&self, address: IpAddr) -> Option<Option<Box<str>>> {
        let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let lookup = spawn_blocking(move || {
            let name: Option<String> = dns_lookup::lookup_addr(&address).ok();
            drop(permit);
            name
        });
        let name = lookup.await.ok()?.filter(|name| is_name(name, address));
        Some(name.map(Into::into))
    }
}

/// Where an address has no name, the system gives the address itself.
fn is_name(name: &str, address: IpAddr) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MOST
        && name.parse::<IpAddr>().is_err()
        && name != address.to_string()
        && name.bytes().all(|octet| octet.is_ascii_graphic())
}

impl Worker {
    /// Looks a client's address up.
    pub(super) async fn name(self: Rc<Self>, session: SessionId, address: IpAddr) {
        let names = Rc::clone(&self.names);
        let name = names.of(address).await;
        let now = self.clock.now();
        self.engine.borrow_mut().client_named(now, session, name.as_deref());
        self.settle(now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn this_machine_has_a_name_and_others_are_not_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        LocalSet::new().block_on(&runtime, async {
            let names = Names::default();
            let own = IpAddr::from(Ipv4Addr::LOCALHOST);
            let name = names.of(own).await.expect("the hosts file names it");
            assert!(name.contains("localhost"), "{name}");
            assert!(names.known.borrow().contains_key(&own), "it is remembered");
            let started = Instant::now();
            // An address for documentation: it has no name, or nobody answers.
            assert_eq!(names.of(IpAddr::from([192, 0, 2, 1])).await, None);
            assert!(started.elapsed() < LOOKUP_LIMIT + Duration::from_secs(3));
        });
        runtime.shutdown_background();
    }

    #[test]
    fn an_address_is_no_name() {
        let address = IpAddr::from([192, 0, 2, 1]);
        for bad in ["", "192.0.2.1", "2001:db8::1", "a b", "a\n", &"x".repeat(300)] {
            assert!(!is_name(bad, address), "{bad:?}");
        }
        assert!(is_name("app7.example.com", address));
    }
}
