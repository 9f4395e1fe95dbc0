//! What is to be done and not under way yet. Namespaces take turns: whoever has thousands of things to be done is a
//! nuisance to nobody else.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::plan::launch::Act;

#[derive(Debug, Default)]
pub struct Line {
    all: BTreeMap<Box<str>, VecDeque<Act>>,
    /// Whose turn it was last.
    last: Box<str>,
}

impl Line {
    pub fn push(&mut self, namespace: &str, act: Act) {
        if let Some(acts) = self.all.get_mut(namespace) {
            acts.push_back(act);
        } else {
            self.all.insert(namespace.into(), VecDeque::from([act]));
        }
    }

    pub fn pop(&mut self) -> Option<Act> {
        let after = (Bound::Excluded(&*self.last), Bound::Unbounded);
        let next = self.all.range::<str, _>(after).next().or_else(|| self.all.first_key_value());
        let name = next.map(|(name, _)| name.clone())?;
        let acts = self.all.get_mut(&name)?;
        let act = acts.pop_front();
        if acts.is_empty() {
            self.all.remove(&name);
        }
        self.last = name;
        act
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::launch::What;
    use crate::plan::launch::entry::Uid;

    #[test]
    fn namespaces_take_turns_and_each_keeps_its_order() {
        let mut line = Line::default();
        let act = |n| Act { uid: Uid(n), what: What::Look };
        (0..10_000).for_each(|n| line.push("tenant", act(n)));
        line.push("shop", act(20_000));
        line.push("a", act(20_001));
        line.push("shop", act(20_002));
        let mut pop = || line.pop().map(|act| act.uid.0);
        let first: Vec<_> = (0..6).filter_map(|_| pop()).collect();
        assert_eq!(first, [20_001, 20_000, 0, 20_002, 1, 2]);
        line.push("shop", act(20_003));
        let mut pop = || line.pop().map(|act| act.uid.0);
        assert_eq!([pop(), pop()], [Some(20_003), Some(3)]);
        assert_eq!(std::iter::from_fn(pop).count(), 9_996);
        assert_eq!(line.pop(), None);
    }
}
