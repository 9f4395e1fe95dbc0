//! What status says of the newest slot is believed only as far as it can be true: whoever may patch it could have slots
//! skipped for ever, and a dump that is restored tells of another object.

use jiff::Timestamp;

use super::entry::{Object, Subject};
use crate::api::condition::Reason;
use crate::plan::report::Note;

/// So many seconds the clocks of two watchers may differ: a slot that status puts further ahead has had no run.
const SKEW: i64 = 3600;

/// Why no slot of this object can have had its run then: others write status, too, and dumps are restored.
pub(super) fn doubt(o: &Object, slot: Timestamp, now: Timestamp) -> Option<&'static str> {
    match () {
        () if slot < o.created => Some("is older than the object"),
        () if slot.duration_since(now).as_secs() > SKEW => Some("lies in the future"),
        () => None,
    }
}

/// That a lastScheduleTime is replaced that cannot be true.
pub(super) fn doubted(o: &Object, now: Timestamp) -> Option<Note> {
    let Subject::Backup(policy) = &o.subject else { return None };
    let last = policy.owned.last?;
    let why = doubt(o, last, now)?;
    let instead = "the schedule goes on from the newest run that is known";
    let remedy = "If nobody has restored a dump of it, look who may patch statefulsetbackups/status";
    let message = format!("status.lastScheduleTime {last} {why}, so it is not believed: {instead}. {remedy}");
    Some(Note { warning: true, reason: Reason::ScheduleTimeDoubted, message })
}
