//! What is decided before all lists are seen, and what when one of them may not be read.

use super::*;

fn of(feeds: Vec<Feed>) -> Index {
    let started = at("2026-03-01T00:00:00Z");
    Index::new(Context { places: 1, restore_places: 1, jitter_seconds: 0, started, feeds })
}

fn a_policy() -> Object {
    object(Subject::Backup(Box::new(daily())))
}

#[test]
fn nothing_is_decided_before_all_lists_are_seen() {
    let feeds = Feed::of(&[]);
    let mut index = of(feeds.clone());
    index.see(UID, a_policy());
    for feed in &feeds {
        assert_eq!(index.plan(now("2026-03-02T12:00:01Z")), []);
        index.list(feed);
        index.see(UID, a_policy());
        index.listed(feed);
    }
    assert_eq!(index.plan(now("2026-03-02T12:00:01Z")).len(), 1);
}

/// A namespace that was deleted took the rights in it along; what lies in others goes on.
#[test]
fn a_namespace_that_may_not_be_listed_holds_up_no_other() {
    let feeds = Feed::of(&["shop".into(), "gone".into()]);
    let (in_gone, others): (Vec<_>, Vec<_>) =
        feeds.into_iter().partition(|feed| feed.namespace.as_deref() == Some("gone"));
    let feeds = [in_gone.clone(), others.clone()].concat();
    let mut index = of(feeds);
    for feed in &others {
        index.list(feed);
        index.see(UID, a_policy());
        index.listed(feed);
    }
    assert_eq!(index.plan(now("2026-03-02T12:00:01Z")), [], "nobody has said that it may not be listed");
    for feed in &in_gone {
        index.barred(feed);
    }
    assert_eq!(index.plan(now("2026-03-02T12:00:01Z")).len(), 1);
}

/// Without the Jobs it is not known what runs, and without a list of all namespaces nothing is known at all.
#[test]
fn who_may_list_nothing_decides_nothing() {
    for namespaces in [vec![], vec!["shop".to_owned()]] {
        let feeds = Feed::of(&namespaces);
        let mut index = of(feeds.clone());
        index.see(UID, a_policy());
        for feed in &feeds {
            index.barred(feed);
        }
        assert!(!index.is_complete());
        assert_eq!(index.plan(now("2026-03-02T12:00:01Z")), []);
    }
}
