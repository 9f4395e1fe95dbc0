//! A no that may pass is heard more than once before it counts: an API server that comes up says 401, 403 and 404 to
//! everything for some seconds, and a role or a quota is mended in minutes. How long depends on what is at stake. What is
//! heard in a freeze ends the freeze at once, and is asked for again with nothing frozen: [`prospect`].
//!
//! [`prospect`]: crate::plan::prospect

use jiff::{SignedDuration, Timestamp};

use super::{Fact, Seen, View};
use crate::api::restore::RestorePhase;
use crate::api::shared::Goal;
use crate::plan::journal::{Journal, Record};
use crate::plan::restore::sight::Look;

/// While nothing of ours is at stake.
const DOUBT: SignedDuration = SignedDuration::from_secs(60);
/// Once a claim may have been deleted, or on the way back.
const RESOLVE: SignedDuration = SignedDuration::from_mins(15);

/// One such no.
#[derive(Debug, Clone, PartialEq)]
pub struct Denied {
    pub at: Timestamp,
    /// It answers a write.
    pub write: bool,
    /// It was understood and judged: [`Denial`](crate::plan::noun::Denial).
    pub judged: bool,
    /// What it means if it counts, and what is not known as long as it does not.
    pub counts: Fact,
    pub meanwhile: Option<Fact>,
}

/// Since when nothing else has been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    pub since: Timestamp,
    write: bool,
}

impl View {
    pub(super) fn fold_denied(&mut self, denied: Denied) {
        let doubt = Doubt { since: denied.at, write: denied.write };
        let since = self.doubt.get_or_insert(doubt).since;
        let patience = self.patience();
        let counts = denied.judged && patience < RESOLVE || denied.at.duration_since(since) >= patience;
        if let (false, Some(run), Fact::Refused(refusal)) = (counts, self.freezing, &denied.counts) {
            self.prospect.balk(run, denied.at, refusal.clone());
        }
        if let Some(fact) = if counts { Some(denied.counts) } else { denied.meanwhile } {
            self.fold(fact);
        }
    }

    /// Something was allowed: a read says nothing of writes.
    pub(super) fn fold_allowed(&mut self, write: bool) {
        self.doubt = self.doubt.filter(|doubt| doubt.write && !write);
    }

    /// How long a no that may pass is doubted.
    fn patience(&self) -> SignedDuration {
        match self.restore.course {
            Some((_, Some((Goal::Old, _) | (_, RestorePhase::Restoring | RestorePhase::ScalingUp)))) => RESOLVE,
            _ => DOUBT,
        }
    }

    /// What was so before a write is looked at once more after it, where it decides about the next one.
    pub(super) fn fold_acted(&mut self) {
        self.acted = true;
        self.restore.stale(&Look::Closing);
    }

    /// Pods are frozen, as far as we know: that is ended on the first no.
    pub(super) fn note_freeze(&mut self) {
        if let Seen::Known(Record { journal, .. }) = &self.record {
            self.freezing = match journal {
                Journal::Frozen(freeze) if !freeze.pods.is_empty() => Some(freeze.id),
                _ => None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::condition::Reason;
    use crate::plan::noun::{Refusal, Want};
    use crate::plan::view::Read;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn no(second: i64, write: bool, judged: bool) -> Fact {
        let counts = Fact::Refused(Refusal::new(Reason::Forbidden, "no"));
        let meanwhile = write.then_some(Fact::Stale(Read::Claims));
        Fact::Denied(Box::new(Denied { at: at(second), write, judged, counts, meanwhile }))
    }

    /// When it counts, of denials every second; `change` is what is known before.
    fn counts(judged: bool, change: impl Fn(&mut View)) -> Option<i64> {
        let mut view = View::new(Want::default());
        change(&mut view);
        (0..2000).find(|second| {
            view.fold(no(*second, true, judged));
            view.refused.is_some()
        })
    }

    #[test]
    fn a_no_that_may_pass_counts_after_a_minute_and_after_a_deletion_after_a_quarter_of_an_hour() {
        let on = |goal, phase| move |view: &mut View| view.restore.course = Some((1, Some((goal, phase))));
        for (goal, phase, judged, expected) in [
            (Goal::New, RestorePhase::New, false, 60),
            (Goal::New, RestorePhase::ScalingDown, false, 60),
            (Goal::New, RestorePhase::New, true, 0),
            (Goal::New, RestorePhase::Restoring, false, 900),
            (Goal::New, RestorePhase::Restoring, true, 900),
            (Goal::New, RestorePhase::ScalingUp, false, 900),
            (Goal::Old, RestorePhase::ScalingDown, true, 900),
            (Goal::Old, RestorePhase::ScalingUp, false, 900),
        ] {
            assert_eq!(counts(judged, on(goal, phase)), Some(expected), "{goal:?} {phase:?} {judged}");
        }
        assert_eq!(counts(false, |_| {}), Some(60), "of a backup");
        let run = "20260101-000000".parse().unwrap();
        assert_eq!(counts(false, |view| view.freezing = Some(run)), Some(60), "something is frozen");
        let mut view = View { freezing: Some(run), ..View::new(Want::default()) };
        view.fold(no(0, true, false));
        assert!(view.prospect.balked(run).is_some() && view.refused.is_none(), "it ends the freeze, and not the run");
    }

    #[test]
    fn what_is_allowed_in_between_ends_the_doubt_and_a_read_says_nothing_of_writes() {
        for (write, allowed, counts) in [(true, true, false), (true, false, true), (false, false, false)] {
            let mut view = View::new(Want::default());
            view.fold(no(0, write, false));
            view.fold(Fact::Allowed { write: allowed });
            view.fold(no(61, write, false));
            assert_eq!(view.refused.is_some(), counts, "{write} {allowed}");
        }
    }
}
