use std::time::Duration;

use drivers::engine::postgresql::content::PageRange;
use plugin_host::backend::{ColumnData, Sql};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::Database;
use super::TestServer;

const HOUR: Duration = Duration::from_hours(1);

/// The first login is ended as its lease would be. What is begun after the other one came goes on in the same snapshot.
pub(super) async fn another_login_takes_over(server: &TestServer) {
    server.admin("orders", "CREATE ROLE heir LOGIN BYPASSRLS; GRANT pg_read_all_data TO heir");
    server.admin("orders", "CREATE TABLE rotated AS SELECT n FROM pg_catalog.generate_series(1, 3) n");
    let (lease, identity) = watch::channel(server.identity());
    let database = Database::open(&server.socket(), identity, "reader", "orders", Instant::now() + HOUR).await.unwrap();
    let (idle, busy) = (database.sql(Instant::now() + HOUR), database.sql(Instant::now() + HOUR));
    assert_eq!(count(&idle).await, 3);
    let mut open = busy.query("SELECT n FROM public.rotated", Vec::new()).await.unwrap();
    assert!(open.next(1).await.unwrap().is_some());
    let mut scan = database.scans(Instant::now() + HOUR).connect().await.unwrap();
    server.admin("orders", "INSERT INTO rotated VALUES (4)");

    lease.send_replace(server.identity_of("heir"));
    wait(server, "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'heir' AND state = 'idle in transaction'");
    assert!(open.next(1).await.unwrap().is_some(), "what is open goes on with the old login");
    assert_eq!(count(&idle).await, 3, "an idle check changes over, in the same snapshot");

    server.admin("orders", "ALTER ROLE reader NOLOGIN");
    server.admin("orders", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'reader'");
    assert_eq!(count(&idle).await, 3, "the old login's end does not touch it");
    assert_eq!(count(&database.sql(Instant::now() + HOUR)).await, 3, "nor a check that begins after it");
    let error = loop {
        match open.next(1).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the rest was held already: three rows, fetched one by one, must not be"),
            Err(error) => break error,
        }
    };
    assert!(error.message.contains("closed the connection"), "{}", error.message);
    assert_eq!(
        scan.pieces("public", "rotated").await.unwrap(),
        PageRange::split(1),
        "a scan changes over between pieces"
    );

    drop((idle, busy, open, scan));
    database.close().await;
    wait(server, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'heir'");
    server.admin(
        "orders",
        "ALTER ROLE reader LOGIN; DROP TABLE rotated; REVOKE pg_read_all_data FROM heir; DROP ROLE heir",
    );
}

/// A lease that is renewed brings another certificate of the same login: what is open goes on, and what is opened uses it.
pub(super) async fn another_certificate_takes_over(server: &TestServer) {
    server.admin("orders", "CREATE TABLE rotated AS SELECT n FROM pg_catalog.generate_series(1, 3) n");
    let (lease, identity) = watch::channel(server.identity());
    let database = Database::open(&server.socket(), identity, "reader", "orders", Instant::now() + HOUR).await.unwrap();
    let idle = database.sql(Instant::now() + HOUR);
    assert_eq!(count(&idle).await, 3);

    lease.send_replace(server.expired_identity());
    assert_eq!(count(&idle).await, 3, "a session outlives the certificate that it came with");
    let refused = database.sql(Instant::now() + HOUR).query("SELECT 1", Vec::new()).await.map(drop).unwrap_err();
    assert!(refused.message.contains("CertificateExpired"), "{}", refused.message);

    lease.send_replace(server.identity());
    assert_eq!(count(&database.sql(Instant::now() + HOUR)).await, 3, "a check that begins after it has the new one");
    drop(idle);
    database.close().await;
    server.admin("orders", "DROP TABLE rotated");
}

async fn count(sql: &impl Sql) -> i64 {
    let mut rows = sql.query("SELECT count(*) FROM public.rotated", Vec::new()).await.unwrap();
    let batch = rows.next(10).await.unwrap().unwrap();
    match &batch.columns[0].data {
        ColumnData::Integers(numbers) => numbers[0],
        other => panic!("{other:?}"),
    }
}

fn wait(server: &TestServer, condition: &str) {
    for _ in 0..200 {
        if server.admin("postgres", condition) == "t" {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {condition}");
}
