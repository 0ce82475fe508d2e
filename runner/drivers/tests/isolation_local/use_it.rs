//! What a sandbox is for: a server inside, commands, the agent, a delivered backup.
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use drill::port::{Exec, ExitStatus, InputFile, Output, SandboxInputs};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use tokio_util::compat::FuturesAsyncReadCompatExt;

use crate::support::{LIMITS, Place, TestFn, initdb, server, until};
use crate::test;

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(a_server_inside_is_reached_by_dial),
        test!(exec_gives_output_status_and_the_end_of_much),
        test!(exec_ends_at_its_deadline_and_when_dropped),
        test!(files_and_a_backup_are_read_only_inside),
        test!(the_agent_talks_and_reaches_only_the_database),
        test!(a_template_is_made_once),
    ]
}

async fn a_server_inside_is_reached_by_dial(place: Place) {
    let inputs = SandboxInputs { template: Some(initdb()), port: 5432, ..SandboxInputs::default() };
    let held = place.sandbox_with(inputs, LIMITS).await;
    let sandbox = Arc::clone(&held.sandbox);
    let serving = tokio::spawn(async move { sandbox.exec(server()).await });
    let mut config = tokio_postgres::Config::new();
    config.user("postgres").dbname("postgres");
    let began = Instant::now();
    let client = loop {
        let stream = held.sandbox.dial().await.expect("dialled").compat();
        match config.connect_raw(stream, tokio_postgres::NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                break client;
            }
            Err(error) => assert!(began.elapsed() < Duration::from_secs(30), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let row = client.query_one("SELECT count(*) FROM generate_series(1, 200000) AS t(x)", &[]).await.expect("a row");
    assert_eq!(row.get::<_, i64>(0), 200_000);
    let rows = client.query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)", &[]).await.expect("rows");
    assert_eq!(rows.len(), 20_000);
    drop(client);
    held.release().await;
    assert!(serving.await.expect("no panic").is_err(), "the server went with its sandbox");
}

async fn exec_gives_output_status_and_the_end_of_much(place: Place) {
    let held = place.sandbox().await;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    let mut exec = Exec::new(["/bin/sh", "-c", "cat; echo $WORD >&2; exit 3"]);
    exec.stdin = b"from outside\nsecond".to_vec();
    exec.env = vec![("WORD".to_owned(), "said".to_owned())];
    exec.lines = Some(Arc::new(move |from: Output, line: &str| {
        seen.lock().expect("not poisoned").push((from, line.to_owned()));
    }));
    let output = held.sandbox.exec(exec).await.expect("it ran");
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"from outside\nsecond"[..], &b"said\n"[..]));
    let lines = lines.lock().expect("not poisoned").clone();
    for line in [(Output::Stdout, "from outside"), (Output::Stdout, "second"), (Output::Stderr, "said")] {
        assert!(lines.contains(&(line.0, line.1.to_owned())), "{lines:?}");
    }

    let mut much = Exec::new(["/bin/sh", "-c", "head -c 50000000 /dev/zero | tr '\\0' x; echo end"]);
    much.keep = 10;
    let output = held.sandbox.exec(much).await.expect("it ran");
    assert_eq!((output.stdout.as_slice(), output.truncated), (&b"xxxxxxend\n"[..], true));

    let killed = held.sh("kill -9 $$").await;
    assert_eq!(killed.status, ExitStatus::Signal(9));
    let absent = held.sandbox.exec(Exec::new(["/nowhere"])).await.expect_err("it does not exist");
    assert!(absent.message.contains("/nowhere"), "{absent}");
    held.release().await;
}

