//! The words between planner and driver: what to do next, and what is constant about a step.

use std::fmt::Debug;

use jiff::Timestamp;

use super::name::RunId;
use super::noun::{Outcome, Refusal, Stop};
use super::view::{Fact, Read, View};

/// A planner's answer. `Err(read)` says "I cannot decide before this is read". [`Seen::get`] yields it and `?`
/// hands it on, so nothing is ever read that no decision needs, and nothing is decided on what is unknown.
///
/// [`Seen::get`]: super::view::Seen::get
pub type Plan<S> = Result<Next<S>, Read>;

/// A flow is its step enum and one of these. It is total: any view, any time.
pub type Planner<S> = fn(&View, Timestamp) -> Plan<S>;

/// What the driver does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next<S> {
    /// These commute: run them at once. What has not answered at `until` is lost.
    Do {
        batch: Vec<S>,
        until: Timestamp,
    },
    /// Nothing to do before one of these feeds speaks, or it is `until`.
    Wait {
        on: Vec<Feed>,
        until: Timestamp,
    },
    End(Exit),
}

/// A watch; opened when first waited on, from what is there then, and kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// The lock Lease: its changes, and the instant at which its holder counts as gone.
    Lease,
    /// All that [`Read::Snaps`] lists, never one run of it: strangers and stragglers show as well.
    Snaps,
    /// The pods of the namespace: a container that restarts is not frozen any more, and who is gone uses no volume.
    Pods,
    /// The end of a pre hook that was given up: by run and ordinal.
    Hook(RunId, u32),
    /// The content of one `VolumeSnapshot`, by the uid that the reply to its creation told. It knows the cut first.
    Cut(String),
    /// The `PersistentVolumeClaim`s of the namespace.
    Claims,
    /// One `PersistentVolume`.
    Volume(String),
    /// The `StatefulSet`.
    Target,
    /// Our own `StatefulSetRestore`: that somebody changes or deletes it.
    Object,
    /// The VolumeAttachments: that they change.
    Attached,
}

pub fn act<S>(batch: impl IntoIterator<Item = S>, until: Timestamp) -> Plan<S> {
    Ok(Next::Do { batch: batch.into_iter().collect(), until })
}

pub fn wait<S>(on: impl IntoIterator<Item = Feed>, until: Timestamp) -> Plan<S> {
    Ok(Next::Wait { on: on.into_iter().collect(), until })
}

pub fn end<S>(exit: Exit) -> Plan<S> {
    Ok(Next::End(exit))
}

/// How a process of a run ends. [`Exit::code`] is what a Job's `podFailurePolicy` reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// The run is closed; its outcome stands in status.
    Done(Outcome),
    /// All that can be done now is done. The sentence says what waits for something else.
    Waits(String),
    /// Nothing could be written down: the object is gone, or its status may not be written.
    Refused(Refusal),
    /// Not finished, and nothing is left frozen: run it again. The sentence says why.
    Again(String),
    /// Another process holds the run or the lock. The sentence says which.
    Superseded(String),
}

impl Exit {
    /// The lock is another's.
    pub fn usurped() -> Exit {
        Exit::Superseded("the lock was lost to another process".into())
    }

    /// Stopped by something else than another process.
    pub fn stopped(stop: Stop) -> Exit {
        Exit::Again(match stop {
            Stop::Sigterm => "stopped before the run was complete: the same command takes it up".into(),
            Stop::CutOff | Stop::LeaseLost => {
                "the API server did not answer for longer than the lock lasts (30 s). Nobody else has taken it: the same \
                 command takes the run up"
                    .into()
            }
        })
    }

    /// 0 done, 10 failed for good, 20 worth another try, 30 superseded.
    pub fn code(&self) -> u8 {
        match self {
            Exit::Done(Outcome::Succeeded) | Exit::Waits(_) => 0,
            Exit::Done(Outcome::Failed(_)) | Exit::Refused(_) => 10,
            Exit::Again(_) => 20,
            Exit::Done(Outcome::Superseded(_)) | Exit::Superseded(_) => 30,
        }
    }
}

/// What is constant about a kind of step: audit lines, role rules and the driver read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub name: &'static str,
    pub verbs: &'static [Verb],
    /// A stop does not wait for its reply (a pre hook may run for hours).
    pub yields: bool,
}

/// The rule of a role that a request needs: group, resource (with its subresource), verb.
pub type Verb = (&'static str, &'static str, &'static str);

/// How it came that a reply is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Connection gone, timeout, 5xx; or a conflict: what we knew is stale.
    Reply,
    /// The batch's `until` passed.
    Late,
    /// A stop cut it short.
    Stopped,
}

/// From when to when something was tried, by the runner's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    pub begun: Timestamp,
    pub ended: Timestamp,
}

/// One write. It owns all that its effect needs; its effect lives in `step`.
pub trait Step: Debug + Clone {
    const TABLE: &'static [Row];
    fn row(&self) -> &'static Row;
    /// What is true once this was sent and its reply is unknown: what it touched must be read again.
    fn lost(&self, how: Lost, when: When) -> Fact;
    /// What a definite no means: the end of the run, unless the step is of no weight for it.
    fn refused(&self, refusal: Refusal) -> Fact;
}

/// Declares a flow's steps and its table as one list, so that they cannot drift apart.
macro_rules! steps {
    ($(#[$doc:meta])* pub enum $Flow:ident {
        $($(#[$note:meta])* $Kind:ident($data:ty) => $verbs:expr $(, $yields:ident)?;)+
    } lost($how:ident, $when:ident) { $($lost:tt)+ } $(refused($why:ident) { $($refused:tt)+ })?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $Flow { $($(#[$note])* $Kind($data),)+ }

        impl $crate::plan::flow::Step for $Flow {
            const TABLE: &'static [$crate::plan::flow::Row] =
                &[$($crate::plan::flow::Row { name: stringify!($Kind), verbs: &$verbs, yields: $crate::plan::flow::flag!($($yields)?) },)+];
            fn row(&self) -> &'static $crate::plan::flow::Row {
                enum Kind { $($Kind,)+ }
                let kind = match self { $(Self::$Kind(_) => Kind::$Kind,)+ };
                &Self::TABLE[kind as usize]
            }
            fn lost(&self, $how: $crate::plan::flow::Lost, $when: $crate::plan::flow::When) -> $crate::plan::view::Fact {
                match self { $($lost)+ }
            }
            #[allow(unreachable_patterns)]
            fn refused(&self, refusal: $crate::plan::noun::Refusal) -> $crate::plan::view::Fact {
                $(let $why = &refusal;
                match self { $($refused)+ _ => {} })?
                $crate::plan::view::Fact::Refused(refusal)
            }
        }
    };
}
macro_rules! flag {
    () => {
        false
    };
    (yields) => {
        true
    };
}
pub(crate) use {flag, steps};
