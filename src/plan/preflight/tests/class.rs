//! Class parameters from which a driver makes something of the claim's name.

use super::{cluster, said};
use crate::api::restore::Strategy;
use crate::plan::preflight::Severity;

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
