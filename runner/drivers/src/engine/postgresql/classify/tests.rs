use super::*;

fn read(text: &str) -> Errors {
    let mut errors = Errors::default();
    text.lines().for_each(|line| errors.line(line));
    errors.finish();
    errors
}

fn class(message: &str) -> Class {
    classify(&RestoreError { message: message.to_owned(), entry: None, command: None })
}

#[test]
fn an_error_carries_its_entry_and_its_statement_and_no_rows() {
    let errors = read(
        "pg_restore: while PROCESSING TOC:\n\
         pg_restore: from TOC entry 3325; 2606 16394 CONSTRAINT t t_pkey app\n\
         pg_restore: error: could not execute query: ERROR:  could not create unique index \"t_pkey\"\n\
         DETAIL:  Key (card)=(4111 1111) is duplicated.\n\
         Command was: ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (card);\n\n\
         pg_restore: warning: errors ignored on restore: 1",
    );
    assert_eq!(errors.dump.total, 1);
    let error = &errors.dump.errors[0];
    assert_eq!(error.message, "could not create unique index \"t_pkey\"");
    assert_eq!(error.subject(), "CONSTRAINT t t_pkey app");
    assert_eq!(error.command.as_deref(), Some("ALTER TABLE ONLY public.t"));
    assert!(errors.advice.is_some_and(|advice| advice.contains("reindex")));
}

#[test]
fn a_copy_that_fails_has_no_statement() {
    let errors = read(
        "pg_restore: processing data for table \"public.t\"\n\
         pg_restore: from TOC entry 3323; 0 16389 TABLE DATA t app\n\
         pg_restore: error: COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"x\"\n\
         CONTEXT:  COPY t, line 1, column a: \"x\"\n\
         pg_restore: creating INDEX \"public.i\"",
    );
    assert_eq!(errors.dump.errors[0].subject(), "TABLE DATA t app");
    assert_eq!(errors.dump.errors[0].command, None);
}

#[test]
fn globals_are_read_from_psql() {
    let errors = read(
        "psql:/backup/globals.sql:14: ERROR:  role \"muster_sandbox\" already exists\n\
         psql:/backup/globals.sql:15: NOTICE:  nothing\n\
         psql:/backup/globals.sql:19: ERROR:  role \"gone\" does not exist",
    );
    assert_eq!(errors.sandbox.as_ref().map(|(error, ..)| error.subject()).as_deref(), Some("globals.sql line 14"));
    assert_eq!(errors.dump.total, 1);
}

#[test]
fn a_scripts_error_carries_its_statement_and_no_rows() {
    let errors = read(
        "psql:/backup/shop.sql:14: ERROR:  duplicate key value violates unique constraint \"t_pkey\"\n\
         DETAIL:  Key (card)=(4111 1111) already exists.\n\
         psql:/backup/shop.sql:14: STATEMENT:  INSERT INTO public.t VALUES ('4111 1111');\n\
         psql:<stdin>:15: ERROR:  relation \"public.t\" does not exist\n\
         psql:<stdin>:15: STATEMENT:  ALTER TABLE ONLY public.t DROP CONSTRAINT t_pkey;\n\
         psql:<stdin>:16: error: invalid command \\restrict\n\
         psql:<stdin>:17: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\n\
         psql:<stdin>:17: STATEMENT:  SET transaction_timeout = 0;",
    );
    assert_eq!((errors.dump.total, errors.benign.total), (1, 3));
    assert_eq!(errors.dump.errors[0].command.as_deref(), Some("INSERT INTO public.t"));
    assert_eq!(errors.dump.errors[0].subject(), "shop.sql line 14");
    assert_eq!(errors.benign.errors[0].subject(), "script line 15");
    assert!(!format!("{errors:?}").contains("4111"));
}

