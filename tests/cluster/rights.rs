//! What the API server's audit log tells of all the tests before: a good run is refused nothing, and no right is granted
//! that nothing uses. `tests/run` runs it behind all others, as it is asked of the whole tier.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;
use sts_backup::generate::rbac;

use crate::harness::account::RUNNER;
use crate::harness::skipped;

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Runner,
    Watcher,
}

/// Group, resource with its part, verb.
type Right = (String, String, String);

/// A request of the product.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    role: Role,
    user: String,
    right: Right,
    namespace: String,
    /// When it came, as the log has it: text that sorts.
    time: String,
    allowed: bool,
    why: String,
}

/// Rights that only what happens rarely needs: group, resource, verb, and for what.
const RARE: [(&str, &str, &str, &str); 4] = [
    ("batch", "jobs", "get", "a Job whose creation got no answer, and that is there"),
    ("snapshot.storage.k8s.io", "volumesnapshots", "get", "a snapshot whose creation got no answer, and that is there"),
    ("", "persistentvolumeclaims", "patch", "a class that waits for a consumer, whose first node cannot serve"),
    ("", "pods", "delete", "a pod that is not ready keeps its claim while the StatefulSet is at 0"),
];

/// Requests for what lies in no namespace, or in all, that a good run sends although they may be refused: resource, verb
/// and why.
const EXPECTED: [(&str, &str, &str); 2] = [
    ("volumesnapshotcontents", "patch", "purgeRetained where its role is not bound: retention says so and keeps them"),
    ("statefulsetrestores", "list", "under watchNamespaces those of the namespace are listed instead"),
];

/// Rights of which a request shows only one. A watch may begin with a list in the same request, and older servers, which
/// have none of it, are asked for the list first. An exec by way of a GET takes the right to create as well, and older
/// servers ask for the right to get.
fn goes_with_another(right: &Right, used: &BTreeSet<Right>) -> bool {
    let (group, resource, verb) = right;
    let has = |verb: &str| used.contains(&(group.clone(), resource.clone(), verb.to_owned()));
    match (resource.as_str(), verb.as_str()) {
        ("pods/exec", "get" | "create") => has("get") || has("create"),
        (_, "list") => has("watch"),
        _ => false,
    }
}

/// What tests ask for under the runner's account as a person would, to be refused: scene, resource, verb and what it is.
const PERSONS: [(&str, &str, &str, &str); 2] = [
    ("story-", "jobs", "list", "`logs` of who may not see the Jobs"),
    ("forged-", "statefulsetrestores", "create", "a restore by who may not ask for one"),
];

/// Tests that send requests of their own under the runner's account.
const ASIDE: [&str; 1] = ["conformance-"];

