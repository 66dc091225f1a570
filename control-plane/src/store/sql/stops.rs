//! Which agents were told to stop using a certificate, and which of them have.

use countersign_shared::{
    name::{AgentName, DestinationName, Id},
    time::Timestamp,
};
use rusqlite::params;

use super::{
    connection::{Connection, Row},
    rows::{Column, agent_key, all, destination_keys, execute, get, get_optional},
};
use crate::{model::Stop, store::Result};

/// Asks every agent that has had a bundle of the destination.
pub(super) fn ask(
    connection: &Connection,
    destination: i64,
    serial: &str,
    now: Timestamp,
) -> Result<()> {
    let insert = "INSERT INTO stops (agent, destination, serial, asked_at)
                  SELECT agent, destination, ?, CAST(? AS BIGINT) FROM bundle_acknowledgements
                  WHERE destination = ? ON CONFLICT DO NOTHING";
    execute(
        connection,
        insert,
        params![serial, Column(now), destination],
    )?;
    Ok(())
}

const STOPS: &str = "SELECT s.*, g.id AS agent_id, d.id AS destination_id, a.id AS account_id
                     FROM stops s JOIN agents g ON g.key = s.agent
                     JOIN destinations d ON d.key = s.destination
                     JOIN accounts a ON a.key = d.account";

/// Of a destination's certificates, newest first.
pub(super) fn of_destination(connection: &Connection, name: &DestinationName) -> Result<Vec<Stop>> {
    let (key, _) = destination_keys(connection, name)?;
    let query = format!("{STOPS} WHERE s.destination = ? ORDER BY s.asked_at DESC, g.id");
    all(connection, &query, [key], stop)
}

/// What an agent still has to stop using.
pub(super) fn open_of(connection: &Connection, agent: &AgentName) -> Result<Vec<Stop>> {
    let key = agent_key(connection, agent)?;
    let query = format!("{STOPS} WHERE s.agent = ? AND s.acknowledged_at IS NULL");
    all(connection, &query, [key], stop)
}

fn stop(row: &Row<'_>) -> rusqlite::Result<Stop> {
    let account: Id = get(row, "account_id")?;
    Ok(Stop {
        agent: get::<Id>(row, "agent_id")?.into(),
        destination: DestinationName::new(&account, &get(row, "destination_id")?),
        serial: row.get("serial")?,
        asked_at: get(row, "asked_at")?,
        acknowledged_at: get_optional(row, "acknowledged_at")?,
    })
}

pub(super) fn acknowledge(
    connection: &Connection,
    agent: &AgentName,
    destination: &DestinationName,
    serials: &[String],
    now: Timestamp,
) -> Result<()> {
    let agent = agent_key(connection, agent)?;
    let (key, _) = destination_keys(connection, destination)?;
    for serial in serials {
        let update = "UPDATE stops SET acknowledged_at = ? WHERE agent = ? AND destination = ?
                      AND serial = ? AND acknowledged_at IS NULL";
        execute(connection, update, params![Column(now), agent, key, serial])?;
    }
    Ok(())
}
