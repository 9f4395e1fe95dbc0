//! Every command line that a sentence of ours or a page advises is one that the program takes.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::Cli;
use super::follow::Follow;
use crate::api::backup::StatefulSetBackup;
use crate::api::restore::StatefulSetRestore;

fn files(folder: &Path, ext: &str) -> Vec<PathBuf> {
    let mut all = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path, ext)),
            false if path.extension().is_some_and(|found| found == ext) => all.push(path),
            false => {}
        }
    }
    all
}

/// The command line that begins here: verbs, then options and what stands for a value, up to the first plain word.
fn line(text: &str) -> Vec<String> {
    let verbs: Vec<String> = Cli::command()
        .get_subcommands()
        .flat_map(|one| {
            [one.get_name().to_owned()].into_iter().chain(one.get_subcommands().map(|of| of.get_name().to_owned()))
        })
        .chain(["runs", "restores", "policies"].map(String::from))
        .collect();
    let (mut words, mut verb) = (vec![], true);
    for word in text.split_whitespace() {
        let bare = word.trim_end_matches(['.', ',', ':', ';', ')', '"', '`']);
        verb &= verbs.iter().any(|verb| verb == bare);
        let value = bare.starts_with('-') || bare.contains(['{', '/']) || bare.chars().any(|c| c.is_ascii_uppercase());
        if !verb && (words.is_empty() || !value) {
            break;
        }
        // What is filled in: a name, or a path of two.
        let mut filled = String::new();
        let mut rest = bare;
        while let Some((front, back)) = rest.split_once('{') {
            filled += front;
            filled += "name";
            rest = back.split_once('}').map_or("", |(_, back)| back);
        }
        words.push(filled + rest);
        if bare != word {
            break;
        }
    }
    words
}

/// Of a source file only what stands in string literals of the program, continued lines joined.
fn literals(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.fold(String::new(), |all, line| match line.strip_suffix('\\') {
        Some(open) => all + open,
        None => all + line + "\n",
    })
}

fn advised() -> Vec<(PathBuf, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = files(&root.join("src"), "rs").into_iter().filter(|path| !path.ends_with("advice.rs"));
    let sources = sources.filter(|path| !path.to_string_lossy().contains("/tests"));
    let texts = sources.map(|path| (path.clone(), literals(&std::fs::read_to_string(path).unwrap())));
    let mut all = vec![];
    for (path, text) in texts {
        for (at, found) in text.match_indices("sts-backup ") {
            let words = line(&text[at + found.len()..]);
            if !words.is_empty() {
                all.push((path.clone(), words));
            }
        }
    }
    all
}

#[test]
fn every_command_that_a_sentence_advises_is_one() {
    let all = advised();
    for wanted in ["undo", "describe", "doctor", "list", "run-once", "generate"] {
        assert!(all.iter().any(|(_, words)| words[0] == wanted), "no sentence advises {wanted}");
    }
    // What is typed instead of a watcher is put together of these.
    let by_hand = [
        StatefulSetRestore::by_hand("shop/back", None),
        StatefulSetRestore::by_hand("shop/back", Some("now")),
        StatefulSetRestore::by_hand("shop/back", Some("now --force")),
        StatefulSetBackup::by_hand("shop/nightly", Some("2026-11-28T05:00:00.000Z")),
    ];
    let by_hand = by_hand.map(|line| format!("run-once {line}").split(' ').map(String::from).collect());
    let all = all.into_iter().filter(|(_, words)| words[..] != ["run-once", "name"]);
    for (path, words) in all.chain(by_hand.map(|words| ("by hand".into(), words))) {
        let parsed = Cli::try_parse_from(["sts-backup"].into_iter().chain(words.iter().map(String::as_str)));
        assert!(parsed.is_ok(), "{}: sts-backup {}\n{}", path.display(), words.join(" "), parsed.unwrap_err());
    }
}

#[test]
fn a_sentence_ends_its_command() {
    let words = |text: &str| line(text).join(" ");
    assert_eq!(words("undo {place} puts the old volumes back"), "undo name");
    assert_eq!(words("undo {}/{} --force undoes nevertheless"), "undo name/name --force");
    assert_eq!(words("list runs shows those that there are"), "list runs");
    assert_eq!(words("run-once backup -f FILE)\","), "run-once backup -f FILE");
    assert_eq!(words("doctor --lift-fence {}/{} clears it"), "doctor --lift-fence name/name");
    assert_eq!(words("keeps its own time"), "");
}