/// Messages of the servers' and the tools' sources that one PostgreSQL here cannot be made to say.
#[test]
fn the_catalogue_knows_what_cannot_be_made_here() {
    let advice = |message: &str| match class(message) {
        Class::Dump { advice } => ("dump", advice.unwrap_or_default()),
        Class::Sandbox { advice, .. } => ("sandbox", advice),
        Class::BlockedByIsolation => ("blocked", String::new()),
        Class::Benign(why) => ("benign", why.to_owned()),
        Class::WorkerEnded => ("worker", String::new()),
    };
    for (message, who, said) in [
        ("must be owner of large object 12", "dump", "session-authorization"),
        ("permission denied to create event trigger \"e\"", "dump", "session-authorization"),
        ("unrecognized configuration parameter \"transaction_timeout\"", "sandbox", "major"),
        ("must be superuser to create FOR ALL TABLES publication", "dump", "session-authorization"),
        ("could not connect to the publisher: connection refused", "blocked", ""),
        ("could not create replication slot \"s\"", "blocked", ""),
        ("could not open collator for locale \"xx\": U_FILE_ACCESS_ERROR", "sandbox", "ICU"),
        ("unsupported version (1.16) in file header", "sandbox", "major"),
        ("input file appears to be a text format dump. Please use psql.", "dump", "script"),
        ("COPY failed for table \"t\": ERROR:  relation \"t\" does not exist", "dump", "data-only"),
        ("column \"b\" of relation \"t\" does not exist", "dump", "schema and data"),
        ("required extension \"cube\" is not installed", "dump", "left out"),
        ("invalid byte sequence for encoding \"UTF8\": 0xff", "dump", "encoding"),
        ("no partition of relation \"t\" found for row", "dump", "load-via-partition-root"),
        ("corrupt tar header found in x", "dump", "damaged"),
    ] {
        let (found, advice) = advice(message);
        assert_eq!(found, who, "{message}");
        assert!(advice.contains(said), "{message}: {advice}");
    }
}

#[test]
fn what_the_sandbox_lacks_is_no_verdict_on_the_backup() {
    let lacking = [
        "extension \"postgis\" is not available",
        "could not extend file \"base/5/1\": No space left on device",
        "could not access file \"$libdir/postgis-3\": No such file or directory",
        "server closed the connection unexpectedly",
        "connection to server was lost",
        "pg_cron can only be loaded via shared_preload_libraries",
        "invalid LC_COLLATE locale name: \"de_DE.UTF-8\"",
        "unsupported version (1.16) in file header",
        "tablespace \"fast\" does not exist",
        "invalid value for parameter \"lc_messages\": \"de_DE.UTF-8\"",
    ];
    for message in lacking {
        assert!(matches!(class(message), Class::Sandbox { .. }), "{message}");
    }
}

#[test]
fn a_label_of_a_provider_that_is_not_here_is_no_verdict() {
    let label = "SECURITY LABEL FOR selinux ON TABLE public.t IS 'x';";
    for message in ["security label provider \"selinux\" is not loaded", "no security label providers have been loaded"]
    {
        assert!(matches!(class_of(message, label), Class::Sandbox { .. }), "{message}");
        assert!(!matches!(class_of(message, "SELECT public.f();"), Class::Sandbox { .. }), "{message}");
    }
}

fn class_of(message: &str, command: &str) -> Class {
    classify(&RestoreError { message: message.to_owned(), entry: None, command: Some(command.to_owned()) })
}

/// Messages quote what the backup holds.
#[test]
fn no_value_and_no_name_of_the_backup_excuses_an_error() {
    let faults = [
        "COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"Connection refused\"",
        "COPY failed for table \"t\": ERROR:  invalid input syntax for type integer: \"No space left on device\"",
        "COPY failed for table \"t\": ERROR:  schema \"public\" already exists",
        "invalid input syntax for type json: \"could not connect to server\"",
        "type \"schema \"public\" already exists\" does not exist",
        "relation \"out of memory\" already exists",
        "role \"the database system is\" does not exist",
        "must be owner of extension plpgsql",
    ];
    for message in faults {
        assert!(matches!(class(message), Class::Dump { .. }), "{message}: {:?}", class(message));
    }
    let comment = class_of("must be owner of extension plpgsql", "COMMENT ON EXTENSION plpgsql IS 'ours';");
    assert!(matches!(comment, Class::Benign(_)));
    let add = "ALTER TABLE ONLY public.\"a DROP b\" ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES public.gone(a);";
    let gone = "relation \"public.gone\" does not exist";
    assert!(matches!(class_of(gone, add), Class::Dump { .. }));
    assert!(matches!(class_of(gone, "ALTER TABLE ONLY public.gone DROP CONSTRAINT c;"), Class::Benign(_)));
}

#[test]
fn rows_that_are_missing_are_never_passed_over() {
    for command in ["COPY public.t (a) FROM stdin;", "INSERT INTO public.t"] {
        for message in ["schema \"public\" already exists", "could not connect to server \"remote\""] {
            let found = class_of(message, command);
            assert!(matches!(found, Class::Dump { .. } | Class::Sandbox { .. }), "{command} {message}: {found:?}");
        }
    }
    let errors = read(
        "pg_restore: from TOC entry 3323; 0 16389 TABLE DATA f app\n\
         pg_restore: error: COPY failed for table \"f\": ERROR:  could not connect to server \"remote\"\n\
         pg_restore: from TOC entry 3324; 0 16390 TABLE DATA t app\n\
         pg_restore: error: COPY failed for table \"t\": server closed the connection unexpectedly",
    );
    let (first, _, advice) = errors.sandbox.as_ref().expect("isolation is no verdict");
    assert_eq!(first.subject(), "TABLE DATA f app");
    assert!(advice.contains("--include-foreign-data"), "{advice}");
    assert_eq!((errors.benign.total, errors.blocked.total, errors.dump.total), (0, 0, 0));
    let rows = "COPY failed for table \"t\": server closed the connection unexpectedly";
    assert!(matches!(class(rows), Class::Sandbox { .. }));
    // What psql makes of the rows of a COPY that failed.
    assert!(matches!(class_of("invalid command \\N", "COPY public.t (a) FROM stdin;"), Class::Benign(_)));
}

