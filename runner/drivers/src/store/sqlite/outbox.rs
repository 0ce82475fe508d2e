//! Alerts and what each destination knows of them. What is news is for [`news`] to say.
use std::time::Duration;

use async_trait::async_trait;
use drill::port::{Alert, Delivery, LONGEST_WAIT, NEW_WORDS, Outbox};
use drill::stop::Stop;
use jiff::Timestamp;
use rusqlite::{Connection, Error, OptionalExtension, Row, named_params, params};

use super::SqliteStore;
use super::rows::{self, int, json, nanoseconds};
use super::trouble::Failure;
use crate::store::news;

const ALERT: &str = "SELECT kind, subject, drill, run, opened, message, advice, details";

#[async_trait]
impl Outbox for SqliteStore {
    async fn raise(&self, alert: &Alert) -> Result<(), Stop> {
        let alert = news::bounded(alert);
        self.with("written", move |inner| raise(&mut inner.connection, &alert)).await
    }

    async fn resolve(&self, kind: &str, subject: &str, at: Timestamp) -> Result<bool, Stop> {
        let (kind, subject) = (kind.to_owned(), news::cut(subject));
        self.with("written", move |inner| {
            let sql = "UPDATE alerts SET resolved = ?3, revision = revision + 1, changed = ?3
                       WHERE kind = ?1 AND subject = ?2 AND resolved IS NULL";
            Ok(inner.connection.execute(sql, params![kind, subject, nanoseconds(at)?])? > 0)
        })
        .await
    }

