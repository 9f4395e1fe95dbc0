//! Hooks: which command runs in which container, what came of it, and when a pod still has to be thawed.
//!
//! A hook's end cannot be observed, only witnessed: so what this process did not see itself may have happened. That
//! is all there is to recovery.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::flow::{Lost, When};
use super::name::{RunId, hex};
use super::noun::Pod;

/// Between two thaws of a pod whose pre hook may still be at work.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// After one that got no answer or was not started; of a longer trouble a quarter of the time that it has lasted.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// After so long of it the thaw counts as unproven.
pub const UNPROVEN: SignedDuration = SignedDuration::from_mins(5);

/// A hook as the spec has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec {
    /// Run as given: no shell, no stdin.
    pub argv: Vec<String>,
    pub container: Option<String>,
    pub timeout: SignedDuration,
}

/// Both hooks of a freeze.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    pub pre: Option<HookSpec>,
    pub post: Option<HookSpec>,
}

impl Pair {
    pub fn get(&self, which: Which) -> Option<&HookSpec> {
        match which {
            Which::Pre => self.pre.as_ref(),
            Which::Post => self.post.as_ref(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pre.is_none() && self.post.is_none()
    }

    /// Stands for commands and times, and for which hook has them.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for hook in [&self.pre, &self.post] {
            let Some(HookSpec { argv, timeout, .. }) = hook else {
                hash.update("none");
                continue;
            };
            hash.update(format!("{} {}", timeout.as_secs(), argv.len()));
            for word in argv {
                hash.update(format!(" {} {word}", word.len()));
            }
            hash.update("\n");
        }
        hex(&hash.finalize()[..16])
    }

    /// The time of the one that may take longer.
    pub fn longest(&self) -> Option<SignedDuration> {
        [&self.pre, &self.post].into_iter().flatten().map(|hook| hook.timeout).max()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Which {
    Pre,
    Post,
}

impl Which {
    pub fn name(self) -> &'static str {
        match self {
            Which::Pre => "pre hook",
            Which::Post => "post hook",
        }
    }
}

/// The very container that a hook entered, and not its successor of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub ordinal: u32,
    pub pod: String,
    pub uid: String,
    pub container: String,
    pub container_id: String,
    pub restarts: i32,
}

impl Place {
    /// The container of this name as it is in that pod now; none: it is not there, or has never been started.
    pub fn in_pod(&self, pod: &Pod) -> Option<Place> {
        let container = pod.containers.iter().find(|container| container.name == self.container)?;
        let (container_id, restarts) = (container.id.clone()?, container.restarts);
        Some(Place { uid: pod.uid.clone(), container_id, restarts, ..self.clone() })
    }
}

/// One hook in one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    pub run: RunId,
    pub which: Which,
    pub place: Place,
    pub argv: Vec<String>,
    /// When it is given up: its own time, or the freeze's.
    pub until: Timestamp,
}

/// How a hook ended, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With the tail of its stderr.
    Exit(i32, String),
    /// That container is not there any more: nothing was started, and nothing is frozen in it.
    Gone,
    /// It was not started: why.
    NotStarted(String),
    /// The same, before anybody could have started it, for a reason that may pass: it can be asked for again.
    Refused(String),
    /// It counts as started, and may be at work still.
    Lost(Lost),
    /// The same, after all the time that it was given; with the tail of its stderr so far.
    Late(String),
}

impl End {
    /// Nobody knows whether its process has ended.
    pub fn is_at_large(&self) -> bool {
        matches!(self, End::Lost(_) | End::Late(_))
    }

    /// It had all the time that it was given.
    pub fn is_late(&self) -> bool {
        matches!(self, End::Lost(Lost::Late) | End::Late(_))
    }
}

/// A hook's attempt: begun, ended (or given up), by our own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub when: When,
    pub end: End,
}

/// What this process has witnessed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// In the order in which it was tried. Nothing is ever taken back: a pre hook that ended after its time is added
    /// behind its own timeout.
    tried: BTreeMap<(RunId, u32, Which), Vec<Tried>>,
    strayed: BTreeMap<(RunId, u32), Place>,
    refused: BTreeMap<(RunId, u32), Refused>,
    inherited: Option<SignedDuration>,
}

/// A pre hook that was asked for, and that nobody was reached to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub since: Timestamp,
    /// When it was heard last, and what.
    pub last: Timestamp,
    pub why: String,
}

impl Refused {
    /// When it is asked for again.
    pub fn due(&self) -> Timestamp {
        later(self.since, self.last)
    }
}

/// When that is tried again which has failed from then to then.
fn later(since: Timestamp, last: Timestamp) -> Timestamp {
    last + (last.duration_since(since) / 4).clamp(SOON, AGAIN)
}

/// What decides what is owed to a pod, beside what was witnessed.
#[derive(Debug, Clone, Copy)]
pub struct Debt<'a> {
    /// The pre hook, if there is one.
    pub pre: Option<&'a HookSpec>,
    /// This process froze it, so that a pre hook it has not witnessed was not started.
    pub own: bool,
    /// One thaw must do, the next process goes on.
    pub hurry: bool,
    /// The post hook's own time: nobody who is in a hurry tries for longer.
    pub time: SignedDuration,
    /// The post hook runs in another container than the one that is frozen, and that one is there still.
    pub elsewhere: bool,
}

