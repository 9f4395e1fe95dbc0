//! How an answer is written: kubectl's `-o`.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::error::{Error, Result};

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
    Ok(text + "\n")
}

pub fn yaml(answer: &impl Serialize) -> Result<String> {
    serde_saphyr::to_string(answer).map_err(|error| Error::Config(format!("cannot write YAML: {error}")))
}

/// Each on a line of its own.
pub fn lines(items: &[impl ToString]) -> String {
    items.iter().map(|item| item.to_string() + "\n").collect()
}

/// Columns as wide as their widest cell, three blanks between them; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let wide = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| wide(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// To stdout. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::Config(format!("cannot write: {error}"))),
        _ => Ok(()),
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
}