    async fn open_alerts(&self) -> Result<Vec<Alert>, Stop> {
        self.with("read", |inner| {
            let sql = format!("{ALERT} FROM alerts WHERE resolved IS NULL ORDER BY opened, id");
            let mut statement = inner.connection.prepare(&sql)?;
            let found = statement.query_map([], alert)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
        .await
    }

    async fn due(
        &self,
        destination: &str,
        repeat: Option<Duration>,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Delivery>, Stop> {
        let destination = destination.to_owned();
        self.with("read", move |inner| due(&inner.connection, &destination, repeat, now, limit)).await
    }

    async fn delivered(&self, deliveries: &[Delivery], destination: &str, at: Timestamp) -> Result<(), Stop> {
        self.note(deliveries, destination, Note { told: true, at, again: None, why: None }).await
    }

    async fn undelivered(
        &self,
        deliveries: &[Delivery],
        destination: &str,
        at: Timestamp,
        again: Option<Timestamp>,
        why: &str,
    ) -> Result<(), Stop> {
        let note = Note { told: again.is_none(), at, again, why: Some(news::cut(why)) };
        self.note(deliveries, destination, note).await
    }

    async fn hurry(&self, destination: &str) -> Result<(), Stop> {
        let destination = destination.to_owned();
        self.with("written", move |inner| {
            let sql = "UPDATE told SET again = NULL WHERE destination = ?1 AND again IS NOT NULL";
            inner.connection.execute(sql, [destination])?;
            Ok(())
        })
        .await
    }

    async fn tidy(&self, destinations: &[String], before: Timestamp) -> Result<u64, Stop> {
        let destinations = json(&destinations)?;
        self.with("written", move |inner| {
            let transaction = inner.connection.transaction()?;
            transaction.execute(
                "DELETE FROM told WHERE destination NOT IN (SELECT value FROM json_each(?1))",
                [&destinations],
            )?;
            let forgotten = transaction.execute(
                "DELETE FROM alerts WHERE resolved IS NOT NULL AND (resolved < ?2 OR NOT EXISTS (
                    SELECT 1 FROM json_each(?1) AS asked
                    LEFT JOIN told ON told.alert = alerts.id AND told.destination = asked.value
                    WHERE told.at IS NULL OR told.revision < alerts.revision))",
                params![destinations, nanoseconds(before)?],
            )?;
            transaction.commit()?;
            Ok(forgotten as u64)
        })
        .await
    }
}

/// What became of a try. Given up counts as told.
struct Note {
    told: bool,
    at: Timestamp,
    again: Option<Timestamp>,
    why: Option<String>,
}

impl SqliteStore {
    async fn note(&self, deliveries: &[Delivery], destination: &str, note: Note) -> Result<(), Stop> {
        let of_each =
            |delivery: &Delivery| Ok((int(delivery.id)?, int(delivery.revision)?, delivery.resolved.is_none()));
        let noted: Vec<(i64, i64, bool)> = deliveries.iter().map(of_each).collect::<Result<_, Stop>>()?;
        let destination = destination.to_owned();
        self.with("written", move |inner| {
            let (at, again) = (nanoseconds(note.at)?, note.again.map(nanoseconds).transpose()?);
            let transaction = inner.connection.transaction()?;
            for (id, revision, open) in noted {
                // An alert that was forgotten meanwhile needs no note.
                let sql = if note.told {
                    "INSERT INTO told (alert, destination, revision, open, at, attempts, why)
                     SELECT id, ?2, ?3, ?4, ?5, 0, ?7 FROM alerts WHERE id = ?1 AND ?6 IS NULL
                     ON CONFLICT (alert, destination) DO UPDATE SET revision = excluded.revision, open = excluded.open,
                        at = excluded.at, attempts = 0, failing_since = NULL, again = NULL, why = excluded.why"
                } else {
                    "INSERT INTO told (alert, destination, revision, open, attempts, failing_since, again, why)
                     SELECT id, ?2, 0, ?4, 1, ?5, ?6, ?7 FROM alerts WHERE id = ?1 AND ?3 > 0
                     ON CONFLICT (alert, destination) DO UPDATE SET attempts = attempts + 1,
                        failing_since = coalesce(failing_since, excluded.failing_since), again = excluded.again,
                        why = excluded.why"
                };
                let values = params![id, destination, revision, open, at, again, note.why];
                transaction.prepare_cached(sql)?.execute(values)?;
            }
            Ok(transaction.commit()?)
        })
        .await
    }
}

fn raise(connection: &mut Connection, new: &Alert) -> Result<(), Failure> {
    let transaction = connection.transaction()?;
    let sql = format!("{ALERT}, resolved FROM alerts WHERE kind = ?1 AND subject = ?2");
    let known = transaction
        .query_row(&sql, params![new.kind, new.subject], |row| Ok((alert(row)?, rows::optional_time(row, 8)?)))
        .optional()?;
    let (opened, is_news) = match &known {
        Some((old, None)) => (old.at, news::is_news(old, new)),
        Some((_, Some(_))) | None => (new.at, true),
    };
    transaction.execute(
        "INSERT INTO alerts (kind, subject, drill, run, opened, message, advice, details, revision, changed)
         VALUES (:kind, :subject, :drill, :run, :opened, :message, :advice, :details, 1, :now)
         ON CONFLICT (kind, subject) DO UPDATE SET drill = excluded.drill, run = excluded.run, opened = excluded.opened,
            message = excluded.message, advice = excluded.advice, details = excluded.details, resolved = NULL,
            revision = revision + :news, changed = CASE WHEN :news THEN excluded.changed ELSE changed END",
        named_params! {
            ":kind": new.kind,
            ":subject": new.subject,
            ":drill": new.drill.as_ref().map(drill::id::DrillName::as_str),
            ":run": new.run.as_ref().map(drill::id::RunId::as_str),
            ":opened": nanoseconds(opened)?,
            ":message": new.message,
            ":advice": new.advice,
            ":details": json(&new.details)?,
            ":now": nanoseconds(new.at)?,
            ":news": is_news,
        },
    )?;
    Ok(transaction.commit()?)
}

fn due(
    connection: &Connection,
    destination: &str,
    repeat: Option<Duration>,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Delivery>, Failure> {
    // A time that lies in the future is of a clock that was set back: nobody waits for it.
    let sql = format!(
        "{ALERT}, alerts.id, alerts.revision, alerts.resolved, coalesce(told.attempts, 0), told.failing_since
         FROM alerts LEFT JOIN told ON told.alert = alerts.id AND told.destination = :destination
         WHERE (told.again IS NULL OR told.again <= :now OR told.again > :now + :longest)
           AND (told.at IS NULL
             OR (told.revision < alerts.revision
                 AND (told.open <> (alerts.resolved IS NULL) OR told.at <= :now - :words OR told.at > :now))
             OR (alerts.resolved IS NULL AND (told.at <= :now - :repeat OR (:repeat IS NOT NULL AND told.at > :now))))
         ORDER BY coalesce(told.attempts, 0), alerts.changed, alerts.id LIMIT :limit"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let values = named_params! {
        ":destination": destination,
        ":now": nanoseconds(now)?,
        ":words": length(NEW_WORDS)?,
        ":repeat": repeat.map(length).transpose()?,
        // With the jitter that a wait may have.
        ":longest": length(LONGEST_WAIT * 2)?,
        ":limit": limit,
    };
    let found = statement.query_map(values, |row| {
        Ok(Delivery {
            id: rows::unsigned(row, 8)?,
            revision: rows::unsigned(row, 9)?,
            alert: alert(row)?,
            resolved: rows::optional_time(row, 10)?,
            attempts: row.get(11)?,
            failing_since: rows::optional_time(row, 12)?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

fn length(of: Duration) -> Result<i64, Stop> {
    i64::try_from(of.as_nanos()).map_err(|_| Stop::internal(format!("{of:?} is out of the ledger's range")))
}

/// A row of [`ALERT`].
fn alert(row: &Row<'_>) -> Result<Alert, Error> {
    let parsed = |column| row.get::<_, Option<String>>(column);
    let details: String = row.get(7)?;
    Ok(Alert {
        kind: row.get(0)?,
        subject: row.get(1)?,
        drill: parsed(2)?.map(|_| rows::text(row, 2)).transpose()?,
        run: parsed(3)?.map(|_| rows::text(row, 3)).transpose()?,
        at: rows::time(row, 4)?,
        message: row.get(5)?,
        advice: row.get(6)?,
        details: serde_json::from_str(&details).map_err(|error| rows::bad(7, error))?,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn alerts_of_an_older_muster_are_kept_and_told() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("migrations/V1__initial.sql")).unwrap();
        let old = "INSERT INTO alerts (kind, drill, run, at, message, advice) VALUES
            ('artifact-refused', 'orders', 'orders-20261122t021500z-01020304', 1, 'one', 'look'),
            ('artifact-refused', 'users', 'users-20261122t021500z-01020304', 2, 'two', NULL),
            ('artifact-refused', 'orders', 'orders-20261122t021600z-01020304', 3, 'three', NULL)";
        connection.execute(old, []).unwrap();
        connection.execute_batch(include_str!("migrations/V3__outbox.sql")).unwrap();
        let due = due(&connection, "pager", None, Timestamp::now(), 9).ok().unwrap();
        let said: Vec<_> = due.iter().map(|of| (of.alert.subject.as_str(), of.alert.message.as_str())).collect();
        assert_eq!(said, [("users", "two"), ("orders", "three")]);
    }
}
