//! Who may change our objects, by the roles of the cluster, and which of the rights that the objects ask for they lack, as
//! the API server itself says of each.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::authorization::v1::{SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::needs::{Kind, Need};
use super::policies::{Line, some};
use crate::api::GROUP;
use crate::client::all;
use crate::error::{Error, Result};
use crate::plan::flow::Verb;
use crate::step::look;

/// An account or a group, and where it may change objects of which kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author {
    pub who: Who,
    pub kind: Kind,
    /// None: everywhere.
    pub namespace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    User(String),
    Group(String),
    ServiceAccount(String, String),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Who::User(name) => write!(f, "User {name}"),
            Who::Group(name) => write!(f, "Group {name}"),
            Who::ServiceAccount(namespace, name) => write!(f, "ServiceAccount {namespace}/{name}"),
        }
    }
}

impl Who {
    /// None for what is of Kubernetes itself: its controllers delete and finalize everything, and the policies know them.
    fn of(subject: &Subject, place: Option<&str>) -> Option<Who> {
        let name = subject.name.clone();
        match subject.kind.as_str() {
            "User" | "Group" if name.starts_with("system:") => None,
            "User" => Some(Who::User(name)),
            "Group" => Some(Who::Group(name)),
            "ServiceAccount" => {
                let namespace = subject.namespace.clone().or_else(|| place.map(ToOwned::to_owned))?;
                (namespace != "kube-system").then_some(Who::ServiceAccount(namespace, name))
            }
            _ => None,
        }
    }

    fn review(&self, right: Verb, place: Option<&String>) -> SubjectAccessReview {
        let (user, groups) = match self {
            Who::User(name) => (Some(name.clone()), vec!["system:authenticated".to_owned()]),
            Who::Group(name) => (None, vec![name.clone(), "system:authenticated".to_owned()]),
            Who::ServiceAccount(namespace, name) => {
                let groups = ["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
                let groups = groups.into_iter().chain(["system:authenticated".to_owned()]).collect();
                (Some(format!("system:serviceaccount:{namespace}:{name}")), groups)
            }
        };
        let spec = SubjectAccessReviewSpec {
            user,
            groups: Some(groups),
            resource_attributes: Some(look::attributes(right, place.cloned())),
            ..SubjectAccessReviewSpec::default()
        };
        SubjectAccessReview { spec, ..SubjectAccessReview::default() }
    }
}

/// What the cluster's roles and bindings say.
#[derive(Debug, Default)]
pub struct Authority {
    pub cluster_roles: Vec<ClusterRole>,
    pub roles: Vec<Role>,
    pub cluster_bindings: Vec<ClusterRoleBinding>,
    pub bindings: Vec<RoleBinding>,
}

impl Authority {
    async fn read(client: &Client) -> Result<Authority> {
        Ok(Authority {
            cluster_roles: all(Api::all(client.clone()), "").await?,
            roles: all(Api::all(client.clone()), "").await?,
            cluster_bindings: all(Api::all(client.clone()), "").await?,
            bindings: all(Api::all(client.clone()), "").await?,
        })
    }

    fn rules(&self, role: &RoleRef, namespace: Option<&str>) -> &[PolicyRule] {
        let rules = if role.kind == "Role" {
            let found = self
                .roles
                .iter()
                .find(|known| known.name_any() == role.name && known.namespace().as_deref() == namespace);
            found.and_then(|role| role.rules.as_deref())
        } else {
            self.cluster_roles.iter().find(|known| known.name_any() == role.name).and_then(|role| role.rules.as_deref())
        };
        rules.unwrap_or_default()
    }

    /// Everybody who may create or change objects of our kinds. Whoever is given their status by name (as our own runner
    /// and watcher are) is trusted with more than an author, and no author.
    pub fn authors(&self) -> BTreeSet<Author> {
        let wide = self.cluster_bindings.iter().map(|binding| (&binding.role_ref, &binding.subjects, None));
        let narrow = self.bindings.iter().map(|binding| (&binding.role_ref, &binding.subjects, binding.namespace()));
        let mut found = BTreeSet::new();
        for (role, subjects, namespace) in wide.chain(narrow) {
            let rules = self.rules(role, namespace.as_deref());
            for kind in [Kind::Backup, Kind::Restore].into_iter().filter(|kind| may_change(rules, *kind)) {
                let who = subjects.iter().flatten().filter_map(|subject| Who::of(subject, namespace.as_deref()));
                found.extend(who.map(|who| Author { who, kind, namespace: namespace.clone() }));
            }
        }
        found
    }
}

fn may_change(rules: &[PolicyRule], kind: Kind) -> bool {
    let has = |all: &Option<Vec<String>>, words: &[&str]| all.iter().flatten().any(|word| words.contains(&&**word));
    let ours = rules.iter().filter(|rule| has(&rule.api_groups, &[GROUP, "*"]));
    let mut ours =
        ours.filter(|rule| rule.verbs.iter().any(|verb| ["create", "update", "patch", "*"].contains(&&**verb)));
    let status = format!("{}/status", kind.resource());
    let is_trusted = ours.clone().any(|rule| has(&rule.resources, &[&status]));
    !is_trusted && ours.any(|rule| has(&rule.resources, &[kind.resource(), "*"]))
}

/// A line for each author and each right that he lacks.
pub async fn lacking(client: &Client, needs: &[Need]) -> Result<Vec<Line>> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let mut known: BTreeMap<(Who, Verb, Option<String>), bool> = BTreeMap::new();
    let mut lacks: BTreeMap<(Who, Verb, Option<String>), BTreeSet<String>> = BTreeMap::new();
    for (author, need) in asked(&Authority::read(client).await?, needs) {
        let key = (author.who.clone(), need.right, need.place.clone());
        if !known.contains_key(&key) {
            let review = author.who.review(need.right, need.place.as_ref());
            let answer = reviews.create(&PostParams::default(), &review).await;
            let answer = answer.map_err(|error| Error::api("create", "subjectaccessreviews", error))?;
            known.insert(key.clone(), answer.status.is_some_and(|status| status.allowed));
        }
        if known.get(&key) == Some(&false) {
            lacks.entry(key).or_default().insert(format!("{}/{}", need.namespace, need.name));
        }
    }
    Ok(lacks.iter().map(|((who, right, place), objects)| line(who, *right, place.as_deref(), objects)).collect())
}

/// Which author is to be asked for which need.
pub fn asked<'a>(roles: &Authority, needs: &'a [Need]) -> Vec<(Author, &'a Need)> {
    let fits = |author: &Author, need: &Need| {
        author.kind == need.kind && author.namespace.as_ref().is_none_or(|namespace| *namespace == need.namespace)
    };
    let authors = roles.authors();
    authors
        .iter()
        .flat_map(|author| needs.iter().filter(|need| fits(author, need)).map(|need| (author.clone(), need)))
        .collect()
}

pub fn line(who: &Who, right: Verb, place: Option<&str>, objects: &BTreeSet<String>) -> Line {
    let (_, resource, verb) = right;
    let place = place.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
    let (what, remedy) = (format!("{verb} {resource}{place}"), "grant it, or leave such changes to those who have it");
    let message = format!("may change {}, and may not {what}: what needs that is refused", some(objects));
    Line::warning(who.to_string(), message, remedy)
}
