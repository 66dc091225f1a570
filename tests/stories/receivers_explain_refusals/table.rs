//! The matrix for people.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{KINDS, trials::Cell, world::Case};

/// What came out: a row for each case, a column for each server; what differs between TLS versions or
/// sizes stands side by side.
pub(super) fn table(cells: &[Cell]) -> String {
    let mut cases: Vec<Case> = Vec::new();
    for cell in cells {
        if !cases.contains(&cell.case) {
            cases.push(cell.case);
        }
    }
    let mut text = format!("{:<26}", "");
    for kind in KINDS {
        let _ = write!(text, "{:<30}", format!("{kind:?}"));
    }
    for case in cases {
        let _ = write!(text, "\n{:<26}", format!("{case:?}"));
        for kind in KINDS {
            let of = |cell: &&Cell| cell.kind == kind && cell.case == case;
            let classes: BTreeSet<String> = cells.iter().filter(of).map(Cell::class).collect();
            let classes: Vec<String> = classes.into_iter().collect();
            let _ = write!(text, "{:<30}", classes.join(" / "));
        }
    }
    text
}

impl Cell {
    /// The class, and how the receiver said it.
    pub(super) fn class(&self) -> String {
        let class = self.outcome.class.as_str();
        let class = class.replace("CERTIFICATE", "CERT");
        let record = self.outcome.handshake.as_ref();
        let alert = record.and_then(|it| it.alert.as_ref());
        match (alert, self.outcome.http_status) {
            (Some(alert), _) => format!("{class} {}", alert.number),
            (None, Some(status)) => format!("{class} {status}"),
            (None, None) => class,
        }
    }
}
