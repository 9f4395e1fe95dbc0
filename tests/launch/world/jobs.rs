//! What becomes of Jobs, and what their runners write.

use super::*;

impl World {
    pub(super) fn of(&self, owner: Uid) -> impl Iterator<Item = &Pod> {
        self.pods.range((owner, Uid(0))..=(owner, Uid(u128::MAX))).map(|(_, pod)| pod)
    }

    pub(super) fn launch(&mut self, owner: Uid, run: &Run) -> Job {
        let name = run.job_name();
        if let Some(key) = self.names.get(&name) {
            return self.pods[key].job.clone();
        }
        self.launches += 1;
        self.launched.insert((owner, run.slot.clone()));
        let fate = match self.chance.below(30) {
            0 if run.trigger != Trigger::Manual => Fate::FailUnseen,
            1 if run.trigger != Trigger::Manual => Fate::DeletedEarly,
            2 => Fate::Silent,
            3 => Fate::FailOpen,
            4 => Fate::DeletedLate,
            _ => Fate::Well,
        };
        let uid = self.fresh_uid();
        let slot = run.slot.clone().into();
        let job = Job::new(uid, Kind::Backup, slot, run.attempt, run.trigger, State::Pending, None);
        self.names.insert(name.clone(), (owner, uid));
        self.pods.insert((owner, uid), Pod { name, job: job.clone(), fate, alive: true });
        self.publish(&Heard::Job(owner, job.clone()));
        self.put(self.t + 1, Event::Begin((owner, uid)));
        job
    }

    fn set(&mut self, key: Key, state: State) {
        let t = self.t;
        let Some(pod) = self.pods.get_mut(&key) else { return };
        pod.job.state = state;
        let ended = !pod.job.is_active();
        if ended {
            pod.alive = false;
            pod.job.ended = Some(at(t));
        }
        let job = pod.job.clone();
        self.publish(&Heard::Job(key.0, job));
        if ended {
            self.put(t + TTL, Event::Expire(key));
        }
    }

    pub fn remove(&mut self, key: Key) {
        if let Some(pod) = self.pods.remove(&key) {
            self.names.remove(&pod.name);
            self.publish(&Heard::JobGone(key.0, key.1));
        }
    }

    /// The runner's first moments: it looks whether it is the one, and says that the run has begun.
    pub fn begin(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key) else { return };
        let (owner, run, fate) = (key.0, pod.job.clone(), pod.fate);
        self.set(key, State::Running);
        let Some(object) = self.objects.get(&owner) else {
            return self.set(key, State::Failed { refused: true });
        };
        let policy = policy_of(object);
        let closed = policy.last.as_ref().is_some_and(|last| last.slot == run.slot && last.outcome.is_some());
        let later = policy.run.as_ref().is_some_and(|open| open.slot == run.slot && open.attempt > run.attempt);
        if closed || later {
            return self.set(key, State::Failed { refused: true });
        }
        match fate {
            Fate::FailUnseen => return self.set(key, State::Failed { refused: false }),
            Fate::DeletedEarly => return self.remove(key),
            _ => {}
        }
        let resumed = policy.run.as_ref().is_some_and(|open| open.slot == run.slot);
        assert!(policy.run.is_none() || resumed, "two runs of one object at once");
        if !resumed {
            self.begun.entry((owner, run.slot.to_string())).or_default().push(self.t);
        }
        // Whoever was at it before finds out by his next renewal or write.
        let earlier = |pod: &&Pod| pod.alive && pod.job.is_active() && pod.job.slot == run.slot && pod.job.uid != key.1;
        let earlier: Vec<_> = self.of(owner).filter(earlier).map(|pod| (owner, pod.job.uid)).collect();
        for earlier in earlier {
            self.put(next(self.t + 1, 30), Event::Close(earlier));
        }
        let (slot, attempt, trigger, started) = (run.slot, run.attempt, run.trigger, at(self.t));
        self.store(owner, |object| {
            let policy = self::policy(object);
            policy.run = Some(OpenRun { slot: slot.clone(), attempt, stage: Stage::Frozen });
            policy.last = Some(Box::new(begun(slot, attempt, trigger, started)));
        });
        let longest = self.chance.pick(&[5, 5, 5, 5, 5, 5, 5, 200]);
        let minutes = i64::try_from(1 + self.chance.below(longest)).unwrap();
        let end = next(self.t + 1 + 60 * (minutes - 1), 30);
        match fate {
            Fate::Silent => self.pods.get_mut(&key).unwrap().alive = false,
            Fate::FailOpen | Fate::DeletedLate => self.put(end - 15, Event::Fail(key)),
            _ => self.put(end, Event::Close(key)),
        }
    }

    /// The process ends without a word.
    pub fn fail(&mut self, key: Key) {
        match self.pods.get(&key).map(|pod| pod.fate) {
            Some(Fate::DeletedLate) => self.remove(key),
            Some(_) => self.set(key, State::Failed { refused: false }),
            None => {}
        }
    }

    pub fn close(&mut self, key: Key) {
        let Some(pod) = self.pods.get(&key).filter(|pod| pod.job.is_active()) else { return };
        let (owner, run) = (key.0, pod.job.clone());
        let open = self.objects.get(&owner).and_then(|object| policy_of(object).run.clone());
        if open.is_none_or(|open| open.slot != run.slot || open.attempt != run.attempt) {
            return self.set(key, State::Failed { refused: true });
        }
        self.closed.entry((owner, run.slot.to_string())).or_default().push(self.t);
        let good = self.chance.below(4) > 0;
        self.store(owner, |object| {
            let policy = self::policy(object);
            policy.run = None;
            let last = policy.last.as_mut().unwrap();
            last.outcome = Some(if good { Outcome::Succeeded } else { Outcome::Failed });
        });
        // A Job that fell silent is found dead once another has done its work.
        let silent = |pod: &&Pod| pod.fate == Fate::Silent && pod.job.is_active();
        let silent: Vec<_> = self.of(owner).filter(silent).map(|pod| (owner, pod.job.uid)).collect();
        for silent in silent.into_iter().filter(|silent| *silent != key) {
            self.set(silent, State::Failed { refused: false });
        }
        self.set(key, if good { State::Succeeded } else { State::Failed { refused: true } });
    }
}

fn begun(slot: Box<str>, attempt: u32, trigger: Trigger, started: Timestamp) -> Last {
    let started = Some(started);
    Last {
        slot,
        attempt,
        trigger,
        outcome: None,
        reason: None,
        started,
        ended: None,
        freeze_seconds: None,
        snapshots: 0,
    }
}
