//! What must hold when a run on the wire is over, read from what is stored.

use super::*;

/// The violations, and the log that shows them.
pub struct Verdict {
    pub bad: Vec<String>,
    /// Of the processes, in their order.
    pub exits: Vec<Option<Exit>>,
    pub log: Vec<String>,
    pub writes: usize,
    pub reads: usize,
    pub renewals: usize,
    pub watches: usize,
}

pub fn judge(case: &Case) -> Verdict {
    let rt = runtime();
    rt.block_on(async {
        let (server, clock) = world(case);
        let exits = Box::pin(to_the_end(&server, clock, ONLY)).await;
        sleep(std::time::Duration::from_mins(2)).await; // what is being deleted goes
        server.act(|state| {
            let count = |class| state.faults.count(class);
            let (writes, reads) = (count(Class::Write), count(Class::Read));
            let (renewals, watches) = (count(Class::Renewal), count(Class::Watch));
            let mut bad = std::mem::take(&mut state.violations);
            bad.extend(truth::passages(state));
            bad.extend(verdict(state, case, &exits));
            Verdict { bad, exits, log: std::mem::take(&mut state.log), writes, reads, renewals, watches }
        })
    })
}

fn verdict(state: &crate::apiserver::State, case: &Case, exits: &[Option<Exit>]) -> Vec<String> {
    let mut bad = vec![];
    let mut check = |wrong: bool, what: &str| {
        if wrong {
            bad.push(what.to_owned());
        }
    };
    // Where the world itself forbids the thaw, the message says in which pod.
    let said = truth::record(&state.store, shop::POLICY).and_then(|record| record.status.message).unwrap_or_default();
    let told = case.refuses() && said.contains("post hook") && said.contains(&format!("pod {}-", shop::SET));
    check(truth::frozen(state) > 0 && !told, "left frozen");
    let late = state.nature.answered.is_some_and(|answered| answered > PROMPT);
    check(case.strikes.is_empty() && late, "SIGTERM was answered late");
    check(shop::namesakes_lost(&state.store), "a namesake was deleted");
    let alien = format!("{:?}", [shop::ALIEN]);
    check(state.log.iter().any(|line| line.starts_with("exec") && line.contains(&alien)), "an alien command ran");
    let snaps = truth::snaps(&state.store);
    let contents = state.store.all("volumesnapshotcontents").count();
    let torn = case.has(&[Deed::DeleteClaim, Deed::AddSnapshot]);
    check(contents != state.store.all("volumesnapshots").count() && !torn, "contents leaked");
    let Some(record) = truth::record(&state.store, shop::POLICY) else {
        check(!case.has(&[Deed::DeleteObject, Deed::Usurp]), "our object is gone");
        return bad;
    };
    let lease = truth::lease(&state.store);
    let replaced = case.has(&[Deed::ReplaceObject]);
    check(!case.refuses() && !matches!(record.journal, Journal::Idle | Journal::Closed(_)), "journal left open");
    check(!case.refuses() && !record.finalizers.is_empty(), "finalizer left");
    let open = lease.as_ref().is_some_and(|lease| lease.open.is_some());
    check(!case.refuses() && !replaced && open, "open mark left");
    // One that a dead process has left behind runs out; one that is renewed is somebody's for ever.
    check(!case.refuses() && !replaced && truth::is_renewed(&state.store), "Lease still held");
    let last = record.status.last_run.clone().unwrap_or_default();
    // A hook whose end nobody witnessed may be at work still: that is no success.
    let unheard = [Reason::ThawUnproven, Reason::HookTimeout, Reason::ThawFailed].map(Some).contains(&last.reason);
    let may_fail = case.refuses()
        || case.hides() && unheard
        || case.has(&[
            Deed::DeleteClaim,
            Deed::DeleteSet,
            Deed::ReplaceSet,
            Deed::DeletePod,
            Deed::DeleteObject,
            Deed::Usurp,
            Deed::ReplaceObject,
            Deed::RestartContainer,
            Deed::ReplaceClaim,
            Deed::ReplaceSnapshot,
        ]);
    let good = last.outcome == Some(Outcome::Succeeded);
    check(
        !good && !may_fail,
        &format!("wrong outcome {:?} {:?} {:?}", last.outcome, record.status.message, exits.last()),
    );
    bad.extend(runs(state, case, &record.uid, &snaps, good));
    bad
}

/// What may count as a backup is one: whole, of one freeze.
fn runs(
    state: &crate::apiserver::State,
    case: &Case,
    uid: &str,
    snaps: &BTreeMap<String, Snap>,
    good: bool,
) -> Vec<String> {
    let mut bad = vec![];
    let mut of: BTreeMap<_, Vec<&Snap>> = BTreeMap::new();
    let real = |snap: &&Snap| snap.claim.ordinal < shop::REPLICAS;
    let ours = snaps.values().filter(real).filter(|snap| snap.policy_uid == uid && !snap.leaving);
    ours.for_each(|snap| of.entry(snap.run).or_default().push(snap));
    let size = shop::TEMPLATES.len() * shop::REPLICAS as usize;
    let whole = of.values().filter(|run| run.len() == size && run.iter().all(|snap| snap.sealed)).count();
    if good && whole != 1 && !case.has(&[Deed::ReplaceSnapshot]) {
        bad.push(format!("{whole} whole runs"));
    }
    let torn = case.has(&[Deed::ReplaceSnapshot, Deed::ReplaceObject]) || case.refuses();
    for (id, run) in of {
        let straggles = case.strikes.iter().any(|(_, _, strike)| *strike == Strike::Straggle);
        if run.len() != size && !torn && !straggles {
            bad.push(format!("run {id} is partial"));
        }
        let evidence: Vec<_> = run.iter().map(|snap| state.nature.evidence.get(&snap.uid)).collect();
        let thaws: BTreeSet<_> = evidence.iter().map(|seen| seen.map(|seen| seen.thaws)).collect();
        let frozen = !case.hooks || evidence.iter().all(|seen| seen.is_some_and(|seen| seen.all_frozen));
        if run.iter().any(|snap| snap.sealed) && !(thaws.len() == 1 && frozen) {
            bad.push(format!("run {id} is sealed and was no freeze: {evidence:?}"));
        }
    }
    bad
}
