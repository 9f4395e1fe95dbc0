//! The wire shapes: our two kinds, the snapshot kinds, and the names that tie objects together.
//!
//! Role: what is stored in the API server, word for word. No clock, no client, no decision: only accessors that
//! fill in the documented default of an absent field.

pub mod backup;
pub(crate) mod check;
pub mod condition;
pub mod lean;
mod meta;
pub mod recorded;
pub mod restore;
pub(crate) mod rules;
pub mod shared;
pub mod slim;
pub mod snapshot;
pub mod word;

/// API group of both kinds.
pub const GROUP: &str = "backup.sts-backup.io";
/// The one served version.
pub const VERSION: &str = "v1alpha1";
/// `GROUP/VERSION`, as in a manifest's `apiVersion`.
pub const API_VERSION: &str = "backup.sts-backup.io/v1alpha1";
/// Finalizer of both kinds. On a backup exactly while its freeze intent is open; on a restore from the plan until the
/// old volumes are released.
pub const FINALIZER: &str = "backup.sts-backup.io/run";
/// Longest name of a backup or restore, in characters: Job names and label values are built from it.
pub const NAME_MAX: usize = 52;
/// Value of the label policy-uid on the snapshots of a run without an object: its policy is a file.
pub const FILE_UID: &str = "file";
/// Name of the admission policy, and of its binding, by which a StatefulSet is kept at 0 replicas.
pub const FENCE_POLICY: &str = "fence.backup.sts-backup.io";
/// Name of the admission policy, and of its binding, that asks the author of a StatefulSetBackup for his own rights.
pub const BACKUP_POLICY: &str = "backup-author.backup.sts-backup.io";
/// The same of a StatefulSetRestore.
pub const RESTORE_POLICY: &str = "restore-author.backup.sts-backup.io";
/// The same of the lock Leases: who changes holder, marks, fence and memory.
pub const LOCK_POLICY: &str = "lock.backup.sts-backup.io";
/// The same of our labels and annotations on snapshots, claims and volumes.
pub const MARKS_POLICY: &str = "marks.backup.sts-backup.io";
/// What the admission policies guard, as a number: on each of them under [`annotation::FORMAT`]. A pod's run goes by those of
/// this number, or a higher one: the policies are the first that an upgrade renews, and each number guards more.
pub const POLICY_FORMAT: &str = "4";
/// Newest format of the annotations on snapshots and of the plan in a restore's status. Older ones are read too.
pub const FORMAT: &str = "1";

/// Names for server-side apply (`metadata.managedFields[].manager`).
pub mod manager {
    /// Owns nextScheduleTime, lastScheduleTime, lastRequest and managedBy.
    pub const WATCHER: &str = "sts-backup/watcher";
    /// Says that a spec cannot be acted on, or can again, where no run says anything.
    pub const VERDICT: &str = "sts-backup/verdict";
    /// Owns all the rest of status.
    pub const RUNNER: &str = "sts-backup/runner";
}

/// Label keys.
pub mod label {
    /// On snapshots and Jobs: name of the StatefulSet.
    pub const STATEFULSET: &str = "backup.sts-backup.io/statefulset";
    /// On snapshots: name of the StatefulSetBackup.
    pub const POLICY: &str = "backup.sts-backup.io/policy";
    /// On snapshots: namespace of the StatefulSetBackup.
    pub const POLICY_NAMESPACE: &str = "backup.sts-backup.io/policy-namespace";
    /// On snapshots: uid of the StatefulSetBackup, or `file` for a run without one.
    pub const POLICY_UID: &str = "backup.sts-backup.io/policy-uid";
    /// On snapshots: run id, `YYYYMMDD-HHMMSS` (UTC). A snapshot without it was not made by this version.
    pub const RUN: &str = "backup.sts-backup.io/run";
    /// On snapshots: name of the volumeClaimTemplate.
    pub const CLAIM_TEMPLATE: &str = "backup.sts-backup.io/claim-template";
    /// On snapshots: ordinal of the pod, decimal.
    pub const ORDINAL: &str = "backup.sts-backup.io/ordinal";
    /// On everything we create; its value is [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Value of [`MANAGED_BY`].
    pub const MANAGED_BY_VALUE: &str = "sts-backup";
    /// On Jobs: backup, restore, undo or release.
    pub const KIND: &str = "backup.sts-backup.io/kind";
    /// On Jobs: name of the object that the Job serves.
    pub const NAME: &str = "backup.sts-backup.io/name";
    /// On Jobs: namespace of the object that the Job serves.
    pub const NAMESPACE: &str = "backup.sts-backup.io/namespace";
    /// On Jobs: uid of the object that the Job serves.
    pub const UID: &str = "backup.sts-backup.io/uid";
    /// On the lock Lease: while it is [`FENCE_VALUE`], the StatefulSet stays at 0 replicas.
    pub const FENCE: &str = "backup.sts-backup.io/fence";
    /// Value of [`FENCE`].
    pub const FENCE_VALUE: &str = "scale";
    /// On persistent volumes and claims: uid of the restore that set them aside or made them.
    pub const RESTORE: &str = "backup.sts-backup.io/restore";
    /// On persistent volumes: what the volume is to that restore (old, new, other).
    pub const ROLE: &str = "backup.sts-backup.io/role";
    /// On persistent volumes: name of the claim.
    pub const CLAIM: &str = "backup.sts-backup.io/claim";
}