/// The accounts of the product in the tests: the runner's as a process, and those of a release of the chart.
fn role(user: &str) -> Option<Role> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    if ASIDE.iter().any(|scene| namespace.starts_with(scene)) {
        return None;
    }
    let release = namespace.strip_suffix("-sys");
    match name {
        RUNNER => Some(Role::Runner),
        _ if Some(name) == release => Some(Role::Watcher),
        _ if name.strip_suffix("-runner").is_some_and(|name| Some(name) == release) => Some(Role::Runner),
        _ => None,
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// None: it is not the product's, or not about an object of the API.
fn request(line: &str) -> Option<Request> {
    if !line.contains("system:serviceaccount:") {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    let user = text(&line, "/user/username");
    let (role, object) = (role(&user)?, line.get("objectRef")?);
    let part = text(object, "/subresource");
    let resource = text(object, "/resource");
    let resource = if part.is_empty() { resource } else { format!("{resource}/{part}") };
    Some(Request {
        role,
        user,
        right: (text(object, "/apiGroup"), resource, text(&line, "/verb")),
        namespace: text(object, "/namespace"),
        time: text(&line, "/requestReceivedTimestamp"),
        allowed: line["annotations"]["authorization.k8s.io/decision"] != "forbid",
        why: text(&line, "/responseStatus/message"),
    })
}

/// When each namespace began to go, for the first time: what is left of the accounts' rights then is chance.
fn ends(line: &str) -> Option<(String, String)> {
    if !line.contains(r#""verb":"delete""#) || !line.contains(r#""resource":"namespaces""#) {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    let object = line.get("objectRef").filter(|object| object["resource"] == "namespaces")?;
    Some((text(object, "/name"), text(&line, "/requestReceivedTimestamp")))
}

/// When a binding was deleted: helm does that before the pods of the release have ended. What the watcher asks for in
/// between, its Lease above all, is refused, whatever it does.
fn unbinds(line: &str) -> Option<(String, String)> {
    if !line.contains(r#""verb":"delete""#) || !line.contains("rolebindings") {
        return None;
    }
    let line: Value = serde_json::from_str(line).ok()?;
    let kinds = ["rolebindings", "clusterrolebindings"];
    let object = line.get("objectRef").filter(|object| kinds.iter().any(|kind| object["resource"] == *kind))?;
    Some((text(object, "/name"), text(&line, "/requestReceivedTimestamp")))
}

/// What has ended, each by its name, and when for the first time.
#[derive(Debug, Default)]
struct Gone {
    namespaces: BTreeMap<String, String>,
    bindings: BTreeMap<String, String>,
}

impl Gone {
    fn note(all: &mut BTreeMap<String, String>, (name, end): (String, String)) {
        let first = all.entry(name).or_insert_with(|| end.clone());
        *first = end.min(first.clone());
    }

    fn hear(&mut self, line: &str) {
        if let Some(end) = ends(line) {
            Gone::note(&mut self.namespaces, end);
        }
        if let Some(end) = unbinds(line) {
            Gone::note(&mut self.bindings, end);
        }
    }

    /// The namespace of the account or of the request goes, or a binding of the account's release is gone.
    fn is_before(&self, request: &Request) -> bool {
        let home = request.user.split(':').nth(2).unwrap_or_default();
        let namespaces = [home, &request.namespace].into_iter().filter_map(|name| self.namespaces.get(name));
        let release = home.strip_suffix("-sys").map(|release| format!("{release}-"));
        let of_release = |name: &str| release.as_ref().is_some_and(|release| name.starts_with(release));
        let bindings = self.bindings.iter().filter(|(name, _)| of_release(name)).map(|(_, end)| end);
        namespaces.chain(bindings).any(|end| *end <= request.time)
    }
}

/// Each request that was refused and never passed afterwards, while its account had its rights.
fn refusals<'a>(all: &'a [Request], gone: &Gone) -> Vec<&'a Request> {
    let expected = |request: &Request| {
        let (_, resource, verb) = &request.right;
        let is_known = EXPECTED.iter().any(|(known, word, _)| known == resource && word == verb);
        let home = request.user.split(':').nth(2).unwrap_or_default();
        let is_persons = request.user.ends_with(&format!(":{RUNNER}"))
            && PERSONS
                .iter()
                .any(|(scene, known, word, _)| home.starts_with(scene) && known == resource && word == verb);
        is_known && request.namespace.is_empty() || is_persons
    };
    // A role that has just been bound takes a moment to be known, and the product asks again.
    let passes = |refused: &Request| {
        let same = |other: &&Request| {
            (&other.user, &other.right, &other.namespace) == (&refused.user, &refused.right, &refused.namespace)
        };
        all.iter().filter(same).any(|other| other.allowed && other.time > refused.time)
    };
    all.iter()
        .filter(|request| !request.allowed && !expected(request) && !gone.is_before(request) && !passes(request))
        .collect()
}

fn granted(role: Role) -> BTreeSet<Right> {
    let of = |rule: PolicyRule| {
        let (groups, resources) = (rule.api_groups.unwrap_or_default(), rule.resources.unwrap_or_default());
        let each = move |group: String| {
            let verbs = rule.verbs.clone();
            let rights = move |resource: String| {
                let group = group.clone();
                verbs.clone().into_iter().map(move |verb| (group.clone(), resource.clone(), verb))
            };
            resources.clone().into_iter().flat_map(rights)
        };
        groups.into_iter().flat_map(each).collect::<Vec<_>>()
    };
    let rules: Vec<PolicyRule> = match role {
        Role::Runner => {
            rbac::runner().into_iter().chain([rbac::purge()]).flat_map(|role| role.rules.unwrap_or_default()).collect()
        }
        Role::Watcher => {
            let here = rbac::watcher_jobs().rules.unwrap_or_default();
            rbac::watcher().rules.unwrap_or_default().into_iter().chain(here).collect()
        }
    };
    rules.into_iter().flat_map(of).collect()
}

fn unused(role: Role, all: &[Request]) -> Vec<Right> {
    let used: BTreeSet<Right> = all
        .iter()
        .filter(|request| request.role == role && request.allowed)
        .map(|request| request.right.clone())
        .collect();
    let is_rare = |(group, resource, verb): &Right| {
        RARE.iter().any(|(known, name, word, _)| known == group && name == resource && word == verb)
    };
    let granted = granted(role).into_iter();
    granted.filter(|right| !used.contains(right) && !is_rare(right) && !goes_with_another(right, &used)).collect()
}

/// The log and what it was before it grew too long.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_log = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.starts_with("audit") && Path::new(name).extension().is_some_and(|end| end == "log")
        })
    };
    entries.filter(is_log).collect()
}

fn read(folder: &Path) -> (Vec<Request>, Gone) {
    let (mut all, mut gone) = (vec![], Gone::default());
    for path in logs(folder) {
        for line in BufReader::new(File::open(path).unwrap()).lines() {
            let line = line.unwrap();
            all.extend(request(&line));
            gone.hear(&line);
        }
    }
    (all, gone)
}