async fn exec_ends_at_its_deadline_and_when_dropped(place: Place) {
    let held = place.sandbox().await;
    let mut exec = Exec::new(["/bin/sh", "-c", "echo begun; sleep 1000 & sleep 1000"]);
    exec.deadline = Duration::from_millis(300);
    let output = held.sandbox.exec(exec).await.expect("it ran");
    assert_eq!((output.status, output.stdout.as_slice()), (ExitStatus::DeadlineExceeded, &b"begun\n"[..]));

    let forever = held.sandbox.exec(Exec::new(["/bin/sh", "-c", "sleep 1000 & sleep 1000"]));
    assert!(tokio::time::timeout(Duration::from_millis(300), forever).await.is_err());
    let began = Instant::now();
    while held.sh("grep -l sleep /proc/[0-9]*/comm").await.status == ExitStatus::Code(0) {
        assert!(began.elapsed() < Duration::from_secs(10), "a dropped command lives on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    held.release().await;
}

async fn files_and_a_backup_are_read_only_inside(place: Place) {
    let file = |name: &str, secret| InputFile { name: name.to_owned(), contents: b"text".to_vec(), secret };
    let files = vec![file("server.key", true), file("tls/server.crt", false)];
    let held = place.sandbox_with(SandboxInputs { files, port: 1, ..SandboxInputs::default() }, LIMITS).await;
    assert_eq!(held.say("stat -c %a:%u /conf/server.key /conf/tls/server.crt | tr '\\n' ' '").await, "600:70 644:70");
    assert_eq!(held.say("ls /backup | wc -l").await, "0");
    let staging = held.storage.staging.clone();
    std::fs::create_dir(staging.join("orders")).expect("made");
    std::fs::write(staging.join("orders/toc.dat"), "toc").expect("written");
    std::fs::write(staging.join("globals.sql"), "globals").expect("written");
    held.sandbox.deliver().await.expect("delivered");
    assert_eq!(held.say("cat /backup/orders/toc.dat /backup/globals.sql").await, "tocglobals");
    for write in [
        "echo x > /backup/globals.sql",
        "echo x >> /backup/orders/toc.dat",
        "rm /backup/globals.sql",
        "chmod 777 /backup/globals.sql",
        "touch /backup/new",
        "echo x > /conf/server.key",
        "touch /usr/x",
        "touch /x",
        "touch /dev/x",
        "echo 1 > /proc/sys/kernel/ns_last_pid",
    ] {
        assert_ne!(held.sh(write).await.status, ExitStatus::Code(0), "{write}");
    }
    assert_eq!(held.say("touch /data/x /tmp/x /dev/shm/x && umask && id -u").await, "0077\n70");
    held.release().await;
}

/// What `run_agent` starts in this test: echoes its input, after a line on what it can see.
pub(crate) fn agent() -> ExitCode {
    let has = |path: &str| std::fs::exists(path).unwrap_or(false);
    let database = std::os::unix::net::UnixStream::connect("/db.sock").is_ok();
    let (data, conf, variables) = (has("/data"), has("/conf"), std::env::vars().count());
    let told = writeln!(
        std::io::stdout(),
        "database {database} data {data} conf {conf} variables {variables} uid {}",
        rustix::process::getuid().as_raw()
    );
    told.expect("written");
    eprintln!("an obituary");
    let mut input = String::new();
    let read = std::io::stdin().read_to_string(&mut input);
    let echoed = std::io::stdout().write_all(input.as_bytes());
    if read.and(echoed).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn the_agent_talks_and_reaches_only_the_database(place: Place) {
    let held = place.sandbox().await;
    let mut agent = held.sandbox.run_agent().await.expect("an agent");
    agent.stdin.write_all(b"echo").await.expect("written");
    agent.stdin.close().await.expect("closed");
    drop(agent.stdin);
    let mut output = String::new();
    agent.stdout.read_to_string(&mut output).await.expect("read");
    // PWD is set by nobody; PATH, HOME and LANG are ours.
    assert_eq!(output, "database true data false conf false variables 4 uid 71\necho");
    until("its obituary is read", || (agent.stderr)() == "an obituary\n").await;
    held.release().await;
}

async fn a_template_is_made_once(place: Place) {
    let inputs = || SandboxInputs { template: Some(initdb()), port: 5432, ..SandboxInputs::default() };
    // Two at once: both work, one is kept.
    let (first, second) = tokio::join!(place.sandbox_with(inputs(), LIMITS), place.sandbox_with(inputs(), LIMITS));
    let one = first.say("cat /data/PG_VERSION; stat -c %a:%u /data/global/pg_control").await;
    assert_eq!(second.say("cat /data/PG_VERSION; stat -c %a:%u /data/global/pg_control").await, one);
    let cache = std::fs::read_dir(place.root.join("cache")).expect("read").flatten();
    let cached = cache
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("template-test"))
        .expect("it is kept");
    let made = || std::fs::metadata(&cached).expect("it is kept");
    let before = made();
    let third = place.sandbox_with(inputs(), LIMITS).await;
    assert_eq!((made().ino(), made().mtime_nsec()), (before.ino(), before.mtime_nsec()), "it was made again");
    assert!(one.ends_with("600:70"), "{one}");
    for held in [first, second, third] {
        held.release().await;
    }
    let kept = std::fs::read_dir(place.root.join("cache")).expect("read").flatten();
    let kept: Vec<_> = kept.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(kept.iter().filter(|name| name.starts_with("template-")).count(), 1, "{kept:?}");
}