/// Annotation keys.
pub mod annotation {
    /// On a backup: any new value triggers a run.
    pub const REQUESTED_AT: &str = "backup.sts-backup.io/requested-at";
    /// On a restore: any new value asks for its undo.
    pub const UNDO: &str = "backup.sts-backup.io/undo";
    /// How a value of it ends that asks for the undo although replicas have come since the restore.
    pub const FORCED: &str = "--force";
    /// On a backup: uid of a former object of the same name whose runs are to count as its own.
    pub const ADOPT: &str = "backup.sts-backup.io/adopt";
    /// On a Namespace: comma-separated namespaces whose objects may refer to it.
    pub const ALLOW_FROM: &str = "backup.sts-backup.io/allow-from";
    /// On a VolumeSnapshotClass: `Cut` (default) or `Ready`, when the thaw may follow.
    pub const THAW_AT: &str = "backup.sts-backup.io/thaw-at";
    /// On a VolumeSnapshotClass: `"true"` if the driver keeps snapshots inside the source volume.
    pub const IN_VOLUME_SNAPSHOTS: &str = "backup.sts-backup.io/in-volume-snapshots";

    /// On snapshots: the claim's restorable manifest, JSON.
    pub const CLAIM: &str = "backup.sts-backup.io/claim";
    /// On snapshots: how many snapshots make the run complete, decimal.
    pub const RUN_SIZE: &str = "backup.sts-backup.io/run-size";
    /// On snapshots: hash of the StatefulSet's pod template.
    pub const TEMPLATE_HASH: &str = "backup.sts-backup.io/template-hash";
    /// On snapshots: replicas of the StatefulSet at the cut, decimal.
    pub const REPLICAS: &str = "backup.sts-backup.io/replicas";
    /// On snapshots: leaseTransitions of the lock under which they were cut, decimal.
    pub const TRANSITIONS: &str = "backup.sts-backup.io/transitions";
    /// On snapshots: by which its maker knows it again, hexadecimal.
    pub const TOKEN: &str = "backup.sts-backup.io/token";
    /// On snapshots: format of these annotations, see [`FORMAT`](super::FORMAT).
    pub const FORMAT: &str = "backup.sts-backup.io/format";
    /// On snapshots, after the thaw: instant of the cut, nanoseconds since 1970, decimal.
    pub const CUT: &str = "backup.sts-backup.io/cut";
    /// On snapshots, after the thaw: a [`Consistency`](super::shared::Consistency) word.
    pub const CONSISTENCY: &str = "backup.sts-backup.io/consistency";
    /// On snapshots: comma-separated uids of the restores that use them.
    pub const PINNED_BY: &str = "backup.sts-backup.io/pinned-by";

    /// On persistent volumes: the reclaim policy to put back.
    pub const RECLAIM_POLICY: &str = "backup.sts-backup.io/reclaim-policy";
    /// On persistent volumes: namespace and name of the restore that set them aside.
    pub const RESTORE: &str = "backup.sts-backup.io/restore";
    /// On persistent volumes: until when they are kept, RFC 3339.
    pub const UNDO_DEADLINE: &str = "backup.sts-backup.io/undo-deadline";
    /// On the lock Lease and on restored claims: which restores were done, with a hash of their spec.
    pub const RESTORED_BY: &str = "backup.sts-backup.io/restored-by";

    /// On staging claims: comma-separated nodes that the volume was to be provisioned for so far.
    pub const TRIED_NODES: &str = "backup.sts-backup.io/tried-nodes";
    /// On the lock Lease: the run whose freeze or fence is open, JSON.
    pub const OPEN: &str = "backup.sts-backup.io/open";
    /// On the lock Lease: the runs that were sealed, JSON, as `plan::roll` has it.
    pub const RUNS: &str = "backup.sts-backup.io/runs";
    /// On the lock Lease: the one user who may scale the fenced StatefulSet.
    pub const FENCE_USER: &str = "backup.sts-backup.io/fence-user";

    /// On Jobs: the slot that the Job serves.
    pub const SLOT: &str = "backup.sts-backup.io/slot";
    /// On Jobs: which attempt of its slot the Job is, from 1.
    pub const ATTEMPT: &str = "backup.sts-backup.io/attempt";
}

/// Annotation keys of others that we read or write.
pub mod foreign {
    /// On a VolumeSnapshotClass: `"true"` on the default class of its driver.
    pub const DEFAULT_SNAPSHOT_CLASS: &str = "snapshot.storage.kubernetes.io/is-default-class";
    /// On a StorageClass: `"true"` on the default class.
    pub const DEFAULT_STORAGE_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
    /// On a volume: the provisioner that made it.
    pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
    /// On a claim of a WaitForFirstConsumer class: the node for which to provision.
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
    /// On a pod: the container that exec enters when none is named.
    pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
}
