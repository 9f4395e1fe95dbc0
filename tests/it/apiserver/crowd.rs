//! How many requests of a kind are under way at once: each is a connection.

use std::collections::BTreeMap;

use super::ApiServer;

/// By verb and resource: now, and at most so far.
#[derive(Debug, Default)]
pub struct Crowd(BTreeMap<(&'static str, &'static str), (usize, usize)>);

impl Crowd {
    pub fn most(&self, verb: &'static str, resource: &'static str) -> usize {
        self.0.get(&(verb, resource)).map_or(0, |(_, most)| *most)
    }
}

/// One of them, until it is dropped.
pub struct Inside {
    server: ApiServer,
    what: (&'static str, &'static str),
}

impl Inside {
    pub fn enter(server: &ApiServer, verb: &'static str, resource: &'static str) -> Inside {
        let what = (verb, resource);
        let mut state = server.look();
        let (now, most) = state.crowd.0.entry(what).or_default();
        *now += 1;
        *most = (*most).max(*now);
        drop(state);
        Inside { server: server.clone(), what }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.server.look();
        if let Some((now, _)) = state.crowd.0.get_mut(&self.what) {
            *now -= 1;
        }
    }
}
