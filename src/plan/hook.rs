//! Hooks: which command runs in which container, what came of it, and when a pod still has to be thawed.
//!
//! A hook's end cannot be observed, only witnessed: so what this process did not see itself may have happened. That
//! is all there is to recovery.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::flow::{Lost, When};
use super::name::RunId;
use super::noun::Refusal;
use crate::api::condition::Reason;

/// Between two thaws of a pod whose pre hook may still be at work.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// After a thaw that got no answer.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// After so long of it the thaw counts as unproven.
const UNPROVEN: SignedDuration = SignedDuration::from_mins(5);

/// A hook as the spec has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec {
    /// Run as given: no shell, no stdin.
    pub argv: Vec<String>,
    pub container: Option<String>,
    pub timeout: SignedDuration,
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
    /// The kubelet did not start it: why.
    NotStarted(String),
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
}

/// A hook's attempt: begun, ended (or given up), by our own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    pub when: When,
    pub end: End,
}

/// What this process has witnessed, in the order in which it was tried. Nothing is ever taken back: a pre hook that
/// ended after its time is added behind its own timeout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(BTreeMap<(RunId, u32, Which), Vec<Tried>>, BTreeMap<(RunId, u32), Place>);

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
    pub fn add(&mut self, run: RunId, ordinal: u32, which: Which, tried: Tried) {
        self.0.entry((run, ordinal, which)).or_default().push(tried);
    }

    pub fn of(&self, run: RunId, ordinal: u32, which: Which) -> &[Tried] {
        self.0.get(&(run, ordinal, which)).map_or(&[], Vec::as_slice)
    }

    /// A pre hook was meant for another container and has entered this one.
    pub fn stray(&mut self, run: RunId, place: Place) {
        self.1.insert((run, place.ordinal), place);
    }

    /// The container that a pre hook entered instead of the one that was meant.
    pub fn strayed(&self, run: RunId, ordinal: u32) -> Option<&Place> {
        self.1.get(&(run, ordinal))
    }

    /// From the first pre hook to the end of the last post hook.
    pub fn frozen(&self, run: RunId) -> Option<SignedDuration> {
        let all = || self.0.iter().filter(|((of, ..), _)| *of == run);
        let begun = all().flat_map(|(_, tried)| tried).map(|tried| tried.when.begun).min()?;
        let posts = all().filter(|((.., which), _)| *which == Which::Post).flat_map(|(_, tried)| tried);
        Some(posts.map(|tried| tried.when.ended).max()?.duration_since(begun))
    }

    /// Freezes that this process has begun.
    pub fn freezes(&self) -> usize {
        let runs: std::collections::BTreeSet<_> =
            self.0.keys().filter(|(.., which)| *which == Which::Pre).map(|(run, ..)| run).collect();
        runs.len()
    }

    /// What this process has frozen or tried to: the pre hooks of each run and ordinal.
    pub fn begun(&self) -> impl Iterator<Item = (RunId, u32, &[Tried])> {
        let pres = self.0.iter().filter(|((.., which), _)| *which == Which::Pre);
        pres.map(|((run, ordinal, _), tried)| (*run, *ordinal, tried.as_slice()))
    }

    /// When the last hook of the run was over.
    pub fn last(&self, run: RunId) -> Option<Timestamp> {
        let of = self.0.iter().filter(|((of, ..), _)| *of == run);
        of.flat_map(|(_, tried)| tried).map(|tried| tried.when.ended).max()
    }

    /// When the last thaw of a freeze that we inherited began to be over: a hook of the dead process may come late,
    /// and must not thaw the freeze after it.
    pub fn quiet_from(&self) -> Option<Timestamp> {
        let inherited = |run: &RunId| !self.0.keys().any(|(of, _, which)| of == run && *which == Which::Pre);
        let posts = self.0.iter().filter(|((run, _, which), _)| *which == Which::Post && inherited(run));
        posts.filter_map(|(_, tried)| tried.first()).map(|tried| tried.when.begun).max()
    }

    /// What is owed to one pod. `pre`: the pre hook, if there is one; `own`: this process froze it, so that a pre hook
    /// it has not witnessed was not started; `hurry`: one thaw must do, the next process goes on.
    pub fn owed(
        &self,
        run: RunId,
        ordinal: u32,
        pre: Option<&HookSpec>,
        own: bool,
        hurry: bool,
        now: Timestamp,
    ) -> Owed {
        let (pres, posts) = (self.of(run, ordinal, Which::Pre), self.of(run, ordinal, Which::Post));
        let started = match pres.first() {
            Some(tried) => !matches!(tried.end, End::NotStarted(_) | End::Gone),
            None => !own || pre.is_none(),
        };
        let (Some(first), Some(last)) = (posts.first(), posts.last()) else {
            return if started { Owed::Now } else { Owed::Nothing };
        };
        if last.end == End::Gone {
            return Owed::Nothing;
        }
        let over = matches!(last.end, End::Exit(..) | End::NotStarted(_));
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
        let again = last.when.ended + if over { AGAIN } else { SOON };
        let due = rest.filter(|_| over).map_or(again, |rest| again.min(rest));
        if now >= due { Owed::Now } else { Owed::At(due) }
    }
}

/// Why a hook that ended so fails the run.
pub fn refusal(exec: &Exec, end: &End, timeout: SignedDuration) -> Option<Refusal> {
    let Place { pod, container, .. } = &exec.place;
    let which = exec.which.name();
    let what = format!("{which} {:?} in container {container} of pod {pod}", exec.argv);
    let post = exec.which == Which::Post;
    Some(match end {
        End::Exit(0, _) | End::Gone | End::Lost(Lost::Stopped | Lost::Reply) => return None,
        End::Exit(code, tail) => {
            let tail = said(tail);
            let reason = if post { Reason::ThawFailed } else { Reason::HookFailed };
            Refusal::new(reason, format!("{what} ended with exit code {code}; {tail}"))
        }
        End::NotStarted(why) => {
            let reason = if post { Reason::ThawFailed } else { Reason::HookFailed };
            Refusal::new(reason, format!("{what} could not be started: {why}"))
        }
        End::Late(_) | End::Lost(Lost::Late) => {
            let reason = if post { Reason::ThawFailed } else { Reason::HookTimeout };
            let (seconds, tail) = (timeout.as_secs(), if let End::Late(tail) = end { said(tail) } else { said("") });
            Refusal::new(reason, format!("{what} did not end within its timeoutSeconds ({seconds} s); {tail}"))
        }
    })
}

fn said(tail: &str) -> String {
    if tail.is_empty() { "nothing on stderr".to_owned() } else { format!("stderr: {tail}") }
}
