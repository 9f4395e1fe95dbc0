//! The admission policies: while an author policy stands, an object lends nobody power that its author lacks, and while the
//! others do, nobody forges what a run goes by. What has the rights of a pod, and not those of who asks, begins hooks,
//! restores and undos only under them. What is open is finished all the same.

use super::noun::Refusal;
use super::preflight::{Finding, Severity};
use super::view::{Read, View};
use crate::api::condition::Reason;
use crate::api::{BACKUP_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY, RESTORE_POLICY};

/// A ValidatingAdmissionPolicy and the binding of its name, as far as they decide.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guard {
    /// Whether it denies what it cannot judge (failurePolicy Fail); none: there is no such policy.
    pub fails: Option<bool>,
    /// The binding's validationActions; none: there is no binding of that name to this policy.
    pub actions: Option<Vec<String>>,
    /// It is of a version that guards less than is gone by now.
    pub outdated: bool,
    /// Why nobody knows.
    pub unread: Option<String>,
}

const DENY: &str = "Deny";

impl Guard {
    /// As it is shipped.
    pub fn whole() -> Guard {
        Guard { fails: Some(true), actions: Some(vec![DENY.to_owned()]), ..Guard::default() }
    }

    /// Its API server would not let us see it.
    pub fn unread(why: String) -> Guard {
        Guard { unread: Some(why), ..Guard::default() }
    }

    /// Which object is amiss, and what is; none: it stands.
    pub fn gap(&self, policy: &str) -> Option<(String, String)> {
        let of_policy = format!("ValidatingAdmissionPolicy {policy}");
        let of_binding = format!("ValidatingAdmissionPolicyBinding {policy}");
        if let Some(why) = &self.unread {
            return Some((of_policy, format!("cannot be read ({why})")));
        }
        match (self.fails, &self.actions) {
            (None, _) => Some((of_policy, "is not installed".into())),
            (Some(false), _) => Some((of_policy, "lets pass what it cannot judge (failurePolicy is not Fail)".into())),
            (_, None) => Some((of_binding, "is not installed, or binds another policy".into())),
            (_, Some(actions)) if !actions.iter().any(|action| action == DENY) => {
                Some((of_binding, format!("denies nothing (validationActions: {})", actions.join(", "))))
            }
            _ if self.outdated => Some((of_policy, "is of an older version, which guards less".into())),
            _ => None,
        }
    }
}

/// What must stand beside it.
fn beside(policy: &'static str) -> &'static [&'static str] {
    match policy {
        BACKUP_POLICY => &[LOCK_POLICY, MARKS_POLICY],
        RESTORE_POLICY => &[FENCE_POLICY, LOCK_POLICY, MARKS_POLICY],
        _ => &[],
    }
}

/// What could happen without it.
fn danger(policy: &str) -> &'static str {
    match policy {
        FENCE_POLICY => "pods could start while their volumes are swapped",
        LOCK_POLICY => "anyone who may change Leases could take over the lock of a run and forge its marks",
        MARKS_POLICY => "anyone who may label snapshots, claims or volumes could pass them off as those of a run",
        _ => "whoever makes an object of this kind could use rights of the runner that he lacks",
    }
}

/// What is amiss with the policy, or with one that must stand beside it. None: it may begin. Of who acts with his own
/// rights nothing is looked at.
pub fn finding(v: &View, policy: &'static str) -> Result<Option<Finding>, Read> {
    if !v.want.guarded {
        return Ok(None);
    }
    for policy in [policy].iter().chain(beside(policy)) {
        let Some((object, what)) = v.guard(policy)?.gap(policy) else { continue };
        let message = format!("{what}: {}", danger(policy));
        let remedy =
            "sts-backup generate policies | kubectl apply --server-side -f -, or set SSB_ALLOW_WITHOUT_POLICY=true";
        let (severity, reason) = (Severity::Refuse, Reason::PolicyMissing);
        return Ok(Some(Finding { severity, reason, object, message, remedy: remedy.to_owned() }));
    }
    Ok(None)
}