#[test]
#[ignore = "asked of the audit log when all other tests are done: tests/run does"]
fn nothing_was_refused_and_no_right_is_unused() {
    let Some(folder) = std::env::var_os("SSB_CLUSTER_DIR") else {
        return skipped("the audit log is to be had of the embedded cluster only");
    };
    let (all, gone) = read(&Path::new(&folder).join("log"));
    assert!(all.len() > 100, "the audit log tells of {} requests only", all.len());
    let say = |request: &&Request| {
        let (_, resource, verb) = &request.right;
        format!("{} {}: {verb} {resource} in {:?}: {}", request.time, request.user, request.namespace, request.why)
    };
    let refused: Vec<_> = refusals(&all, &gone).iter().map(say).collect();
    println!("{} requests of the product, {} refused", all.len(), refused.len());
    assert!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
    if std::env::var("SSB_TIER").is_ok_and(|tier| tier == "long") {
        for role in [Role::Runner, Role::Watcher] {
            let unused = unused(role, &all);
            assert!(unused.is_empty(), "{role:?} has rights that no test of this tier has used: {unused:#?}");
        }
    }
}

/// A line of the log as the API server writes it.
fn line(user: &str, verb: &str, object: &Value, decision: &str, time: &str) -> String {
    serde_json::json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete", "verb": verb,
        "user": { "username": user }, "objectRef": object, "requestReceivedTimestamp": time,
        "annotations": { "authorization.k8s.io/decision": decision },
    })
    .to_string()
}

#[test]
fn the_log_is_read_as_it_is_written() {
    let (runner, watcher) =
        ("system:serviceaccount:shop-1:sts-backup-tests", "system:serviceaccount:shop-1-sys:shop-1");
    let job = "system:serviceaccount:shop-1-sys:shop-1-runner";
    for (user, expected) in [
        (runner, Some(Role::Runner)),
        (watcher, Some(Role::Watcher)),
        (job, Some(Role::Runner)),
        ("system:serviceaccount:shop-1:runner", None),
        ("system:serviceaccount:conformance-1:sts-backup-tests", None),
        ("system:admin", None),
    ] {
        assert_eq!(role(user), expected, "{user}");
    }
    let pods = serde_json::json!({ "resource": "pods", "namespace": "shop-1", "name": "web-0", "apiVersion": "v1" });
    let exec = serde_json::json!({ "resource": "pods", "namespace": "shop-1", "subresource": "exec" });
    let entered = request(&line(job, "get", &exec, "allow", "1")).unwrap();
    assert_eq!(entered.right, (String::new(), "pods/exec".into(), "get".into()));
    let namespace = serde_json::json!({ "resource": "namespaces", "name": "shop-1" });
    let end = ends(&line("system:admin", "delete", &namespace, "allow", "5")).unwrap();
    assert_eq!(end, ("shop-1".into(), "5".into()));
    let binding = serde_json::json!({ "resource": "rolebindings", "namespace": "shop-1-sys", "name": "shop-1-jobs" });
    let mut gone = Gone::default();
    gone.hear(&line("system:admin", "delete", &namespace, "allow", "5"));
    gone.hear(&line("system:admin", "delete", &binding, "allow", "3"));
    let of = |user: &str, lines: &[(&str, &str)]| {
        let all: Vec<_> =
            lines.iter().map(|(say, time)| request(&line(user, "get", &pods, say, time)).unwrap()).collect();
        refusals(&all, &gone).len()
    };
    let told = |lines: &[(&str, &str)]| of(runner, lines);
    assert_eq!(of(watcher, &[("forbid", "2")]), 1);
    assert_eq!(of(watcher, &[("forbid", "4")]), 0, "the release is uninstalled");
    assert_eq!(told(&[("forbid", "4")]), 1, "and is not this one's");
    assert_eq!(told(&[("allow", "1")]), 0);
    assert_eq!(told(&[("allow", "1"), ("forbid", "2")]), 1);
    assert_eq!(told(&[("forbid", "1"), ("allow", "2")]), 0, "the role was bound just now");
    assert_eq!(told(&[("forbid", "6")]), 0, "the namespace goes");
}

#[test]
fn a_right_that_nothing_has_used_is_found() {
    let all: Vec<Request> = [Role::Runner, Role::Watcher]
        .into_iter()
        .flat_map(|role| granted(role).into_iter().map(move |right| (role, right)))
        .map(|(role, right)| {
            let (user, namespace, time, why) = Default::default();
            Request { role, user, right, namespace, time, allowed: true, why }
        })
        .collect();
    for role in [Role::Runner, Role::Watcher] {
        assert!(granted(role).len() > 5);
        assert_eq!(unused(role, &all), []);
        let delete = |request: &Request| request.right.2 == "delete" && request.role == role;
        let fewer: Vec<_> = all.iter().filter(|request| !delete(request)).cloned().collect();
        let found = unused(role, &fewer);
        assert!(!found.is_empty() && found.iter().all(|(_, _, verb)| verb == "delete"), "{role:?}: {found:?}");
    }
    let rare = RARE.iter().filter(|(group, resource, verb, _)| {
        let right = (String::from(*group), String::from(*resource), String::from(*verb));
        ![Role::Runner, Role::Watcher].into_iter().any(|role| granted(role).contains(&right))
    });
    assert_eq!(
        rare.collect::<Vec<_>>(),
        [] as [&(&str, &str, &str, &str); 0],
        "a right that is not granted needs no reason"
    );
}
