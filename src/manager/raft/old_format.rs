//! Files of format 1, from before Raft: one node, a snapshot and the commands after it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `snapshot` | how many commands are in it | crc32c (4 bytes, little endian), then the catalog as JSON |
//! | `log` | the number of the command, from 1 on | crc32c (4 bytes, little endian), then the command as JSON |
//!
//! They are read here and never written.

use super::store::{text, unsealed};
use crate::protocol::catalog::{Catalog, Command};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

pub(super) const FORMAT: u64 = 1;
pub(super) const SNAPSHOT: TableDefinition<u64, &[u8]> = TableDefinition::new("snapshot");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// The snapshot, and every command after it.
pub(super) fn read(database: &Database) -> Result<Catalog, String> {
    let reading = database.begin_read().map_err(text)?;
    let snapshots = reading.open_table(SNAPSHOT).map_err(text)?;
    let mut catalog = match snapshots.last().map_err(text)? {
        None => Catalog::default(),
        Some((number, value)) => {
            let what = format!("snapshot {}", number.value());
            let bytes = unsealed(value.value(), &what)?;
            let catalog = Catalog::restore(bytes).map_err(|error| format!("{what}: {error}"))?;
            if catalog.applied() != number.value() {
                return Err(format!(
                    "{what} says that it is number {}",
                    catalog.applied()
                ));
            }
            catalog
        }
    };
    let log = reading.open_table(LOG).map_err(text)?;
    for entry in log.iter().map_err(text)? {
        let (number, value) = entry.map_err(text)?;
        let what = format!("command {}", number.value());
        let bytes = unsealed(value.value(), &what)?;
        let command: Command = serde_json::from_slice(bytes)
            .map_err(|error| format!("{what} is not one that this build knows: {error}"))?;
        if number.value() != catalog.applied() + 1 {
            return Err(format!("{what} follows command {}", catalog.applied()));
        }
        catalog
            .apply(&command)
            .map_err(|refusal| format!("{what} was accepted once and is refused now: {refusal}"))?;
    }
    Ok(catalog)
}
