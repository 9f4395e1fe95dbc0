//! Other installations, by what objects say of them: whether the watcher of one runs, as far as its Lease shows it. All
//! of it is measured on the monotonic clock: wall clocks of two machines are never compared.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::{Object, Waiting};
use super::pace::Lease;
use crate::api::condition::Reason;
use crate::plan::name;

/// A Lease that is held and was not renewed for so long is left: a watcher renews its own every 20 s at least.
pub const SILENT: Duration = Duration::from_mins(1);
/// One that nobody holds, or that is not there, means an end only if it stays so: a watcher may be starting.
const FREE: Duration = Duration::from_secs(20);
/// Between two looks while it is not known.
const LOOK: Duration = Duration::from_secs(10);
/// A look that is not answered by then is made again.
const LOST: Duration = Duration::from_secs(30);
/// Between two looks when it is.
const AGAIN: Duration = Duration::from_mins(1);

/// What is known of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It has not been looked at for long enough.
    Unknown,
    Lives,
    Gone,
    /// Its Lease may not be read from here.
    Hidden,
}

/// What a look at its Lease told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Without holder: nobody holds it, or there is none.
    Lease(Lease),
    Hidden,
}

/// What is to be done about an object of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    Look,
    /// That is so until then.
    Rest(Life, Duration),
}

#[derive(Debug)]
struct Rival {
    life: Life,
    /// The Lease as it looked last, and since when.
    lease: Option<(Lease, Duration)>,
    /// When the next look is due.
    due: Duration,
    /// What was said of its end has been taken back, which only its own watcher does.
    contradicted: bool,
}

/// By the name in `status.managedBy`.
#[derive(Debug, Default)]
pub struct Rivals(BTreeMap<Box<str>, Rival>);

impl Rivals {
    /// One object asks for all of them: whoever is told to look does.
    pub fn turn(&mut self, install: &str, tick: Duration) -> Turn {
        let fresh = || Rival { life: Life::Unknown, lease: None, due: tick, contradicted: false };
        let rival = self.0.entry(install.into()).or_insert_with(fresh);
        if address(install).is_none() {
            return Turn::Rest(Life::Gone, tick + AGAIN);
        }
        if rival.due > tick {
            return Turn::Rest(rival.life, rival.due);
        }
        rival.due = tick + LOST;
        Turn::Look
    }

    /// Its Lease was looked at; none: without an answer. True: that changes what is known of it.
    pub fn saw(&mut self, install: &str, sight: Option<Sight>, tick: Duration) -> bool {
        let Some(rival) = self.0.get_mut(install) else { return false };
        let before = rival.life;
        match sight {
            None => {}
            Some(Sight::Hidden) => rival.life = Life::Hidden,
            Some(Sight::Lease(lease)) => rival.see(lease, tick),
        }
        if rival.contradicted {
            rival.life = Life::Lives;
        }
        let pause = if rival.life == Life::Unknown { LOOK } else { AGAIN };
        rival.due = tick + pause;
        rival.life != before
    }

    /// It is at work, whatever its Lease says: one of an older version has none.
    pub fn contradict(&mut self, install: &str) {
        if let Some(rival) = self.0.get_mut(install) {
            (rival.contradicted, rival.life) = (true, Life::Lives);
        }
    }

    pub fn is_gone(&self, install: &str) -> bool {
        address(install).is_none() || self.0.get(install).is_some_and(|rival| rival.life == Life::Gone)
    }
}

impl Rival {
    fn see(&mut self, lease: Lease, tick: Duration) {
        let held = lease.holder.is_some();
        match &self.lease {
            Some((old, since)) if *old == lease => {
                if tick.saturating_sub(*since) >= if held { SILENT } else { FREE } {
                    self.life = Life::Gone;
                }
            }
            Some(_) => {
                self.life = if held { Life::Lives } else { Life::Unknown };
                self.lease = Some((lease, tick));
            }
            None => self.lease = Some((lease, tick)),
        }
    }
}

/// Namespace and Deployment of an installation; none for a name that no installation can have.
pub fn address(install: &str) -> Option<(&str, &str)> {
    let (namespace, deployment) = install.split_once('/')?;
    let is_name = |text: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        (1..=253).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('.')
    };
    (is_name(namespace) && is_name(deployment)).then_some((namespace, deployment))
}

/// Namespace and name of its Lease.
pub fn lease(install: &str) -> Option<(&str, String)> {
    address(install).map(|(namespace, deployment)| (namespace, name::leader(deployment)))
}

