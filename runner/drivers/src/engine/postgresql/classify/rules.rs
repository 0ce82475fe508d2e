//! The catalogue: what restores of real dumps say, whose fault it is, and what to do.
use drill::verdict::Reason;

use super::pattern::{Words, begins_like};
use super::{Class, RestoreError};

/// Where the server found no room on its disk.
pub(in super::super) const MAKE_ROOM: &str = "raise the sandbox's disk limit, or make room";

pub(super) struct Rule {
    words: Words,
    /// The statement begins with one of them, and what stands behind a `*` comes later; empty: whatever it is.
    commands: &'static [&'static str],
    pub(super) class: fn() -> Class,
}

impl Rule {
    pub(super) fn fits(&self, error: &RestoreError) -> bool {
        self.words.fit(error) && begins_like(error, self.commands)
    }
}

/// One of the patterns is the whole message.
const fn rule(patterns: &'static [&'static str], class: fn() -> Class) -> Rule {
    Rule { words: Words::Whole(patterns), commands: &[], class }
}

/// Only where the statement begins with one of `commands`.
const fn of(commands: &'static [&'static str], patterns: &'static [&'static str], class: fn() -> Class) -> Rule {
    Rule { words: Words::Whole(patterns), commands, class }
}

/// Advice where all of the parts occur: what the error is does not depend on it.
const fn hint(parts: &'static [&'static str], class: fn() -> Class) -> Rule {
    Rule { words: Words::Parts(parts), commands: &[], class }
}

/// The same, only where the statement begins with one of `commands`.
const fn hint_of(commands: &'static [&'static str], parts: &'static [&'static str], class: fn() -> Class) -> Rule {
    Rule { words: Words::Parts(parts), commands, class }
}

fn unfit(advice: &str) -> Class {
    Class::Sandbox { reason: Reason::SandboxUnfit, advice: advice.to_owned() }
}

fn limit(advice: &str) -> Class {
    Class::Sandbox { reason: Reason::LimitReached, advice: advice.to_owned() }
}

fn dump(advice: &str) -> Class {
    Class::Dump { advice: Some(advice.to_owned()) }
}

