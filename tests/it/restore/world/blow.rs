//! What befalls a restore.

/// What befalls one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    DieBefore,
    DieAfter,
    LostBefore,
    LostAfter,
    Hang,
    Refuse,
    /// It is answered with 401, 403 or a 404 of the path, this once.
    Denied,
    /// The API server comes up: for some seconds whatever is asked, reads too, is answered so.
    Comes,
    /// This kind of request is answered so from now on, for longer than anybody waits.
    Barred,
    Sigterm,
    /// The Lease goes to a stranger who has no business with our object, and who gives it back at once.
    Stolen,
    /// The process dies; its request lands a second later, when the successor is at work.
    Straggler,
    /// It is done, and done once more.
    Twice,
    /// Somebody deletes the restore object.
    Deleted,
    /// Somebody asks for an undo while the restore is at work.
    AskUndo,
    /// Somebody takes a snapshot of a claim: `World::late`.
    Snapshot,
    /// A pod of the StatefulSet is deleted.
    DeletePod,
    /// A pod that is not the StatefulSet's mounts a claim for a while.
    Guest,
    /// Somebody scales it, where the fence lets them.
    Rescale,
    /// With its pods.
    DeleteTarget,
    /// Without them: nobody looks after them any more.
    Orphan,
    /// The namespace is deleted, with all that is in it.
    DeleteNamespace,
    /// Another StatefulSet of this name.
    ReplaceTarget,
    DeleteClaim,
    /// Somebody deletes the volume that was under a claim before the restore.
    LoseVolume,
    /// Somebody puts a claim and a volume of their own under the name.
    ReplaceClaim,
    /// Somebody takes the finalizer off the restore object, deletes it and applies its manifest again.
    ReplaceObject,
    /// Somebody puts the restore's label on a claim that is there.
    LabelClaim,
    /// Somebody makes the staging claim first: with the label, the dataSource and a volume of their own.
    Squat,
    /// The same under a name that is free in the midst of the swap.
    SquatLive,
    /// Somebody names a volume of their own in a staging claim that is not bound yet.
    Bend,
    /// Somebody who may write the status puts a neighbour's volume into the plan.
    ForgePlan,
    /// Somebody who may write the status puts a neighbour's volume among the staged ones.
    ForgeStaged,
}
