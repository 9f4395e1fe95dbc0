//! What speaks against a run before anything of it is written: an object that breaks the rules, what fits into no
//! request, a namespace that has not consented.

use jiff::Timestamp;

use super::backup::{Backup, one, write};
use super::flow::{Exit, Feed, Plan, end, wait};
use super::journal::{Freeze, Void};
use super::name;
use super::noun::{Refusal, Want};
use super::report::Write;
use super::resolve::{self, Covered};
use super::view::{Read, View};
use crate::api::condition::Reason;

/// A hook's command travels in a URL, of which the client makes 65,534 bytes at most: what is left is for its path.
const URL: usize = 60 * 1024;

/// All of a status; the API server stores no object of more than 1.5 MiB.
pub(super) const STATUS: usize = 1024 * 1024;

/// What status says in the end of one snapshot, beside its names.
const SNAPSHOT: usize = 320;

/// The object says what cannot be done: nothing is begun for it.
pub fn flaw(want: &Want) -> Option<Refusal> {
    let refuse = |message| Some(Refusal::new(Reason::InvalidSpec, message));
    if let Some(refusal) = breach(&want.backup.flaws) {
        return Some(refusal);
    }
    let hooks = [("preBackupHook", &want.backup.hooks.pre), ("postBackupHook", &want.backup.hooks.post)];
    let sizes = hooks.into_iter().filter_map(|(field, hook)| Some((field, encoded(&hook.as_ref()?.argv))));
    let (field, size) = sizes.into_iter().find(|(_, size)| *size > URL)?;
    refuse(format!(
        "nothing is begun, because spec.{field}.command takes {size} bytes in the request that starts it, and {URL} are \
         allowed: put the script into the image or a ConfigMap, and let the command call it"
    ))
}

/// The object breaks the rules of its schema, which may be younger than it is.
pub fn breach(flaws: &[String]) -> Option<Refusal> {
    let message = || format!("nothing is begun, because spec breaks the rules: {}", flaws.join("; "));
    (!flaws.is_empty()).then(|| Refusal::new(Reason::InvalidSpec, message()))
}

/// How long the arguments are in a URL.
fn encoded(argv: &[String]) -> usize {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" *-._".contains(&byte);
    let byte = |byte: u8| if plain(byte) { 1 } else { 3 };
    argv.iter().map(|part| "&command=".len() + part.bytes().map(byte).sum::<usize>()).sum()
}

/// The status that this run would come to in the end fits into no object.
pub fn too_large(v: &View, intent: &Write, covered: &[Covered]) -> Option<Refusal> {
    let begun = serde_json::to_string(&intent.status).map_or(usize::MAX, |text| text.len());
    let one = |claim: &Covered| SNAPSHOT + v.want.name.len() + claim.pvc.len() + 2 * claim.key.template.len();
    let size = covered.iter().map(one).fold(begun, usize::saturating_add);
    (size > STATUS).then(|| {
        let message = format!(
            "nothing is begun, because the status of a run of {} volumes would take {size} bytes, and {STATUS} are \
             allowed: let several StatefulSetBackups with spec.claimTemplates share them",
            covered.len()
        );
        Refusal::new(Reason::InvalidSpec, message)
    })
}

/// Another namespace has not consented, or not any more: nothing is written there. A freeze that its Lease names was
/// begun with its consent, and is thawed.
pub fn refusal(v: &View) -> Result<Option<Refusal>, Read> {
    if v.refused.is_some() {
        return Ok(None);
    }
    Ok(resolve::allowed(v)?.err())
}

/// A freeze that is none, or whose process has thawed it: nothing is left to do there.
pub fn void(v: &View, f: &Freeze, refusal: Refusal, now: Timestamp) -> Plan<Backup> {
    let lease = v.lease()?;
    match lease.and_then(|lease| lease.holder.as_ref()).filter(|holder| **holder != v.want.me) {
        Some(holder) if lease.is_some_and(|lease| !lease.gone) => {
            if now < v.want.lock_by {
                return wait([Feed::Lease], v.want.lock_by);
            }
            end(Exit::Superseded(format!("{holder} holds the lock {}", name::lease(&v.want.statefulset))))
        }
        _ => one(write(v, &f.void(Void::Failed(refusal), now), now)?, now),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::plan::hook::{HookSpec, Pair};
    use crate::plan::noun::BackupWant;

    fn said(argv: Vec<String>) -> Option<String> {
        let post = Some(HookSpec { argv, container: None, timeout: SignedDuration::from_secs(1) });
        let backup = BackupWant { hooks: Pair { pre: None, post }, ..BackupWant::default() };
        flaw(&Want { backup, ..Want::default() }).map(|refusal| refusal.message)
    }

    /// What is let pass fits into the request that the client makes; what is not says by how much.
    #[test]
    fn a_command_that_is_let_pass_can_be_sent() {
        let params = kube::api::AttachParams::default().container("c".repeat(63)).stdout(true).stderr(true);
        let path = kube::core::Request::new(format!("/api/v1/namespaces/{}/pods", "n".repeat(63)));
        for (unit, width) in [("a", 1), ("\n", 3), ("ü", 6), (" ", 1), ("~", 3), ("漢", 9)] {
            let argv = |bytes: usize| vec![unit.repeat(bytes / width)];
            assert!(said(argv(URL - 20)).is_none(), "{unit:?}");
            assert!(path.exec(&"p".repeat(63), argv(URL - 20), &params).is_ok(), "{unit:?}");
            assert!(said(argv(URL + 20)).unwrap().contains("spec.postBackupHook.command takes 6"), "{unit:?}");
            assert!(path.exec("p", argv(70_000), &params).is_err(), "{unit:?}: it is no bound at all");
        }
        let parts = vec![String::from("a"); 1024];
        assert_eq!(encoded(&parts), 10 * 1024);
        assert!(said(parts).is_none());
    }
}
