//! Writing to stdout.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use crate::exit;
use crate::failure::Failure;

/// Writes text. A reader that went away, as in `lockctl list | head -1`, is no failure.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(exit::INTERNAL, "cannot write to stdout").caused_by(&error))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document, and a line break.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let document = serde_json::to_string_pretty(value).map_err(|error| {
        Failure::new(exit::INTERNAL, "cannot write the outcome as JSON").caused_by(&error)
    })?;
    text(&(document + "\n"))
}

/// Lays rows out in columns, as wide as their widest cell. The last column may be empty.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        table.push_str(line.join("  ").trim_end());
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_lines_do_not_trail() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let laid_out = table(&[row(["KEY", "LABEL"]), row(["orders/42", ""])]);
        assert_eq!(laid_out, "KEY        LABEL\norders/42\n");
    }
}