/// The first that fits.
pub(super) const RULES: &[Rule] = &[
    // What every cluster has already.
    rule(
        &[
            "schema \"public\" already exists",
            "extension \"plpgsql\" already exists",
            "language \"plpgsql\" already exists",
        ],
        || Class::Benign("every database has it"),
    ),
    rule(&["database \"template1\" already exists"], || Class::Benign("every server has it")),
    rule(&["role \"muster_sandbox\" already exists"], || {
        unfit("the backup has a role of muster's own name: rename `muster_sandbox` at the source")
    }),
    of(&["COMMENT ON EXTENSION "], &["must be owner of extension *"], || {
        Class::Benign("an extension keeps its own comment, whoever owns it")
    }),
    of(&["COMMENT ON SCHEMA public ", "ALTER SCHEMA public OWNER TO "], &["must be owner of schema public"], || {
        Class::Benign("the schema's own comment and owner stay as every database has them")
    }),
    // What a newer or older pg_dump writes for its own session: it is over when the restore is.
    of(&["SET "], &["unrecognized configuration parameter *"], || {
        Class::Benign(
            "a setting of the restore's own session that this major does not have, such as transaction_timeout",
        )
    }),
    of(&["SET default_tablespace"], &["invalid value for parameter \"default_tablespace\"*"], || {
        Class::Benign("a sandbox has one tablespace, and the objects go there")
    }),
    rule(&["invalid command \\restrict", "invalid command \\unrestrict"], || {
        Class::Benign("this psql is older than the command, and the script was read before")
    }),
    rule(&["invalid command \\N"], || Class::Benign("what psql made of the rows of a COPY that had failed before")),
    // `pg_dump --clean` drops first; there is nothing yet.
    of(
        &["DROP ", "ALTER * DROP ", "SELECT pg_catalog.lo_unlink("],
        &["* does not exist", "operator does not exist: *", "operator * does not exist for access method *"],
        || Class::Benign("`--clean` drops what a new database does not have"),
    ),
    of(&["DROP SCHEMA public", "DROP SCHEMA IF EXISTS public", "DROP EXTENSION"], &["cannot drop *"], || {
        Class::Benign("`--clean` drops what other objects still need, and makes it again where it can")
    }),
    // The sandbox's limits, and its end.
    rule(&["could not resize shared memory segment *"], || limit("raise the sandbox's memory limit")),
    rule(&["could not *: No space left on device", "could not extend file \"*\": wrote only *"], || limit(MAKE_ROOM)),
    rule(&["could not *: Too many open files*", "out of file descriptors: *"], || {
        limit("lower engine.jobs, or raise the limit on open files that muster runs with")
    }),
    rule(&["out of shared memory"], || unfit("set `max_locks_per_transaction: 1024` in engine.settings")),
    rule(&["out of memory*", "could not *: Cannot allocate memory"], || limit("raise the sandbox's memory limit")),
    rule(&["could not fork *", "could not create worker process: *"], || {
        limit("raise the sandbox's limit on processes")
    }),
    rule(
        &[
            "a worker process died unexpectedly",
            "could not read from the communication channel: *",
            "could not write to the communication channel: *",
            "worker process failed: *",
        ],
        || Class::WorkerEnded,
    ),
    rule(&["sorry, too many clients already", "connection to server *sorry, too many clients already"], || {
        unfit("lower engine.jobs, or raise `max_connections`")
    }),
    rule(
        &[
            "server closed the connection unexpectedly*",
            "connection to server was lost",
            "could not receive data from server: *",
            "could not send data to server: *",
            "terminating connection *",
            "the database system is *",
            "connection to server on socket *",
            "could not connect to server: *",
            "could not connect to database *",
            "connection to database *",
            "no connection to the server*",
        ],
        || unfit("see the server's last words"),
    ),
    // What this installation lacks.
    rule(
        &[
            "extension \"*\" is not available",
            "could not open extension control file *",
            "extension \"*\" has no installation script *",
        ],
        || unfit("install the extension's package here"),
    ),
    rule(&["could not access file \"*\": No such file or directory", "could not load library *"], || {
        unfit("install the library that the function needs")
    }),
    of(
        &["SECURITY LABEL "],
        &["security label provider \"*\" is not loaded", "no security label providers have been loaded"],
        || unfit("name the provider's library in `shared_preload_libraries` of engine.settings"),
    ),
    rule(&["* loaded via shared_preload_libraries", "* loaded via \"shared_preload_libraries\""], || {
        unfit("name the library in `shared_preload_libraries` of engine.settings")
    }),
    rule(&["unsupported version (*) in file header"], || unfit("restore with the major whose pg_dump made the file")),
    rule(
        &[
            "invalid LC_COLLATE locale name*",
            "invalid LC_CTYPE locale name*",
            "invalid locale name*",
            "could not create locale *",
            "invalid value for parameter \"lc_*",
        ],
        || unfit("make the locale: `localedef`"),
    ),
    rule(&["ICU is not supported in this build"], || unfit("install a PostgreSQL that was built with ICU")),
    rule(
        &[
            "compression method * not supported",
            "this build does not support compression with *",
            "cannot restore from compressed archive *",
        ],
        || unfit("install a PostgreSQL that was built with lz4 and zstd"),
    ),
    rule(&["unsupported XML feature*"], || unfit("install a PostgreSQL that was built with libxml")),
    rule(&["unrecognized configuration parameter *"], || unfit("restore with the major that knows the setting")),
    rule(&["tablespace \"*\" does not exist"], || unfit("capture with `--no-tablespaces`: a sandbox has none")),
    rule(&["access method \"*\" does not exist"], || {
        unfit("install the extension that brings the table access method")
    }),
    rule(&["invalid value for parameter \"default_table_access_method\"*"], || {
        unfit("install the extension that brings the table access method, and preload it in engine.settings")
    }),
    rule(&["collation \"*\" for encoding \"*\" does not exist"], || {
        unfit("make the collation's locale: `localedef`, or install a PostgreSQL with ICU")
    }),
    rule(&["could not open collator for locale *"], || unfit("install the ICU data that the collation needs")),
    rule(&["encoding \"*\" does not match locale \"*\""], || {
        unfit("restore with the locale and encoding of the source")
    }),
    rule(&["unrecognized parameter \"*\""], || {
        unfit("restore with the major that knows the storage parameter, or install its extension")
    }),
    rule(&["could not find function \"*\" in file \"*\""], || {
        unfit("install the version of the library that the function needs")
    }),
    // Where isolation stood in the way.
    rule(
        &[
            "could not connect to *",
            "could not establish connection",
            "could not translate host name *",
            "connection to server at *",
            "could not create replication slot *",
        ],
        || Class::BlockedByIsolation,
    ),
    // The dump's own faults.
    hint(&["role \"", "does not exist"], || {
        dump("the backup's globals.sql lacks the role: capture with a role that may read all roles")
    }),
    hint(&["could not read from input file"], || dump("the dump is cut short or damaged: make a new backup")),
    hint(&["could not uncompress data"], || dump("the dump is damaged: make a new backup")),
    hint(&["does not appear to be a valid archive"], || dump("the file is no archive of pg_dump")),
    hint(&["is not present in table"], || dump("rows that a foreign key needs are missing from the dump")),
    hint(&["violates foreign key constraint"], || dump("rows that a foreign key needs are missing from the dump")),
    hint(&["could not create unique index"], || {
        dump("the source holds rows that its unique index forbids: reindex it there")
    }),
    hint(&["duplicate key value"], || dump("the dump holds rows twice")),
    hint(&["violates check constraint"], || {
        dump("the dump holds rows that the table's own constraint forbids: mend them at the source")
    }),
    hint(&["violates not-null constraint"], || {
        dump("the dump holds rows that the table's own constraint forbids: mend them at the source")
    }),
    hint(&["no partition of relation"], || {
        dump("the dump holds rows that none of its partitions takes: dump with `--load-via-partition-root`")
    }),
    hint(&["large object ", "already exists"], || dump("the dump holds a large object twice")),
    hint(&["must be owner of"], || {
        dump("the dump changes its user as it goes: make it without `--use-set-session-authorization`")
    }),
    hint(&["must be superuser"], || {
        dump("the dump changes its user as it goes: make it without `--use-set-session-authorization`")
    }),
    hint(&["permission denied"], || {
        dump("the dump changes its user as it goes: make it without `--use-set-session-authorization`")
    }),
    hint(&["required extension \"", "is not installed"], || {
        dump("an extension that another one needs was left out of the dump")
    }),
    hint(&["invalid byte sequence for encoding"], || {
        dump(
            "the source holds text that is not in its own encoding: mend it there, or dump with the encoding that it is in",
        )
    }),
    hint(&["has no equivalent in encoding"], || {
        dump("the dump holds characters that its database's encoding does not have: dump with `--create`")
    }),
    hint(&["schema \"", "does not exist"], || dump("the dump was made of a part of the database: dump all of it")),
    hint(&["type \"", "does not exist"], || {
        dump("the dump lacks a type, or the extension that brings it: dump the whole database")
    }),
    hint(&["language \"", "does not exist"], || {
        dump("the dump lacks the extension that brings the language: dump the whole database")
    }),
    hint(&["foreign-data wrapper \"", "does not exist"], || {
        dump("the dump lacks the foreign-data wrapper: dump the whole database")
    }),
    hint(&["server \"", "does not exist"], || dump("the dump lacks the foreign server: dump the whole database")),
    hint_of(&["COPY ", "INSERT INTO "], &["relation \"", "does not exist"], || {
        dump("the dump holds rows without their table, as `--data-only` makes them: dump the schema, too")
    }),
    hint(&["COPY failed for table", "does not exist"], || {
        dump("the dump holds rows without their table, as `--data-only` makes them: dump the schema, too")
    }),
    hint(&["of relation \"", "does not exist"], || {
        dump("rows and table of the dump do not belong together: dump schema and data at once")
    }),
    hint(&["function ", "does not exist"], || {
        dump(
            "the dump lacks a function, or one of its own relies on the search_path: write schemas before names in functions \
              that indexes, constraints and materialized views use",
        )
    }),
    hint(&["relation \"", "does not exist"], || {
        dump(
            "the dump lacks a table, or a function of it relies on the search_path: write schemas before names in functions \
              that indexes, constraints and materialized views use",
        )
    }),
    hint(&["already exists"], || dump("the dump makes an object twice, or was made of several databases")),
    hint(&["syntax error at or near"], || {
        dump("the dump is damaged, or of a newer PostgreSQL: restore with its own major")
    }),
    hint(&["input file appears to be a text format dump"], || dump("the dump is a script and not an archive")),
    hint(&["did not find magic string"], || dump("the dump is damaged: make a new backup")),
    hint(&["corrupt tar header"], || dump("the dump is damaged: make a new backup")),
    hint(&["could not find header for file"], || dump("the dump is cut short or damaged: make a new backup")),
    hint(&["could not open input file"], || dump("a file of the dump's directory is missing: copy all of them")),
];