/// The same words whoever says them: of several installations that are passed over one writes, and the others find it.
pub fn gone(object: &Object, install: &str) -> String {
    let Object { namespace, name, .. } = object;
    format!(
        "managed by {install}, whose watcher does not run: nobody acts on this object. If {install} is gone for good, hand it \
         over: sts-backup doctor --take-over {namespace}/{name}"
    )
}

pub fn lives(object: &Object, install: &str, hidden: bool) -> String {
    let Object { namespace, name, .. } = object;
    let how = if hidden { "whose Lease may not be read from here" } else { "whose watcher runs" };
    format!(
        "managed by {install}, {how}: this installation leaves it alone. To move it, stop {install}, then: sts-backup doctor \
         --take-over {namespace}/{name}"
    )
}

/// The condition Waiting of an object whose installation is gone; its time is kept.
pub fn waiting(object: &Object, install: &str, now: Timestamp) -> Waiting {
    let told = object.owned().waiting.as_deref().map(|told| told.since);
    let message = gone(object, install).into();
    Waiting { since: told.unwrap_or(now), why: Some(Reason::ManagedByAnother), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "old/sts-backup";

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn held(renewed: i64) -> Sight {
        let renewed = Timestamp::from_second(renewed).ok();
        Sight::Lease(Lease { holder: Some("pod".into()), renewed })
    }

    fn free() -> Sight {
        Sight::Lease(Lease::default())
    }

    #[test]
    fn whoever_renews_lives_and_whoever_stops_is_gone_after_a_minute() {
        let mut rivals = Rivals::default();
        assert_eq!(rivals.turn(OLD, s(0)), Turn::Look);
        assert_eq!(rivals.turn(OLD, s(0)), Turn::Rest(Life::Unknown, s(30)), "one look for all objects");
        assert!(!rivals.saw(OLD, Some(held(1)), s(0)));
        assert_eq!(rivals.turn(OLD, s(9)), Turn::Rest(Life::Unknown, s(10)));
        assert_eq!(rivals.turn(OLD, s(10)), Turn::Look);
        assert!(rivals.saw(OLD, Some(held(2)), s(10)), "renewed");
        assert_eq!(rivals.turn(OLD, s(11)), Turn::Rest(Life::Lives, s(70)));
        assert!(rivals.saw(OLD, Some(held(2)), s(70)), "and no more");
        assert!(rivals.is_gone(OLD));
        assert!(rivals.saw(OLD, Some(held(3)), s(130)), "it is back");
        assert!(!rivals.is_gone(OLD));
    }

    #[test]
    fn a_lease_that_nobody_holds_may_be_taken_at_any_moment() {
        let mut rivals = Rivals::default();
        rivals.turn(OLD, s(0));
        assert!(!rivals.saw(OLD, Some(free()), s(0)) && !rivals.saw(OLD, Some(free()), s(10)));
        assert!(rivals.saw(OLD, Some(free()), s(20)) && rivals.is_gone(OLD));
        let mut rivals = Rivals::default();
        rivals.turn(OLD, s(0));
        rivals.saw(OLD, Some(free()), s(0));
        assert!(rivals.saw(OLD, Some(held(1)), s(19)), "it has begun");
        assert!(!rivals.is_gone(OLD));
        rivals.saw(OLD, Some(free()), s(30));
        assert!(!rivals.is_gone(OLD), "it restarts");
    }

    #[test]
    fn what_was_taken_back_is_never_said_again() {
        let mut rivals = Rivals::default();
        rivals.turn(OLD, s(0));
        rivals.saw(OLD, Some(free()), s(0));
        rivals.saw(OLD, Some(free()), s(20));
        rivals.contradict(OLD);
        assert!(!rivals.saw(OLD, Some(free()), s(500)) && !rivals.is_gone(OLD));
    }

    #[test]
    fn what_cannot_be_read_is_not_gone_and_what_is_no_name_is() {
        let mut rivals = Rivals::default();
        rivals.turn(OLD, s(0));
        assert!(rivals.saw(OLD, Some(Sight::Hidden), s(0)));
        assert_eq!(rivals.turn(OLD, s(1)), Turn::Rest(Life::Hidden, s(60)));
        assert!(!rivals.saw(OLD, None, s(60)), "no answer is none");
        for odd in ["", "x", "a/../b", "a/b/c", "../x", "a/.."] {
            assert_eq!(rivals.turn(odd, s(5)), Turn::Rest(Life::Gone, s(65)), "{odd}");
        }
        assert_eq!(lease(OLD), Some(("old", "leader-sts-backup".to_owned())));
    }
}