/// A server that another language was set for says its kinds of messages in it.
#[test]
fn whatever_a_server_calls_it_is_an_error() {
    let errors = read(
        "psql:/backup/shop.sql:12: FEHLER:  Relation \u{bb}public.t\u{ab} existiert nicht\n\
         psql:/backup/shop.sql:12: STATEMENT:  ALTER TABLE public.t ADD b int;\n\
         psql:<stdin>:13: \u{41e}\u{428}\u{418}\u{411}\u{41a}\u{410}:  x\n\
         psql:<stdin>:14: PANIC:  y\n\
         pg_restore: error: could not execute query: ERREUR:  z",
    );
    assert_eq!(errors.dump.total, 4);
    assert_eq!(errors.dump.errors[0].message, "Relation \u{bb}public.t\u{ab} existiert nicht");
    assert_eq!(errors.dump.errors[0].command.as_deref(), Some("ALTER TABLE public.t ADD b int;"));
    assert_eq!(errors.dump.errors[1].subject(), "script line 13");
    assert_eq!(errors.dump.errors[3].message, "z");
    let silent = read(
        "psql:<stdin>:1: NOTICE:  a\npsql:<stdin>:2: WARNING:  b: ERROR:  c\npsql:<stdin>:3: INFO:  d\n\
         psql:<stdin>:4: LOG:  e\npsql:<stdin>:5: DEBUG:  f\npsql:<stdin>:6: DETAIL:  g\npsql:<stdin>:7: HINT:  h\n\
         psql:<stdin>:8: CONTEXT:  i\npsql:<stdin>:9: STATEMENT:  j\npsql:<stdin>:10: LINE 1: k\n\
         psql:<stdin>:11: warning: l\npsql:<stdin>:12: The connection to the server was lost. Attempting reset: Failed.",
    );
    assert!(silent.is_empty(), "{silent:?}");
}

/// A worker that the kernel killed tells nothing; one that ends by an error has told it before.
#[test]
fn a_worker_that_was_killed_is_no_verdict_on_the_backup() {
    for message in [
        "a worker process died unexpectedly",
        "could not read from the communication channel: Connection reset by peer",
        "could not write to the communication channel: Broken pipe",
    ] {
        let killed = read(&format!("pg_restore: error: {message}"));
        let (_, reason, advice) = killed.sandbox.as_ref().expect(message);
        assert_eq!(*reason, Reason::LimitReached);
        assert!(advice.contains("memory"), "{advice}");
        let damaged = read(&format!(
            "pg_restore: error: could not read from input file: end of file\npg_restore: error: {message}"
        ));
        assert!(damaged.sandbox.is_none(), "{damaged:?}");
        assert_eq!(damaged.dump.total, 1);
    }
    let files = class("could not open input file \"/backup/shop/3323.dat.gz\": Too many open files");
    assert!(matches!(files, Class::Sandbox { reason: Reason::LimitReached, .. }), "{files:?}");
}

#[test]
fn isolation_is_told_from_faults_of_the_dump() {
    assert_eq!(class("could not connect to server \"remote\""), Class::BlockedByIsolation);
    assert_eq!(class("could not establish connection"), Class::BlockedByIsolation);
    assert_eq!(class("schema \"public\" already exists"), Class::Benign("every database has it"));
    let faults = [
        "role \"bob\" does not exist",
        "relation \"t\" already exists",
        "column \"x\" does not exist",
        "anything else",
    ];
    for message in faults {
        assert!(matches!(class(message), Class::Dump { .. }), "{message}");
    }
}

#[test]
fn a_flood_of_errors_is_counted_and_not_kept() {
    let mut errors = Errors::default();
    for index in 0..100_000 {
        errors.line(&format!("pg_restore: error: could not execute query: ERROR:  bad {index}"));
    }
    errors.finish();
    assert_eq!((errors.dump.total, errors.dump.errors.len()), (100_000, KEPT));
}
