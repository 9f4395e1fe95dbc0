//! Answers that are not objects: `metav1.Status`, in the words of the API server.

use serde_json::{Value, json};

use super::kind::{Key, Kind};

/// A refusal: code, reason, sentence, and seconds to wait before another try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub retry_after: Option<u32>,
    /// The object that it is about, by resource and name; a path that is not served has none.
    pub about: Option<(&'static str, String)>,
}

impl No {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> No {
        No { code, reason, message: message.into(), retry_after: None, about: None }
    }

    pub fn absent(kind: &Kind, name: &str) -> No {
        let about = Some((kind.resource, name.to_owned()));
        No { about, ..No::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())) }
    }

    pub fn exists(key: &Key) -> No {
        No::new(409, "AlreadyExists", format!("{} \"{}\" already exists", key.kind.qualified(), key.name))
    }

    pub fn conflict(key: &Key, why: &str) -> No {
        let what = key.kind.qualified();
        No::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{}\": {why}", key.name))
    }

    pub fn stale(key: &Key) -> No {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        No::conflict(key, why)
    }

    pub fn invalid(key: &Key, why: &str) -> No {
        No::new(422, "Invalid", format!("{} \"{}\" is invalid: {why}", key.kind.kind, key.name))
    }

    pub fn bad(why: impl Into<String>) -> No {
        No::new(400, "BadRequest", why)
    }

    /// What the double does not know it does not pretend to know.
    pub fn unknown(what: impl Into<String>) -> No {
        No::new(501, "NotImplemented", format!("the double does not know {}", what.into()))
    }

    pub fn expired(message: &str) -> No {
        No::new(410, "Expired", message)
    }

    /// Where there is no such resource, nobody speaks its language.
    pub fn body(&self) -> Value {
        if self.reason.is_empty() {
            return self.message.clone().into();
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some((resource, name)) = &self.about {
            status["details"] = json!({ "name": name, "kind": resource });
        }
        if let Some(seconds) = self.retry_after {
            status["details"] = json!({ "retryAfterSeconds": seconds });
        }
        status
    }
}

/// The answer to a deletion that took the object away at once.
pub fn deleted(key: &Key, uid: &str) -> Value {
    let mut details = json!({ "name": key.name, "kind": key.kind.resource, "uid": uid });
    if !key.kind.group.is_empty() {
        details["group"] = key.kind.group.into();
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
