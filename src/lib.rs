//! Backup and restore of Kubernetes StatefulSets with CSI VolumeSnapshots.
//!
//! In a line: **a pure planner says the next step, or what it must see first; a step makes one write and returns
//! facts; facts are folded into the view; the planner looks again.** A process may die between any two
//! instructions: the next one observes the cluster and goes on. `docs/` says what the product does; this page says
//! where each part of it lives, and by which laws.
//!
//! # Laws
//!
//! 1. [`api`] and [`plan`] are synchronous: no clock, no client, no randomness. `now` is an argument.
//! 2. A step makes at most one mutating request. The planner may hand out a batch of steps that commute (all
//!    snapshots of a run); the driver runs the batch at once. A status write is a step too (the one that takes off what
//!    others have put into a status, by a second request). The Lease's renewal (a
//!    future beside the loop, never a spawned task) and Events (best effort) are not steps.
//! 3. Every effect is preceded by a persisted intent, or has a deterministic name, so that doing it again is
//!    harmless; every destructive request carries a uid or resourceVersion precondition.
//! 4. One room writes status: `step/record.rs`, and `step/record/watched.rs` for the watcher. Everybody else hands it a value.
//! 5. Imports point one way: [`api`] ← [`plan`] ← [`step`] ← [`watch`], [`run`] ← [`cli`] ← `main`. [`generate`] reads [`api`],
//!    [`plan`] and the verbs that [`step`] declares.
//! 6. A file over 400 lines or a function over 60 is two things: it is split along a noun.
//! 7. Waiting is not an error, success is not an error, and a failed GET is never "the object does not exist".
//!
//! `just forbid` looks for breaches of 1, 4 and 5.
//!
//! # Rooms
//!
//! | where | what |
//! |---|---|
//! | [`api`] | wire shapes: [`api::backup`], [`api::restore`], the snapshot kinds, lean core kinds, label and annotation keys, reasons |
//! | [`plan::view`], [`plan::noun`] | what is known and how it changes: `Seen`, `View`, `Fact`, `View::fold`; the things that are known |
//! | [`plan::journal`] | `status.run` as a value: a flow's phase is a variant of it |
//! | `plan/view/denied.rs` | how often a no that may pass (401, 403, a 404 of the path) is heard before it counts |
//! | [`plan::flow`] | the words between planner and driver: `Plan`, `Next`, `Feed`, `Row`, `Step`, `steps!` |
//! | [`plan::backup`] | the story of a backup: its steps, and `next()` |
//! | [`plan::freeze`] | its middle: pods frozen, claims cut, pods thawed |
//! | `plan/freeze/void.rs`, `plan/freeze/place.rs` | what makes a freeze void, and what that is worth; which container is frozen, and in which it is thawed |
//! | [`plan::prospect`] | whether a freeze would come to anything: room in the quotas, and what was denied in the one before it |
//! | [`plan::after`] | what follows the cut: seals, readiness, retention's turn, and what a driver complains of |
//! | [`plan::inherit`] | what a freeze leaves to the process that takes it up: with what to thaw, and which containers may be entered |
//! | [`plan::hook`] | hooks: where they run, how they ended, which pod still has to be thawed |
//! | [`plan::blame`] | the sentence for a hook that fails a run |
//! | [`plan::consent`] | what speaks against a run before anything of it is written |
//! | [`plan::guard`] | whether the author policies stand, without which a pod begins no hook and no restore |
//! | [`plan::patience`] | how long a run waits for the lock |
//! | [`plan::catalog`] | runs as their snapshots tell them, for lists |
//! | [`plan::restore`] | the story of a restore, its undo and its release: the rows with their requests, phases and stages; its journal, what only it looks at, and what holds in every stored state |
//! | [`plan::restore::own`] | whose a claim or a volume is, where labels, names and even our status may be written by others |
//! | `plan/restore/retry.rs`, `plan/restore/ending.rs`, `plan/restore/close.rs` | what is Held because it was denied goes on; what is reserved in a namespace that goes is freed; what is over gives back marks, finalizer and lock |
//! | [`plan::restore::lift`], [`run::lift`] | `doctor --lift-fence`: a Held restore ended as it stands, marks without an object taken off |
//! | [`plan::restore::preview`] | the same before it is asked for: what would be done, and all that speaks against it |
//! | [`plan::choose`], [`plan::preflight`] | which run is restored; every reason to refuse or to warn, all at once: a file each for the claims, the snapshots and their classes, class parameters, the StatefulSet's templates, the cluster |
//! | [`plan::text`] | what others wrote, before a terminal, a log line, an Event or status shows it |
//! | [`plan::topology`], [`plan::quantity`] | which nodes reach a volume; sizes |
//! | [`plan::resolve`] | which claims are covered, with which class; every reason why not, as a sentence |
//! | [`plan::retention`] | which runs a policy keeps, and by which rules |
//! | [`plan::member`] | which snapshots belong to a run: marks are claims, checked against name, source and age |
//! | [`plan::roll`] | the record of sealed runs on the Lease, without which none lets another go |
//! | [`plan::known`] | things of the cluster, each decoded once and judged once: `Snapshot`; `Run`, its state, and why it is not complete |
//! | [`plan::prune`] | retention as the last part of a backup: what is deleted next, and what stands in the way |
//! | [`plan::prune::room`] | old runs that go before a freeze, where a quota has no room for it (`makeRoom`) |
//! | [`plan::report`] | the status and the Events that go with each entry of the journal |
//! | [`plan::job`] | the Job of a run, whole; its name is a function of what it is for |
//! | [`plan::launch`] | all that the watcher decides: a compact index, and from it what to do now and when to look again |
//! | [`plan::launch::verdict`], [`plan::launch::plight`] | what the watcher says where no run can: of a spec, and of a Job that comes to nothing (`watch/pods.rs` looks) |
//! | [`plan::launch::rival`], `plan/launch/passed.rs` | objects that another installation manages: whether that one lives, and what is said if not |
//! | `plan/launch/waits.rs` | the condition Waiting: why nobody is at what is due |
//! | [`plan::schedule`] | when a run is due: the dialect and the instants of CronJob; text is kept, never what was parsed from it |
//! | [`plan::invariant`] | what holds in every reachable state; the sweeps look after every stored write |
//! | [`plan::name`] | run ids and object names, checked where they are made |
//! | [`step`] | the driver, and the traits `Io` and `Effect` |
//! | [`step::observe`], `step/lens.rs`, [`step::feed`] | one read, one request, facts; what a core object says; watches that deliver facts while the planner waits |
//! | [`step::clock`] | the wall clock, read once and carried on by the monotonic one |
//! | [`step::stock`] | what retention reads |
//! | [`step::look`] | what only a restore looks at: one look, facts |
//! | `step/page.rs`, `step/trim.rs`, `api/meta.rs` | lists, an object at a time, and what is kept of each: a run's memory does not grow with what others write into theirs |
//! | `step/claim.rs`, `step/volume.rs`, `step/fence.rs` | what a restore does to claims, to volumes, to the StatefulSet and its pods: one idempotent effect each |
//! | [`step::tell`] | Events, best effort |
//! | `step/lock.rs`, `step/sign.rs`, [`step::record`], [`step::snapshot`] | one idempotent effect each, through [`step::call`], which audits it |
//! | [`step::quiesce`] | the one that is not idempotent: a hook in a container, and what its connection tells of its end; in `step/quiesce/answer.rs` what an answer, or the last word of a connection, tells of it |
//! | [`run`], [`run::file`], [`run::restore`] | the run-once role: find the object (or the file that stands for it), say who we are, drive the flow to its end |
//! | [`run::handover`] | `doctor --take-over`: the proof that an installation is gone, and its objects given free |
//! | [`watch`] | the resident role: lean watches ([`api::slim`]) → index → Jobs; leader election, metrics and health |
//! | `client/proxy.rs` | whether the API server is reached through a proxy |
//! | [`cli`], [`client`], [`config`], [`telemetry`], [`error`] | the command line, the way to the cluster, settings, log lines, what goes wrong outside a flow |
//! | `cli/doctor/` | whom and what the admission policies stop once they deny |
//! | `cli/*` | one file per verb that a person types; `cli/output.rs` has the formats, `cli/follow.rs` asks for a run and waits for its end |
//! | [`generate`] | CRDs, roles, admission policies and a whole installation as text, committed under `manifests/` and compared by `just drift` |
//! | `charts/`, `Containerfile` | the same installation by helm, made of the generated files; the image |
//! | `link/` | how the shipped program is linked: what the watcher runs lies together, so that the rest is not resident |
//! | `tests/launch/` | what the watcher decides, over simulated months, against a naive model |
//! | `tests/cluster/` | the real cluster, its CSI driver, and the tests on it |
//! | `benches/` | the measured bars, one program each, printing ratios |
//!
//! Where does a line go? Depends on time, names or policy → [`plan`]. Touches the network → [`step`]. Wire shape →
//! [`api`]. Text for a human → [`cli`] or [`generate`].
//!
//! # How a decision is made
//!
//! [`plan::view::Seen::get`] is the only way to a value. Of what is `Unknown` it yields the [`plan::view::Read`] that
//! would tell, and `?` hands it to the driver: so nothing is decided on what is unknown, nothing is read that no
//! decision needs, and between the intent and the last cut nothing is read at all. Whatever was sent and not answered
//! (5xx, a conflict, a timeout) is [`plan::flow::Step::lost`]: what it touched becomes Unknown, is read when next
//! asked for, and the planner decides anew. A conflict therefore needs no loop of its own.
//!
//! # State
//!
//! - **The journal** in status holds what cannot be observed again. Taking the Lease at a new epoch forgets all that
//!   was seen before; who does not hold it writes no journal that is open.
//! - **Fencing**: each status write carries the resourceVersion that it was decided on, the run ids of one
//!   `StatefulSet` never repeat, and every `VolumeSnapshot` bears the Lease's transitions under which it was made.
//! - **Without an object** (a policy in a file) the same record lives in the process; what the next one must know of it
//!   stands in the Lease's open mark and on the snapshots, and [`plan::journal::recover`] reads it there.
//! - **Snapshots describe themselves**: which run, how many make it complete, what the claim looked like, when it was
//!   cut. To restore from them nothing else has to exist any more.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod error;
pub mod generate;
pub mod plan;
pub mod run;
pub mod step;
pub mod telemetry;
pub mod watch;
