//! Hooks: which command runs in which container, what came of it, and when a pod still has to be thawed.
//!
//! A hook's end cannot be observed, only witnessed: so what this process did not see itself may have happened. That
//! is all there is to recovery.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::flow::{Lost, When};
use super::name::{RunId, hex};

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

/// What this process has witnessed, in the order in which it was tried. Nothing is ever taken back: a pre hook that
/// ended after its time is added behind its own timeout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(BTreeMap<(RunId, u32, Which), Vec<Tried>>, BTreeMap<(RunId, u32), Place>, Option<SignedDuration>);

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

    /// A freeze that we inherit has these hooks.
    pub fn inherit(&mut self, hooks: &Pair) {
        self.2 = self.2.max(hooks.longest());
    }

    /// The longest time that a hook of a freeze that we inherited has.
    pub fn longest(&self) -> Option<SignedDuration> {
        self.2
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
        if hurry && last.end.is_late() {
            return Owed::Nothing; // it has had all its time: the next process tries again
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
        let again = last.when.ended + if over { AGAIN } else { SOON };
        let due = rest.filter(|_| over).map_or(again, |rest| again.min(rest));
        if now >= due { Owed::Now } else { Owed::At(due) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn run() -> RunId {
        RunId::after(None, at(0))
    }

    fn ok() -> End {
        End::Exit(0, String::new())
    }

    /// What is owed after these hooks, each a second long: which, begun, how it ended.
    fn owed(hooks: &[(Which, i64, End)], own: bool, hurry: bool, now: i64) -> Owed {
        let pre = HookSpec { argv: vec!["freeze".into()], container: None, timeout: SignedDuration::from_secs(60) };
        let mut history = History::default();
        for (which, begun, end) in hooks {
            let when = When { begun: at(*begun), ended: at(begun + 1) };
            history.add(run(), 0, *which, Tried { when, end: end.clone() });
        }
        history.owed(run(), 0, Some(&pre), own, hurry, at(now))
    }

    #[test]
    fn what_was_not_started_is_owed_nothing_and_all_else_is_thawed() {
        use Which::{Post, Pre};
        let not = End::NotStarted("no such command".into());
        assert_eq!(owed(&[], true, false, 0), Owed::Nothing, "ours, and not begun");
        assert_eq!(owed(&[], false, false, 0), Owed::Now, "another's: who knows");
        assert_eq!(owed(&[(Pre, 0, not)], true, false, 1), Owed::Nothing);
        assert_eq!(owed(&[(Pre, 0, End::Gone)], true, false, 1), Owed::Nothing);
        let failed = End::Exit(1, String::new());
        for end in [ok(), failed.clone(), End::Lost(Lost::Reply), End::Lost(Lost::Stopped), End::Late(String::new())] {
            assert_eq!(owed(&[(Pre, 0, end.clone())], true, false, 1), Owed::Now, "{end:?}");
        }
        assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, ok())], true, false, 2), Owed::Nothing);
        assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, failed)], true, false, 2), Owed::Nothing, "it has had its say");
        assert_eq!(owed(&[(Pre, 0, ok()), (Post, 1, End::Gone)], true, false, 2), Owed::Nothing);
    }

    #[test]
    fn until_the_pre_hook_is_known_to_have_ended_the_pod_is_thawed_again() {
        use Which::{Post, Pre};
        let late = || (Pre, 0, End::Late(String::new()));
        assert_eq!(owed(&[late(), (Post, 1, ok())], true, false, 2), Owed::At(at(12)));
        assert_eq!(owed(&[late(), (Post, 1, ok())], true, false, 12), Owed::Now);
        assert_eq!(owed(&[late(), (Post, 1, ok())], true, true, 2), Owed::Nothing, "in a hurry once must do");
        let heard = (Pre, 4, ok());
        assert_eq!(
            owed(&[late(), (Post, 1, ok()), heard.clone()], true, false, 5),
            Owed::Now,
            "it froze after the thaw"
        );
        assert_eq!(owed(&[late(), (Post, 1, ok()), heard, (Post, 5, ok())], true, false, 6), Owed::Nothing);
        let posts = (0..31).map(|n| (Post, 1 + 10 * n, ok()));
        let all: Vec<_> = std::iter::once(late()).chain(posts).collect();
        assert_eq!(owed(&all[..31], true, false, 310), Owed::Now, "five minutes are not over");
        assert_eq!(owed(&all, true, false, 310), Owed::Unproven);
    }

    #[test]
    fn a_thaw_without_an_answer_is_tried_again_soon_but_not_by_a_process_that_must_go() {
        use Which::{Post, Pre};
        let hooks = |end: End| [(Pre, 0, ok()), (Post, 1, end)];
        assert_eq!(owed(&hooks(End::Lost(Lost::Reply)), true, false, 2), Owed::At(at(3)));
        assert_eq!(owed(&hooks(End::Lost(Lost::Reply)), true, true, 3), Owed::Now);
        assert_eq!(owed(&hooks(End::Late(String::new())), true, false, 3), Owed::Now);
        assert_eq!(owed(&hooks(End::Late(String::new())), true, true, 3), Owed::Nothing, "it has had all its time");
    }

    #[test]
    fn another_process_s_pre_hook_is_given_its_own_time() {
        use Which::Post;
        assert_eq!(owed(&[(Post, 0, ok())], false, false, 1), Owed::At(at(11)));
        assert_eq!(owed(&[(Post, 0, ok()), (Post, 50, ok())], false, false, 51), Owed::At(at(60)));
        assert_eq!(owed(&[(Post, 0, ok()), (Post, 60, ok())], false, false, 61), Owed::Nothing);
    }
}
