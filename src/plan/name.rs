//! Names with a form: what they may contain is checked where they are made, so that no write is refused for them.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

const FORM: &str = "%Y%m%d-%H%M%S";

/// The newest id that there can be, 99981231-235959: none is moved past it.
const LAST: i64 = 253_370_764_799;

/// An id may lie so far after the creation of what bears it: what lies further ahead was not made by us.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// And so far before it: a snapshot is made within spec.maxFreezeSeconds of its id, which is 30 days at most.
const BEHIND: SignedDuration = SignedDuration::from_hours(31 * 24);

/// A run's id: a second in UTC, written `YYYYMMDD-HHMMSS`. It names the run and orders it among its kin;
/// no age is ever taken from it, since the clock that made it may be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(i64);

impl RunId {
    /// The second of `now`, moved past `newest`: ids of one `StatefulSet` never repeat and never go back.
    pub fn after(newest: Option<RunId>, now: Timestamp) -> RunId {
        let next = newest.map_or(now.as_second(), |RunId(newest)| now.as_second().max(newest.saturating_add(1)));
        RunId(next.clamp(0, LAST))
    }

    /// Whether it may be the id of what was created then, both by the API server's clock.
    pub fn fits(self, created: Timestamp) -> bool {
        let ahead = self.instant().duration_since(created);
        ahead <= AHEAD && -ahead <= BEHIND
    }

    fn instant(self) -> Timestamp {
        Timestamp::from_second(self.0).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.instant().to_zoned(TimeZone::UTC).strftime(FORM).fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<RunId, String> {
        let wrong = || format!("{text:?} is no run id: expected YYYYMMDD-HHMMSS in UTC");
        if text.len() != 15 || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            return Err(wrong());
        }
        let parsed = strtime::parse(FORM, text).and_then(|parts| parts.to_datetime());
        let second = parsed.and_then(|at: DateTime| at.to_zoned(TimeZone::UTC)).map_err(|_| wrong())?;
        Some(RunId(second.timestamp().as_second())).filter(|RunId(id)| (0..=LAST).contains(id)).ok_or_else(wrong)
    }
}

/// The claim of one replica: `{template}-{statefulset}-{ordinal}`. Ordered as hooks run: by ordinal, not by text
/// (`web-10` would sort before `web-9`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey {
    pub ordinal: u32,
    pub template: String,
}

impl ClaimKey {
    pub fn pvc(&self, statefulset: &str) -> String {
        format!("{}-{statefulset}-{}", self.template, self.ordinal)
    }

    /// Which claim of this StatefulSet bears the name; `templates` tells `a-b`/`c` from `a`/`b-c`.
    pub fn of(pvc: &str, statefulset: &str, templates: &[String]) -> Option<ClaimKey> {
        templates.iter().find_map(|template| {
            let tail = pvc.strip_prefix(template.as_str())?.strip_prefix('-')?;
            let digits = tail.strip_prefix(statefulset)?.strip_prefix('-')?;
            let ordinal = digits.parse().ok().filter(|n: &u32| n.to_string() == digits)?;
            Some(ClaimKey { ordinal, template: template.clone() })
        })
    }
}

/// `{backup}-{claimTemplate}-{run}-{ordinal}`, the documented form. Ownership rests on labels, never on this.
pub fn snapshot(backup: &str, claim: &ClaimKey, run: RunId) -> String {
    format!("{backup}-{}-{run}-{}", claim.template, claim.ordinal)
}

/// What a snapshot bears so that its maker knows it again when the reply to its creation is lost. Who does not know the
/// secret cannot make it beforehand.
pub fn token(secret: &str, snapshot: &str) -> String {
    hex(&Sha256::digest(format!("{secret}/{snapshot}"))[..16])
}

/// Two lower-case digits for each byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The lock of a `StatefulSet`, in its namespace.
pub fn lease(statefulset: &str) -> String {
    format!("sts-backup-{statefulset}")
}

/// The Lease of an installation's watchers, in their namespace.
pub fn leader(deployment: &str) -> String {
    format!("leader-{deployment}")
}

/// The content that the snapshot controller makes for a dynamically taken `VolumeSnapshot`.
pub fn content(snapshot_uid: &str) -> String {
    format!("snapcontent-{snapshot_uid}")
}

/// A name as a label's value, which has at most 63 characters: a longer one is cut short and told apart by its hash.
pub fn label(name: &str) -> String {
    if name.len() <= 63 {
        return name.to_owned();
    }
    let hash = Sha256::digest(name);
    let hash = hex(&hash[..5]);
    let front: String = name.chars().take(52).collect();
    format!("{front}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_seconds_in_utc() {
        let id = RunId::after(None, "2026-03-29T01:30:59.9Z".parse().unwrap());
        assert_eq!(id.to_string(), "20260329-013059");
        assert_eq!("20260329-013059".parse::<RunId>().unwrap(), id);
    }

    #[test]
    fn run_ids_move_past_the_newest_whatever_the_clock_says() {
        let newest = "20360101-000000".parse().unwrap();
        let id = RunId::after(Some(newest), "2026-01-01T00:00:00Z".parse().unwrap());
        assert_eq!(id.to_string(), "20360101-000001");
        assert!(id > newest);
    }

    #[test]
    fn no_id_is_moved_past_the_end_or_begins_anew() {
        let last: RunId = "99981231-235959".parse().unwrap();
        for now in ["2026-01-01T00:00:00Z", "9999-12-30T22:00:00Z"] {
            assert_eq!(RunId::after(Some(last), now.parse().unwrap()), last, "there is none after it");
        }
        assert_eq!(RunId::after(None, Timestamp::MIN).to_string(), "19700101-000000");
    }

    #[test]
    fn what_is_no_run_id_is_refused() {
        for text in [
            "",
            "2026",
            "20261301-000000",
            "20260101T000000",
            "20260101-00000",
            "20260101-0000000",
            " 0260101-000000",
            "99991230-220000",
            "00010101-000000",
        ] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_long_name_becomes_a_label_of_its_own() {
        assert_eq!(label("data-web-0"), "data-web-0");
        let (one, two) = (label(&format!("{}-0", "d".repeat(80))), label(&format!("{}-1", "d".repeat(80))));
        assert_eq!((one.len(), two.len()), (63, 63));
        assert_ne!(one, two);
    }

    #[test]
    fn claims_are_told_apart_by_template() {
        let templates = ["a".to_string(), "a-b".to_string()];
        let of = |pvc| ClaimKey::of(pvc, "web", &templates);
        assert_eq!(of("a-b-web-3").unwrap(), ClaimKey { ordinal: 3, template: "a-b".into() });
        assert_eq!(of("a-web-12").unwrap(), ClaimKey { ordinal: 12, template: "a".into() });
        for stranger in ["a-web", "a-web-", "a-web-01", "a-web-x", "c-web-0", "a-webx-0", "a-web-4294967296"] {
            assert_eq!(of(stranger), None, "{stranger}");
        }
    }
}
