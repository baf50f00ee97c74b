//! The ledger's books in SQLite: every commit is on stable storage before it returns.
//!
//! Locking is exclusive, so that a second server on the same directory is refused and no shared
//! memory file is needed. Knows nothing of the line protocol.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// Name of the database in the data directory.
pub(super) const FILE_NAME: &str = "ledger.db";

/// How long a former server may take to let go of the files.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS account (
        id INTEGER PRIMARY KEY,
        cents INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS transfer (
        id INTEGER PRIMARY KEY,
        source INTEGER NOT NULL,
        target INTEGER NOT NULL,
        cents INTEGER NOT NULL CHECK (cents > 0)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS entry (
        transfer INTEGER NOT NULL REFERENCES transfer (id),
        account INTEGER NOT NULL REFERENCES account (id),
        cents INTEGER NOT NULL,
        PRIMARY KEY (transfer, account)
    ) STRICT, WITHOUT ROWID;
";

/// Money that goes from one account to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    /// Its number, from 1 on.
    pub(super) id: i64,
    pub(super) from: u32,
    pub(super) to: u32,
    /// Positive.
    pub(super) cents: i64,
}

/// Why the books were not changed or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("number {0} was booked with other content")]
    Conflict(i64),
    #[error("the books do not agree with their entries in {0} accounts")]
    Damaged(i64),
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// The open books.
pub(super) struct Store {
    connection: Connection,
}

impl Store {
    /// Opens the books in a directory, or creates them.
    pub(super) fn open(directory: &Path) -> Result<Self, rusqlite::Error> {
        let connection = Connection::open(directory.join(FILE_NAME))?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection })
    }

    /// Books a transfer; on stable storage when this returns. Booking the same one again changes
    /// nothing and succeeds.
    pub(super) fn book(&mut self, transfer: Transfer) -> Result<(), StoreError> {
        let Transfer { id, from, to, cents } = transfer;
        let books = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known = books
            .prepare_cached("SELECT source, target, cents FROM transfer WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        match known {
            Some(content) if content == (from, to, cents) => return Ok(()),
            Some(_) => return Err(StoreError::Conflict(id)),
            None => {}
        }
        books
            .prepare_cached("INSERT INTO transfer (id, source, target, cents) VALUES (?, ?, ?, ?)")?
            .execute(params![id, from, to, cents])?;
        for (account, change) in [(from, -cents), (to, cents)] {
            books
                .prepare_cached(
                    "INSERT INTO account (id, cents) VALUES (?1, ?2)
                     ON CONFLICT (id) DO UPDATE SET cents = cents + excluded.cents",
                )?
                .execute(params![account, change])?;
            books
                .prepare_cached("INSERT INTO entry (transfer, account, cents) VALUES (?, ?, ?)")?
                .execute(params![id, account, change])?;
        }
        Ok(books.commit()?)
    }

    /// Number of transfers.
    pub(super) fn count(&self) -> Result<i64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM transfer", [], |row| row.get(0))?)
    }

    /// At most `limit` numbers of transfers, the smallest first, greater than `after`.
    pub(super) fn ids(&self, after: i64, limit: usize) -> Result<Vec<i64>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut statement = self
            .connection
            .prepare_cached("SELECT id FROM transfer WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let ids = statement.query_map([after, limit], |row| row.get(0))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// The sum of all accounts, in cents, after comparing each with its entries: 0, or money was
    /// made or lost.
    pub(super) fn balance(&self) -> Result<i64, StoreError> {
        let wrong = self.connection.query_row(
            "SELECT count(*) FROM account
             LEFT JOIN (SELECT account, sum(cents) AS total FROM entry GROUP BY account)
             ON account = id WHERE cents IS NOT total",
            [],
            |row| row.get(0),
        )?;
        if wrong != 0 {
            return Err(StoreError::Damaged(wrong));
        }
        let sum = "SELECT coalesce(sum(cents), 0) FROM account";
        Ok(self.connection.query_row(sum, [], |row| row.get(0))?)
    }
}
