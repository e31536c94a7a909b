//! Endpoints of a cluster that has none of its own: wherever its callers were going.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cluster::EndpointState;

/// Addresses to which connections are kept for the next caller; connections to further ones serve one caller each.
const MAX_ORIGINALS: usize = 4_096;

/// What is known of the addresses that a worker has connected to.
#[derive(Debug, Default)]
pub(super) struct Originals(RefCell<HashMap<SocketAddr, Original>>);

#[derive(Debug)]
struct Original {
    endpoint: Rc<EndpointState>,
    used: Cell<Instant>,
}

impl Originals {
    /// The endpoint at an address.
    pub(super) fn at(&self, cluster: &Arc<str>, address: SocketAddr) -> Rc<EndpointState> {
        let mut all = self.0.borrow_mut();
        if let Some(known) = all.get(&address) {
            known.used.set(Instant::now());
            return known.endpoint.clone();
        }
        let endpoint = Rc::new(EndpointState::new(cluster, address));
        if all.len() < MAX_ORIGINALS {
            let original = Original { endpoint: endpoint.clone(), used: Cell::new(Instant::now()) };
            all.insert(address, original);
        } else {
            endpoint.retire();
        }
        endpoint
    }

    /// All of them.
    pub(super) fn each(&self, mut what: impl FnMut(&Rc<EndpointState>)) {
        self.0.borrow().values().for_each(|original| what(&original.endpoint));
    }

    /// Forgets those which nobody has used for so long.
    pub(super) fn forget_unused(&self, now: Instant, timeout: Duration) {
        self.0.borrow_mut().retain(|_, original| {
            let in_use = original.endpoint.stats.active.get() > 0 || now.duration_since(original.used.get()) < timeout;
            if !in_use {
                original.endpoint.retire();
            }
            in_use
        });
    }

    /// Closes what is idle and keeps nothing from now on.
    pub(super) fn retire(&self) {
        self.0.take().values().for_each(|original| original.endpoint.retire());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_known_while_they_are_used_and_no_more_than_so_many() {
        let (originals, name) = (Originals::default(), Arc::from("c"));
        let address = |number: usize| SocketAddr::from(([10, 0, (number / 256) as u8, number as u8], 80));
        let first = originals.at(&name, address(0));
        assert!(Rc::ptr_eq(&first, &originals.at(&name, address(0))));
        (0..MAX_ORIGINALS).for_each(|number| drop(originals.at(&name, address(number))));
        assert!(originals.at(&name, address(MAX_ORIGINALS)).retired.get());
        let later = Instant::now() + Duration::from_secs(61);
        first.stats.active.inc();
        originals.forget_unused(later, Duration::from_secs(60));
        assert_eq!(originals.0.borrow().len(), 1, "the one that is in use");
        originals.retire();
        assert!(first.retired.get());
    }
}