/// Whether a pod still has to be thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    Nothing,
    Now,
    At(Timestamp),
    /// Tried for so long that no more is to be hoped for.
    Unproven,
}

impl History {
    pub fn add(&mut self, run: RunId, ordinal: u32, which: Which, mut tried: Tried) {
        if let End::Refused(why) = &tried.end {
            if which == Which::Pre && self.of(run, ordinal, which).is_empty() {
                let new = || Refused { since: tried.when.begun, last: tried.when.ended, why: String::new() };
                let refused = self.refused.entry((run, ordinal)).or_insert_with(new);
                (refused.last, refused.why) = (tried.when.ended, why.clone());
                return;
            }
            tried.end = End::NotStarted(why.clone());
        }
        self.tried.entry((run, ordinal, which)).or_default().push(tried);
    }

    /// The pre hook of a pod that could not be asked for yet.
    pub fn refused(&self, run: RunId, ordinal: u32) -> Option<&Refused> {
        self.refused.get(&(run, ordinal)).filter(|_| self.of(run, ordinal, Which::Pre).is_empty())
    }

    pub fn of(&self, run: RunId, ordinal: u32, which: Which) -> &[Tried] {
        self.tried.get(&(run, ordinal, which)).map_or(&[], Vec::as_slice)
    }

    /// A pre hook was meant for another container and has entered this one.
    pub fn stray(&mut self, run: RunId, place: Place) {
        self.strayed.insert((run, place.ordinal), place);
    }

    /// The container that a pre hook entered instead of the one that was meant.
    pub fn strayed(&self, run: RunId, ordinal: u32) -> Option<&Place> {
        self.strayed.get(&(run, ordinal))
    }

    /// From the first pre hook to the end of the last post hook.
    pub fn frozen(&self, run: RunId) -> Option<SignedDuration> {
        let all = || self.tried.iter().filter(|((of, ..), _)| *of == run);
        let begun = all().flat_map(|(_, tried)| tried).map(|tried| tried.when.begun).min()?;
        let posts = all().filter(|((.., which), _)| *which == Which::Post).flat_map(|(_, tried)| tried);
        Some(posts.map(|tried| tried.when.ended).max()?.duration_since(begun))
    }

    /// What this process has frozen or tried to: the pre hooks of each run and ordinal.
    pub fn begun(&self) -> impl Iterator<Item = (RunId, u32, &[Tried])> {
        let pres = self.tried.iter().filter(|((.., which), _)| *which == Which::Pre);
        pres.map(|((run, ordinal, _), tried)| (*run, *ordinal, tried.as_slice()))
    }

    /// When the last thaw of a freeze that we inherited began to be over: a hook of the dead process may come late,
    /// and must not thaw the freeze after it.
    pub fn quiet_from(&self) -> Option<Timestamp> {
        let inherited = |run: &RunId| !self.tried.keys().any(|(of, _, which)| of == run && *which == Which::Pre);
        let posts = self.tried.iter().filter(|((run, _, which), _)| *which == Which::Post && inherited(run));
        posts.filter_map(|(_, tried)| tried.first()).map(|tried| tried.when.begun).max()
    }

    /// A freeze that we inherit has these hooks.
    pub fn inherit(&mut self, hooks: &Pair) {
        self.inherited = self.inherited.max(hooks.longest());
    }

    /// The longest time that a hook of a freeze that we inherited has.
    pub fn longest(&self) -> Option<SignedDuration> {
        self.inherited
    }

    /// What is owed to one pod.
    pub fn owed(&self, run: RunId, ordinal: u32, debt: Debt, now: Timestamp) -> Owed {
        let Debt { pre, own, hurry, time, elsewhere } = debt;
        let (pres, posts) = (self.of(run, ordinal, Which::Pre), self.of(run, ordinal, Which::Post));
        let started = match pres.first() {
            Some(tried) => !matches!(tried.end, End::NotStarted(_) | End::Gone),
            None => !own || pre.is_none(),
        };
        let (Some(first), Some(last)) = (posts.first(), posts.last()) else {
            return if started { Owed::Now } else { Owed::Nothing };
        };
        if last.end == End::Gone && !elsewhere {
            return Owed::Nothing;
        }
        let over = matches!(last.end, End::Exit(..));
        let had_its_time = last.end.is_late() || last.when.ended >= first.when.begun + time;
        if hurry && !over && had_its_time {
            return Owed::Nothing; // the next process tries again
        }
        let bound = first.when.begun + UNPROVEN;
        // From when on the pre hook's process cannot freeze any more, where that is known.
        let rest = match (pres.last(), pre) {
            (Some(tried), _) => (!tried.end.is_at_large()).then_some(tried.when.ended),
            (None, None) => Some(Timestamp::MIN),
            // It was another process's: a well-behaved one ends in its time.
            (None, Some(pre)) => Some(bound.min(first.when.begun + pre.timeout)),
        };
        if over && (hurry || rest.is_some_and(|rest| last.when.begun >= rest)) {
            return Owed::Nothing;
        }
        if last.when.begun >= bound {
            return Owed::Unproven;
        }
        let due = match rest {
            _ if !over => later(first.when.begun, last.when.ended),
            Some(rest) => rest.min(last.when.ended + AGAIN),
            None => last.when.ended + AGAIN,
        };
        if now >= due { Owed::Now } else { Owed::At(due) }
    }
}
