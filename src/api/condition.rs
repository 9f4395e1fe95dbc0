//! Conditions and the closed set of reasons.
//!
//! Role: the words that conditions, Events, metrics and docs share, and the one rule of when a condition's
//! transition time moves. Must not decide which condition holds.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::word::words;

words! {
    /// Types of our conditions; the first three are those of kstatus.
    pub enum ConditionType: Unknown {
        /// A backup: the newest run succeeded. A restore: it is Completed, or Undone as it was asked.
        Ready,
        /// A run is under way.
        Reconciling,
        /// Nothing more will happen until somebody changes something.
        Stalled,
        /// Of restores: the replaced volumes are still kept and can be swapped back.
        Undoable,
        /// A run is due and has had no Job, or no pod at work, for 30 s; or none is made because a newer version has written its
        /// plan: the watcher's own, as the fields that say when a run is due.
        Waiting,
    }
}

words! {
    /// Why: of conditions, Events, run outcomes and the metric label `reason`.
    pub enum Reason: Unknown {
        /// Event: a backup run began.
        BackupStarted,
        /// Event: every post hook has ended, the pods run free again.
        Thawed,
        /// Event and condition: the run is complete and ready.
        BackupCompleted,
        /// Event: the run failed; the message has the reason.
        BackupFailed,
        /// Event: retention deleted runs.
        RunsPruned,
        /// Event: a run succeeded, and nothing of what its retention policy lets go could be deleted; the message has the
        /// reason.
        RetentionSkipped,
        /// Event: a restore began.
        RestoreStarted,
        /// Event and condition: the pods are ready on the restored volumes.
        RestoreCompleted,
        /// Event: the restore failed; the message has the reason.
        RestoreFailed,
        /// Event: the old volumes are back under the claims after a failure.
        RolledBack,
        /// Event and condition: the old volumes are back under the claims on request.
        Undone,
        /// Event: the replaced volumes were given up.
        OldVolumesReleased,

        /// There is no such StatefulSet.
        StatefulSetNotFound,
        /// A claim that the StatefulSet should have does not exist.
        ClaimMissing,
        /// A claim has no volume.
        ClaimNotBound,
        /// A claim's volume is not of a CSI driver.
        ClaimNotCSI,
        /// The StatefulSet has no claims at all.
        NoClaims,
        /// No VolumeSnapshotClass serves the claim's driver, or none is its default.
        NoSnapshotClass,
        /// A pod whose hook is due does not run.
        PodNotRunning,
        /// The hook's container is not in the pod.
        ContainerNotFound,
        /// A hook ended with another exit code than 0.
        HookFailed,
        /// A hook did not end in its time.
        HookTimeout,
        /// The freeze reached maxFreezeSeconds.
        FreezeTooLong,
        /// A snapshot ended in a lasting error.
        SnapshotFailed,
        /// A snapshot did not become ready in snapshotReadyTimeoutSeconds.
        SnapshotTimeout,
        /// A post hook failed, the application may still be frozen.
        ThawFailed,
        /// No run fits the restore's spec.
        RunNotFound,
        /// The preflight found reasons to refuse.
        PreflightRefused,
        /// A quota leaves no room for the new claims, or for the snapshots of a run.
        QuotaTooSmall,
        /// The staging claims were not Bound in stageTimeoutSeconds.
        StageTimeout,
        /// The same restore, by name and spec, has been done before.
        AlreadyRestored,
        /// Another object's run has left its mark on the lock.
        LockedByOpenRun,
        /// Another runner holds the run.
        Superseded,
        /// The API server denied a request.
        Forbidden,
        /// The target namespace does not allow references from this one.
        NotGranted,
        /// deletionPolicy Delete with a StatefulSet of another namespace.
        DeletionPolicyCrossNamespace,
        /// The run's Job was lost.
        JobLost,
        /// The restore failed and, as asked, left everything as it is.
        Held,
        /// The slot passed while another run held the lock.
        Skipped,
        /// The pods did not stop in stopTimeoutSeconds.
        StopTimeout,
        /// No node can serve all staged volumes of a replica.
        StagingTopology,
        /// The pre hook's process may still run and freeze after the thaw.
        ThawUnproven,
        /// The admission policies that guard hooks and restores are not installed.
        PolicyMissing,
        /// An object of that name belongs to somebody else.
        Foreign,
        /// The pods were not ready in readyTimeoutSeconds.
        ReadyTimeout,
        /// A claim did not disappear in pvcDeletionTimeoutSeconds.
        PvcDeletionTimeout,
        /// The undo cannot be done safely.
        UndoRefused,
        /// A record was written in a format that this version does not know.
        FormatUnknown,
        /// The object says what cannot be done, or what this version cannot read; nothing is begun for it.
        InvalidSpec,
        /// The spec can be acted on again, and no run has ended since.
        SpecAccepted,
        /// The schedule has no date to come.
        NeverDue,
        /// Event: status says of the newest scheduled time what cannot be true, and it is not gone by.
        ScheduleTimeDoubted,

        /// Event, a warning of a restore: an autoscaler or an operator owns the replica count.
        ReplicasOwned,
        /// Event, a warning of a restore: an old volume's own reclaim policy is Retain.
        VolumeKept,
        /// Event, a warning of a restore: replicas run that the run lacks.
        ReplicaUncovered,
        /// Event, a warning of a restore: volumeClaimTemplates that the run lacks.
        TemplateUncovered,
        /// Event, a warning of a restore: pods have finalizers of others, and count as running until these are taken off.
        PodFinalizers,
        /// Event, a warning of a restore: a snapshot is ready, and still tells of an error from before.
        SnapshotErrorPassed,
        /// Event, a warning of a restore: the provider's tags would have the name of the staging claim.
        ClassParameters,
        /// Event, a warning of a restore: the claim's StorageClass is gone or of another driver, and another one is taken.
        ClassReplaced,
        /// Event, a warning of a restore: the run that it names is not on record.
        NotOnRecord,
        /// Event, a warning of a restore: a snapshot that it names is none of the run that it says.
        NotOfItsRun,
        /// Event, a warning of a restore: its pods start on another revision of the StatefulSet.
        RevisionPending,
        /// Event, a warning of a restore: a new claim has another size than the old one.
        ClaimResized,

        /// Waiting: others have the places, or runs of the same namespace that wait themselves.
        NoPlace,
        /// Waiting: a restore of the StatefulSet is not over.
        RestoreUnderWay,
        /// Waiting, and in progress: another run or somebody else holds the lock of the StatefulSet.
        LockHeld,
        /// Waiting: spec.suspend is set.
        Suspended,
        /// Waiting: the API server accepts neither the run's Job nor its pod, or not as they are.
        JobRejected,
        /// Waiting: the installation that manages the object is gone. Event: so it is, or it is at work and others leave the
        /// object alone.
        ManagedByAnother,
        /// Waiting: the pod of the run's Job is not scheduled, or its image not pulled.
        JobPending,
        /// In progress: an undo was asked for.
        UndoRequested,
        /// In progress: the restore failed and the old volumes are being put back.
        RollingBack,
    }
}

