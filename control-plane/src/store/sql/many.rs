//! Rows many at a time, in the embedded database: running a statement costs as much as what a small one does, and one
//! that has found its place in a tree goes on from there.
//!
//! Rows go in groups of a few sizes, so that there are few statements and each is prepared once.

use rusqlite::ToSql;

use super::{connection::Connection, rows::Statement};
use crate::store::Result;

/// The sizes of groups, largest first.
const SIZES: [usize; 3] = [16, 4, 1];

/// Cuts `all` into groups.
pub(super) fn groups<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = SIZES.into_iter().find(|size| *size <= all.len())?;
        let (group, rest) = all.split_at(size);
        all = rest;
        Some(group)
    })
}

/// Inserts rows `into` a table: its name and columns, as in `due (destination, due_at, id)`. Fails as a database that
/// fails: after that some rows may be there, and the transaction is to be taken back.
pub(super) fn insert<const WIDTH: usize>(
    connection: &Connection,
    into: &str,
    rows: &[[&dyn ToSql; WIDTH]],
) -> Result<()> {
    for group in groups(rows) {
        let row = placeholders(WIDTH);
        let rows = vec![row.as_str(); group.len()].join(", ");
        let insert = format!("{} INTO {into} VALUES {rows}", verb(group.len()));
        Statement::new(connection, &insert)?.execute(group.as_flattened())?;
    }
    Ok(())
}

/// A statement that changes several rows keeps what every page was before, for the case that one of the rows breaks a
/// constraint, unless it is told that those before it may stay.
fn verb(rows: usize) -> &'static str {
    if rows == 1 {
        "INSERT"
    } else {
        "INSERT OR FAIL"
    }
}

/// A list of so many placeholders, in parentheses.
pub(super) fn placeholders(count: usize) -> String {
    format!("({})", vec!["?"; count].join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::rows::all, *};

    #[test]
    fn rows_of_any_number_are_inserted_as_they_are() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection
            .execute_batch("CREATE TABLE t (x INTEGER, y TEXT)")
            .unwrap();
        let connection = Connection::Sqlite(connection, None);
        for count in [0, 1, 3, 4, 15, 16, 39] {
            connection.batch("DELETE FROM t").unwrap();
            let rows: Vec<(i64, String)> = (0..count).map(|x| (x, format!("row {x}"))).collect();
            let values: Vec<[&dyn ToSql; 2]> = rows.iter().map(|(x, y)| [x as _, y as _]).collect();
            insert(&connection, "t (x, y)", &values).unwrap();
            let found = all(&connection, "SELECT x, y FROM t ORDER BY x", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
            assert_eq!(found.unwrap(), rows);
        }
    }

    proptest! {
        #[test]
        fn groups_are_of_few_sizes_and_leave_nothing_out(all in prop::collection::vec(any::<u8>(), 0..100)) {
            let groups: Vec<&[u8]> = groups(&all).collect();
            prop_assert!(groups.iter().all(|group| SIZES.contains(&group.len())));
            prop_assert_eq!(groups.concat(), all);
        }
    }
}
