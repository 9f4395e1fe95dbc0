//! Class parameters from which a driver makes something of the claim's name; and classes that are gone, or not what they
//! were.

use serde_json::json;

use super::{Cluster, cluster, said};
use crate::api::condition::Reason;
use crate::api::restore::Strategy;
use crate::plan::choose::choose;
use crate::plan::preflight::Severity;
use crate::plan::restore::begin::plan;
use crate::plan::restore::sight::StorageClass;

/// As the documentation of the drivers has them.
const NAMED: [(&str, &str); 10] = [
    ("subDir", "${pvc.metadata.namespace}/${pvc.metadata.name}/${pv.metadata.name}"), // NFS, SMB
    ("shareName", "${pvc.metadata.name}"),
    ("pathPattern", "${.PVC.namespace}-${.PVC.name}"),
    ("pathPattern", "{{ .PVC.Name }}"),
    ("subPathPattern", "${.PVC.name}"), // EFS
    ("subPathPattern", "${.PVC.annotations.nfs.io/storage-path}"),
    ("csi.storage.k8s.io/node-stage-secret-name", "${pvc.name}-key"),
    ("csi.storage.k8s.io/node-stage-secret-name", "${pvc.annotations['team']}"),
    ("folder", "x-{{.PVCName|ToLower}}"),
    ("path", "/${ pvc.name }"),
];

/// What is the same under another claim name.
const SAME: [(&str, &str); 8] = [
    ("type", "gp3"),
    ("subDir", "${pvc.metadata.namespace}"),
    ("tagSpecification_1", "ns={{ .PVCNamespace }}"),
    ("path", "${pvc.namespace}"),
    ("path", "${pv.name}"),
    ("tagSpecification_2", "pv={{ .PVName }}"),
    ("server", "pvc.name.example.com"),
    ("csi.storage.k8s.io/node-stage-secret-name", "${pvc.annotations['kept']}"),
];

#[test]
fn a_parameter_made_of_the_claims_name_refuses_what_is_staged() {
    for (key, value) in NAMED {
        let mut cluster = cluster();
        cluster.class.parameters.insert(key.into(), value.into());
        let refused = said(&cluster.findings().unwrap(), Severity::Refuse);
        let wanted = format!("parameter {key} of StorageClass fast depends on the claim's name");
        assert!(refused.iter().any(|said| said.contains(&wanted)), "{value}: {refused:?}");
        cluster.want.strategy = Strategy::InPlace;
        assert_eq!(cluster.findings().unwrap(), vec![], "{value}: in place the name is the same");
    }
}

/// A tag with a staging name does no harm, and is told of.
#[test]
fn a_tag_made_of_the_claims_name_is_warned_of() {
    for (key, value) in [("tagSpecification_3", "pvc={{ .PVCName }}"), ("tags", "pvc=${pvc.metadata.name}")] {
        let mut cluster = cluster();
        cluster.class.parameters.insert(key.into(), value.into());
        let findings = cluster.findings().unwrap();
        assert_eq!(said(&findings, Severity::Refuse), Vec::<String>::new());
        let warned = said(&findings, Severity::Warn);
        assert!(warned.iter().any(|said| said.contains(key) && said.contains("staging")), "{value}: {warned:?}");
    }
}

#[test]
fn what_is_the_same_under_another_name_is_no_finding() {
    for (key, value) in SAME {
        let mut cluster = cluster();
        cluster.claim().manifest.annotations.insert("kept".into(), "x".into());
        cluster.class.parameters.insert(key.into(), value.into());
        assert_eq!(cluster.findings().unwrap(), vec![], "{value}");
    }
}

impl Cluster {
    pub(super) fn classes(&self) -> Vec<StorageClass> {
        self.others.iter().chain([&self.class]).cloned().collect()
    }
}

fn class(name: &str, provisioner: &str) -> StorageClass {
    StorageClass { name: name.into(), provisioner: provisioner.into(), ..StorageClass::default() }
}

/// The class in which the new volume is to be made.
fn planned(cluster: &Cluster) -> Option<String> {
    let mut view = cluster.view();
    loop {
        match choose(&view).and_then(|chosen| plan(&view, &chosen.unwrap())) {
            Ok(plan) => return plan.items[0].manifest.storage_class_name.clone(),
            Err(read) => view.fold(cluster.answer(&read)),
        }
    }
}

/// Gone; made again for another driver; in a cluster where a driver's class has got another name.
fn lost() -> Vec<(&'static str, Cluster)> {
    let mut gone = cluster();
    gone.class = class("new", "csi");
    let mut again = cluster();
    again.class.provisioner = "csi-2".into();
    again.others = vec![class("new", "csi")];
    vec![("StorageClass fast is gone", gone), ("StorageClass fast is of driver csi-2, and the snapshot of csi", again)]
}

#[test]
fn a_run_outlives_the_class_of_its_claims() {
    for (why, cluster) in lost() {
        let findings = cluster.findings().unwrap();
        assert_eq!(said(&findings, Severity::Refuse), Vec::<String>::new(), "{why}");
        let warned: Vec<_> = findings.iter().filter(|finding| finding.reason == Reason::ClassReplaced).collect();
        assert_eq!(warned.len(), 1, "{findings:?}");
        let said = &warned[0].message;
        assert!(said.contains(why) && said.contains("is made in StorageClass new"), "{said}");
        assert_eq!(planned(&cluster).as_deref(), Some("new"), "{why}");
    }
}

/// The claim need not be there: its snapshot records what it was.
#[test]
fn a_run_outlives_the_class_of_claims_that_are_gone() {
    for (why, mut cluster) in lost() {
        cluster.claims.clear();
        cluster.pods.clear();
        assert_eq!(said(&cluster.findings().unwrap(), Severity::Refuse), Vec::<String>::new(), "{why}");
        assert_eq!(planned(&cluster).as_deref(), Some("new"), "{why}");
    }
}

/// The one that the StatefulSet's template names, then the default, then by name; never one of another driver.
#[test]
fn of_the_classes_of_its_driver_the_nearest_is_taken() {
    let mut cluster = cluster();
    cluster.class = class("d", "csi-2");
    cluster.class.is_default = true;
    cluster.others = vec![class("c", "csi"), class("b", "csi"), class("a", "csi-2")];
    assert_eq!(planned(&cluster).as_deref(), Some("b"));
    cluster.others[0].is_default = true;
    assert_eq!(planned(&cluster).as_deref(), Some("c"));
    cluster.others.push(class("e", "csi"));
    let template = json!([{ "metadata": { "name": "data" }, "spec": { "storageClassName": "e" } }]);
    cluster.target.manifest = json!({ "spec": { "volumeClaimTemplates": template } });
    assert_eq!(planned(&cluster).as_deref(), Some("e"));
}

/// The class of the snapshots made it, and nothing needs it any more.
#[test]
fn a_run_outlives_its_snapshot_class() {
    let mut cluster = cluster();
    cluster.source().class = Some("gone".into());
    assert_eq!(cluster.findings().unwrap(), vec![]);
}

#[test]
fn where_no_class_is_of_its_driver_the_remedy_names_that() {
    let mut cluster = cluster();
    cluster.class.provisioner = "csi-2".into();
    let findings = cluster.findings().unwrap();
    let refused: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Refuse).collect();
    assert!(
        refused.iter().any(|finding| finding.remedy == "create a StorageClass of driver csi, by any name"),
        "{refused:?}"
    );
    assert_eq!(planned(&cluster).as_deref(), Some("fast"));
}