/// Sets one condition. Only a flip of `status` (or a new condition) moves `lastTransitionTime` to `now`; reason,
/// message and generation follow at any time. Conditions of other types stay as they are.
///
/// `status`: true, false, or `None` for `Unknown`. `generation`: the metadata.generation that was judged.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: ConditionType,
    status: impl Into<Option<bool>>,
    reason: Reason,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let status = match status.into() {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let old = conditions.iter().position(|c| c.type_ == kind.as_str());
    let since = match old {
        Some(at) if conditions[at].status == status => conditions[at].last_transition_time.clone(),
        _ => Time(now),
    };
    let new = Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

/// Leaves out what is the watcher's own: what the runner does not send it does not own.
pub fn leave_out_waiting(conditions: &mut Vec<Condition>) {
    conditions.retain(|c| c.type_ != ConditionType::Waiting.as_str());
}

/// The condition of that type, if there is one.
#[must_use]
pub fn get(conditions: &[Condition], kind: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.as_str())
}

/// Whether the condition of that type is there and `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], kind: ConditionType) -> bool {
    get(conditions, kind).is_some_and(|c| c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_a_flip_moves_the_transition_time() {
        let mut all = Vec::new();
        set(&mut all, ConditionType::Ready, false, Reason::HookFailed, "pod web-0", Some(1), at(10));
        assert_eq!(all[0].last_transition_time.0, at(10));

        set(&mut all, ConditionType::Ready, false, Reason::HookTimeout, "pod web-1", Some(2), at(20));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].last_transition_time.0, at(10), "reason, message and generation are no flip");
        assert_eq!((all[0].reason.as_str(), all[0].message.as_str()), ("HookTimeout", "pod web-1"));
        assert_eq!(all[0].observed_generation, Some(2));

        set(&mut all, ConditionType::Ready, true, Reason::BackupCompleted, "", Some(2), at(30));
        assert_eq!(all[0].last_transition_time.0, at(30));
        set(&mut all, ConditionType::Ready, None, Reason::Superseded, "", Some(2), at(40));
        assert_eq!((all[0].status.as_str(), all[0].last_transition_time.0), ("Unknown", at(40)));
    }

    #[test]
    fn other_conditions_stay() {
        let mut all = Vec::new();
        set(&mut all, ConditionType::Reconciling, true, Reason::BackupStarted, "a", None, at(1));
        set(&mut all, ConditionType::Ready, false, Reason::JobLost, "b", None, at(2));
        let before = all[0].clone();
        set(&mut all, ConditionType::Ready, true, Reason::BackupCompleted, "c", None, at(3));
        assert_eq!(all[0], before);
        assert!(is_true(&all, ConditionType::Ready) && !is_true(&all, ConditionType::Stalled));
        assert_eq!(get(&all, ConditionType::Reconciling).unwrap().message, "a");
    }

    #[test]
    fn every_reason_is_explained_once() {
        let docs = include_str!("../../docs/reasons.md");
        let said: Vec<_> = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).collect();
        for word in Reason::ALL {
            assert_eq!(said.iter().filter(|(reason, _)| *reason == word.as_str()).count(), 1, "{word}");
        }
        assert_eq!(said.len(), Reason::ALL.len(), "a word that is none");
    }

    #[test]
    fn words_are_camel_case_distinct_and_come_back() {
        for word in Reason::ALL {
            assert_eq!(word.as_str().parse(), Ok(*word));
            assert!(word.as_str().starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.as_str().chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
        let distinct: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(distinct.len(), Reason::ALL.len());
        assert!("Unknown".parse::<Reason>().is_err());
        let newer: Reason = serde_json::from_str("\"FromTheFuture\"").unwrap();
        assert_eq!(newer, Reason::Unknown);
    }
}