/// The same as a sentence.
pub fn refusal(v: &View, policy: &'static str) -> Result<Option<Refusal>, Read> {
    let sentence = |found: Finding| {
        let Finding { reason, object, message, remedy, .. } = found;
        Refusal::new(reason, format!("{object} {message} ({remedy})"))
    };
    Ok(finding(v, policy)?.map(sentence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::noun::Want;
    use crate::plan::view::Fact;

    fn refused(guard: Guard) -> Option<String> {
        let mut v = View::new(Want { guarded: true, ..Want::default() });
        assert_eq!(refusal(&v, BACKUP_POLICY), Err(Read::Guard(BACKUP_POLICY)), "it is looked at first");
        v.fold(Fact::Guard(BACKUP_POLICY, guard));
        v.fold_all([LOCK_POLICY, MARKS_POLICY].map(|policy| Fact::Guard(policy, Guard::whole())));
        let refusal = refusal(&v, BACKUP_POLICY).unwrap()?;
        assert_eq!(refusal.reason, Reason::PolicyMissing);
        for words in ["generate policies | kubectl apply", "SSB_ALLOW_WITHOUT_POLICY", BACKUP_POLICY] {
            assert!(refusal.message.contains(words), "{words} is not in {}", refusal.message);
        }
        Some(refusal.message)
    }

    #[test]
    fn only_a_policy_that_is_bound_and_denies_stands() {
        let actions = |actions: &[&str]| Some(actions.iter().map(ToString::to_string).collect::<Vec<_>>());
        for (guard, words) in [
            (Guard::default(), "ValidatingAdmissionPolicy backup-author.backup.sts-backup.io is not installed"),
            (Guard { fails: None, ..Guard::whole() }, "ValidatingAdmissionPolicy backup-author"),
            (Guard { fails: Some(false), ..Guard::whole() }, "failurePolicy"),
            (Guard { actions: None, ..Guard::whole() }, "ValidatingAdmissionPolicyBinding backup-author"),
            (Guard { actions: actions(&["Warn", "Audit"]), ..Guard::whole() }, "(validationActions: Warn, Audit)"),
            (Guard { actions: actions(&[]), ..Guard::whole() }, "denies nothing"),
            (Guard { outdated: true, ..Guard::whole() }, "is of an older version"),
            (Guard::unread("no".into()), "cannot be read (no)"),
        ] {
            let said = refused(guard.clone()).unwrap();
            assert!(said.contains(words), "{guard:?}: {said}");
        }
        assert_eq!(refused(Guard::whole()), None);
        assert_eq!(refused(Guard { actions: actions(&["Audit", "Deny"]), ..Guard::whole() }), None);
    }

    /// Each of those that a restore, or a backup with hooks, is asked for under.
    #[test]
    fn what_must_stand_beside_is_looked_at_too() {
        for (asked, needed) in [
            (BACKUP_POLICY, &[BACKUP_POLICY, LOCK_POLICY][..]),
            (RESTORE_POLICY, &[RESTORE_POLICY, FENCE_POLICY, LOCK_POLICY, MARKS_POLICY]),
            (MARKS_POLICY, &[MARKS_POLICY]),
        ] {
            for missing in needed {
                let mut v = View::new(Want { guarded: true, ..Want::default() });
                let said = loop {
                    let policy = match refusal(&v, asked) {
                        Err(Read::Guard(policy)) => policy,
                        told => break told.unwrap().unwrap().message,
                    };
                    assert!(needed.contains(&policy), "nothing needs {policy}");
                    let guard = if policy == *missing { Guard::default() } else { Guard::whole() };
                    v.fold(Fact::Guard(policy, guard));
                };
                assert!(said.contains(missing) && said.contains(danger(missing)), "{missing}: {said}");
            }
        }
    }

    #[test]
    fn who_acts_with_his_own_rights_is_not_asked() {
        assert_eq!(refusal(&View::new(Want::default()), BACKUP_POLICY), Ok(None));
    }
}
