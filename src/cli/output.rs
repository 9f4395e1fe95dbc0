//! How an answer is written: kubectl's `-o`.

use std::borrow::Cow;
use std::io::{ErrorKind, Write};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::plan::text::{escape, escape_json, escape_lines, escape_yaml};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Columns for people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// One name per line, for scripts
    Name,
}

pub fn json(answer: &impl Serialize) -> Result<String> {
    let text =
        serde_json::to_string_pretty(answer).map_err(|error| Error::Config(format!("cannot write JSON: {error}")))?;
    Ok(escape_json(&text).into_owned() + "\n")
}

pub fn yaml(answer: &impl Serialize) -> Result<String> {
    let text = serde_saphyr::to_string(answer).map_err(|error| Error::Config(format!("cannot write YAML: {error}")))?;
    Ok(escape_yaml(&text).into_owned())
}

/// Each on a line of its own.
pub fn lines(items: &[impl ToString]) -> String {
    items.iter().map(|item| escape(&item.to_string()).into_owned() + "\n").collect()
}

/// Columns as wide as their widest cell, three blanks between them; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| wide(column).unwrap_or_default()).collect();
    let line = |row: &Vec<Cow<str>>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// To stdout, and whatever the text has taken from others, nothing that a terminal obeys. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(escape_lines(text).as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Config(format!("cannot write: {error}"))),
        _ => Ok(()),
    }
}

/// A sentence for people, to stderr.
pub fn say(sentence: &str) {
    eprintln!("{}", escape(sentence));
}

/// A question on stderr, whose answer is typed behind it.
pub fn ask(question: &str) {
    eprint!("{}", escape(question));
}

/// As kubectl has it, in the largest unit that still tells something.
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).max(SignedDuration::ZERO).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{minutes}m"),
        7_200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rows = [row(&["NAME", "ÄGE", "X"]), row(&["nightly", "3d", ""]), row(&["a"])];
        assert_eq!(table(&rows), "NAME      ÄGE   X\nnightly   3d\na\n");
        assert_eq!(table(&[]), "");
    }

    /// Escape sequences in annotations, names and messages, as any tenant may write them.
    #[test]
    fn nothing_that_a_terminal_obeys_is_in_any_format() {
        let hostile = "a\x1b[2J\u{9b}1A\u{202e}b\u{2028}c\r\nRUN  forged\u{85}";
        let is_bad = |c: char| crate::plan::text::is_control(c) && c != '\n';
        let text = table(&[vec!["RUN".into(), hostile.into()], vec!["x".into(), "y".into()]]);
        assert_eq!((text.lines().count(), text.contains(is_bad)), (2, false), "{text:?}");
        assert_eq!(lines(&[hostile]).lines().count(), 1);
        for text in [json(&[hostile]).unwrap(), yaml(&[hostile]).unwrap()] {
            assert!(!text.contains(is_bad), "{text:?}");
            assert_eq!(serde_saphyr::from_str::<Vec<String>>(&text).unwrap(), [hostile], "{text}");
        }
        for hostile in ["\u{1b}[2J", "\u{9b}", "a\u{202e}b", "\u{e0041}", "a\rb: c", "\u{7f}"] {
            let text = yaml(&[hostile]).unwrap();
            assert!(!text.contains(is_bad), "{text:?}");
            serde_saphyr::from_str::<Vec<String>>(&text).unwrap();
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now: Timestamp = "2026-11-27T12:00:00Z".parse().unwrap();
        let cases = [(0, "0s"), (119, "119s"), (120, "2m"), (7_199, "119m"), (7_200, "2h"), (172_800, "2d")];
        for (seconds, expected) in cases {
            assert_eq!(age(now, now - SignedDuration::from_secs(seconds)), expected);
        }
        assert_eq!(age(now, now + SignedDuration::from_secs(5)), "0s", "clocks differ");
    }
}
