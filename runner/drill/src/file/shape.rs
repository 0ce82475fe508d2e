//! The form of a drill file as one table: the parser, its error messages and the JSON Schema all read it, so that a key is
//! known to all of them or to none.
use std::time::Duration;

use super::rule::{self, TextRule};

/// A map with known keys.
pub(super) struct Shape {
    pub(super) keys: &'static [Key],
    pub(super) choice: Choice,
}

/// How many of a shape's keys may stand together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Any,
    AtMostOne,
    ExactlyOne,
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) need: Need,
    pub(super) about: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    Optional,
    /// May be left out, and stands in examples.
    Usual,
    /// The name is taken, but this version refuses it: a setting that is ignored would be worse than one that is missing.
    NotYet,
}

pub(super) enum Form {
    Constant(&'static str),
    OneOf(&'static [&'static str]),
    Text(&'static TextRule),
    Duration {
        min: Duration,
        max: Duration,
    },
    /// Bytes.
    Size {
        min: u64,
        max: u64,
    },
    Whole {
        min: u64,
        max: u64,
    },
    /// Text, a number, true or false: what a server setting may be.
    Scalar(&'static TextRule),
    Object(&'static Shape),
    List {
        item: &'static Form,
        if_empty: Option<IfEmpty>,
    },
    /// Names of the user's own choosing.
    Map {
        key: &'static TextRule,
        value: &'static Form,
    },
    /// A map whose meaning is somebody else's.
    Free,
}

pub(super) struct IfEmpty {
    pub(super) message: &'static str,
    pub(super) hint: &'static str,
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const DAY: Duration = Duration::from_hours(24);
pub(super) const WEEK: Duration = Duration::from_hours(7 * 24);
pub(super) const DECADE: Duration = Duration::from_hours(3_653 * 24);
pub(super) const MIB: u64 = 1 << 20;
/// What a signed 64-bit number of bytes can say.
pub(super) const LARGEST: u64 = i64::MAX.unsigned_abs();

pub(super) static DRILL: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("apiVersion", Form::Constant("muster.dev/v1"), "The version of this format."),
        required("kind", Form::Constant("Drill"), "What the file declares."),
        required("metadata", Form::Object(&METADATA), "What the drill is called."),
        required("spec", Form::Object(&SPEC), "What the drill does."),
    ],
};

static METADATA: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("name", Form::Text(&rule::DRILL_NAME), "The drill's name, unique on its machine."),
        optional(
            "labels",
            Form::Map { key: &rule::LABEL_NAME, value: &Form::Text(&rule::LABEL_VALUE) },
            "Words of your own that stand in every result, such as a team.",
        ),
    ],
};

static SPEC: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("schedule", Form::Object(&SCHEDULE), "When the daemon runs the drill. Without it: only when told to."),
        optional(
            "objectives",
            Form::Object(&OBJECTIVES),
            "What the restore is measured against. Without it: only measured.",
        ),
        required("source", Form::Object(&SOURCE), "The backup under test and who is trusted to have signed it."),
        optional("engine", Form::Object(&ENGINE), "How the backup is restored."),
        optional("isolation", Form::Object(&ISOLATION), "Where the backup is restored. Default: on this machine."),
        optional("credentials", Form::Object(&CREDENTIALS), "How the checks log in. Default: embedded."),
        optional(
            "checks",
            Form::List {
                item: &Form::Object(&CHECK),
                if_empty: Some(IfEmpty {
                    message: "`checks` is empty: nothing would be proven about what came back",
                    hint: "leave `checks` out for the default checks",
                }),
            },
            "What is looked at in the restored databases. Default: schema, rows and content, as far as the backup has a baseline.",
        ),
        optional("deadlines", Form::Object(&DEADLINES), "How long each phase may take."),
        optional(
            "selfTest",
            Form::Object(&SELF_TEST),
            "A schedule on which the drill must catch a deliberately damaged copy of the backup.",
        ),
    ],
};

static SCHEDULE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required(
            "cron",
            Form::Text(&rule::CRON),
            "Five cron fields, six with seconds first, or a word such as `@daily`.",
        ),
        optional("timezone", Form::Text(&rule::TIME_ZONE), "An IANA time zone. Default: UTC."),
        optional(
            "jitter",
            duration(Duration::ZERO, DAY),
            "A random delay of at most this, so that drills do not start at once.",
        ),
        optional(
            "startDeadline",
            duration(SECOND, WEEK),
            "How late a missed run may still start. Default: one interval.",
        ),
        optional("missed", Form::OneOf(&["skip", "run-once"]), "What happens to a run that was missed. Default: skip."),
        optional(
            "blackout",
            Form::List { item: &Form::Object(&BLACKOUT), if_empty: None },
            "Stretches of time in which no run starts.",
        ),
    ],
};

static BLACKOUT: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("cron", Form::Text(&rule::CRON), "When the blackout begins, in the schedule's time zone."),
        required("duration", duration(SECOND, Duration::from_hours(366 * 24)), "How long it lasts."),
    ],
};

static OBJECTIVES: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("recoveryTime", duration(SECOND, DECADE), "Time until the restored database serves."),
        optional(
            "recoveryPoint",
            duration(SECOND, DECADE),
            "Data loss tolerated: how old the backup's snapshot may be.",
        ),
    ],
};

static SOURCE: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        usual(
            "manifest",
            Form::Text(&rule::MANIFEST_PATH),
            "Path of the backup's manifest.json, relative to the drill file.",
        ),
        optional(
            "dump",
            Form::Text(&rule::PATH),
            "In the manifest's place: a dump that muster did not make, a file or a directory of pg_dump, relative to the drill file.",
        ),
        optional(
            "sha256",
            Form::Text(&rule::SHA256),
            "Digest of the dump. Of a directory: of what `LC_ALL=C sha256sum *` prints in it.",
        ),
        optional(
            "signature",
            Form::Text(&rule::PATH),
            "A minisign signature of the dump, by one of the trusted keys. Default with trustedKeys: the dump's name and `.minisig`. \
             Of a directory: of what `LC_ALL=C sha256sum *` prints in it.",
        ),
        optional(
            "timezone",
            Form::Text(&rule::TIME_ZONE),
            "The time zone of the machine that made the dump, which its header does not record. Default: UTC, and said in every result.",
        ),
        usual(
            "trustedKeys",
            trusted_keys("name the public key of whoever signs, such as { file: keys/backup.pub }"),
            "Public keys; the manifest, or the dump, must be signed by one of them.",
        ),
        optional(
            "fallbacks",
            Form::List {
                item: &Form::Object(&FALLBACK),
                if_empty: Some(IfEmpty {
                    message: "`fallbacks` is empty",
                    hint: "name another place of the backup, or remove it",
                }),
            },
            "Other places of the same backup, tried in order when the first is gone or cannot be reached. A backup that is there and \
             is refused is never replaced by another.",
        ),
        optional(
            "exercise",
            Form::OneOf(&["first", "all"]),
            "`first` (default) drills the first source that can be reached; `all` drills the primary, then each fallback, as runs of \
             their own.",
        ),
    ],
};

/// `hint` is for a list that is empty.
pub(super) const fn trusted_keys(hint: &'static str) -> Form {
    let message = "`trustedKeys` is empty: without a key no backup can be told from a forged one";
    Form::List { item: &ONE_KEY, if_empty: Some(IfEmpty { message, hint }) }
}

static ONE_KEY: Form = Form::Object(&TRUSTED_KEY);

static TRUSTED_KEY: Shape = Shape {
    choice: Choice::ExactlyOne,
    keys: &[
        optional("file", Form::Text(&rule::PATH), "A minisign public key file, relative to the drill file."),
        optional("inline", Form::Text(&rule::PUBLIC_KEY), "The base64 line of a minisign public key."),
        not_yet("secretRef", Form::Free, "A key in a secret store."),
    ],
};

static FALLBACK: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("manifest", Form::Text(&rule::MANIFEST_PATH), "Path of the copy's manifest.json."),
        optional(
            "trustedKeys",
            trusted_keys("leave it out for the keys of the primary"),
            "Public keys of this place. Default: those of the primary.",
        ),
    ],
};

static ENGINE: Shape =
    Shape { choice: Choice::AtMostOne, keys: &[optional("postgresql", Form::Object(&POSTGRESQL), "PostgreSQL.")] };

static POSTGRESQL: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("major", Form::Whole { min: 9, max: 99 }, "Major version to restore into. Default: the backup's own."),
        optional("jobs", Form::Whole { min: 1, max: 256 }, "Parallel restore jobs. Default: 2."),
        optional(
            "fidelity",
            Form::OneOf(&["production", "fast"]),
            "`production` (default) keeps the server's durability, so that the recovery time means something; `fast` turns it off and is \
             marked as such in every result.",
        ),
        optional(
            "settings",
            Form::Map { key: &rule::SETTING_NAME, value: &Form::Scalar(&rule::SETTING_VALUE) },
            "Server settings of your own, such as shared_buffers.",
        ),
    ],
};

static ISOLATION: Shape = Shape {
    choice: Choice::AtMostOne,
    keys: &[
        optional("local", Form::Object(&LOCAL), "A sandbox of namespaces on this machine."),
        optional("kubernetes", Form::Object(&super::kubernetes::KUBERNETES), "A namespace of its own in a cluster."),
    ],
};

static LOCAL: Shape =
    Shape { choice: Choice::Any, keys: &[optional("limits", Form::Object(&LIMITS), "What the sandbox may use.")] };

static LIMITS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "memory",
            Form::Size { min: 64 * MIB, max: LARGEST },
            "Memory of all its processes. Default: no limit.",
        ),
        optional(
            "disk",
            Form::Size { min: 64 * MIB, max: LARGEST },
            "Disk for the restored databases. Default: no limit.",
        ),
        optional("processes", Form::Whole { min: 32, max: 65_536 }, "Processes at one time. Default: 200."),
        optional(
            "enforcement",
            Form::OneOf(&["required", "best-effort"]),
            "`required` refuses to run where no cgroup holds these limits; `best-effort` warns. Default: best-effort for `muster run`, \
             required for the daemon.",
        ),
    ],
};

static CREDENTIALS: Shape = Shape {
    choice: Choice::AtMostOne,
    keys: &[
        optional("embedded", Form::Object(&EMBEDDED), "A role made for this run alone over the admin connection."),
        optional("vault", Form::Object(&super::vault::VAULT), "Leases of a Vault or OpenBao."),
    ],
};

static EMBEDDED: Shape = Shape {
    choice: Choice::Any,
    keys: &[optional(
        "ttl",
        duration(Duration::from_mins(1), DAY),
        "How long a lease lives unless it is renewed, from 1m to 24h. Default: 15m.",
    )],
};

static CHECK: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("name", Form::Text(&rule::CHECK_NAME), "The check's name, unique within the drill."),
        required("plugin", Form::Text(&rule::PLUGIN), "`builtin:NAME`, or PATH@sha256:DIGEST of a component file."),
        optional("grants", Form::Object(&GRANTS), "What a plugin of your own may reach. Default: nothing."),
        optional("limits", Form::Object(&CHECK_LIMITS), "What the plugin may use."),
        optional("options", Form::Free, "Options of the plugin, handed over as they are."),
    ],
};

static GRANTS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("sql", Form::Object(&GRANT), "Read-only queries."),
        optional("baseline", Form::Object(&GRANT), "What the source held when the backup was made."),
        optional("catalog", Form::Object(&GRANT), "The schema, as objects."),
        optional("digest", Form::Object(&GRANT), "Digests of table contents, computed outside the plugin."),
    ],
};

/// Empty on purpose: a map, so that a grant can be narrowed one day.
static GRANT: Shape = Shape { choice: Choice::Any, keys: &[] };

static CHECK_LIMITS: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("memory", Form::Size { min: MIB, max: 4096 * MIB }, "Linear memory. Default: 64MiB."),
        optional(
            "cpuTime",
            duration(Duration::from_millis(10), DAY),
            "Time in the plugin, without SQL waits. Default: 10s; for a built-in check, what `validate` allows.",
        ),
        optional(
            "wallTime",
            duration(Duration::from_millis(10), DAY),
            "Time from start to end. Default: 5m; for a built-in check, what `validate` allows.",
        ),
        optional("logBytes", Form::Size { min: 0, max: 16 * MIB }, "What it may log. Default: 64KiB."),
        optional("findings", Form::Whole { min: 1, max: 100_000 }, "Findings it may report. Default: 1000."),
        optional("metrics", Form::Whole { min: 0, max: 10_000 }, "Metric series it may report. Default: 100."),
        optional("handles", Form::Whole { min: 1, max: 1_024 }, "Result sets and scans open at one time. Default: 64."),
    ],
};

static DEADLINES: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional(
            "preflight",
            duration(SECOND, WEEK),
            "Comparing what the backup needs with what is there. Default: 1m.",
        ),
        optional("verify", duration(SECOND, WEEK), "Signature and digests. Default: 30m."),
        optional("sandbox", duration(SECOND, WEEK), "Making the sandbox and proving its isolation. Default: 2m."),
        optional("restore", duration(SECOND, WEEK), "Restoring until the database serves. Default: 4h."),
        optional("lease", duration(SECOND, WEEK), "Making and proving credentials. Default: 1m."),
        optional("validate", duration(SECOND, WEEK), "All checks together. Default: 1h."),
        optional("teardown", duration(SECOND, WEEK), "Destroying everything, on every path. Default: 5m."),
    ],
};

static SELF_TEST: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        required("schedule", Form::Object(&SCHEDULE), "When each damage is tried that has no schedule of its own."),
        optional(
            "damages",
            Form::Object(&DAMAGES),
            "What is damaged, in a copy. Default: all that the drill's checks can notice.",
        ),
    ],
};

static DAMAGES: Shape = Shape {
    choice: Choice::Any,
    keys: &[
        optional("byte", Form::Object(&DAMAGE), "One byte of the dump."),
        optional("signature", Form::Object(&DAMAGE), "The manifest's signature."),
        optional("truncated", Form::Object(&DAMAGE), "The end of the dump is missing."),
        optional("baseline-rows", Form::Object(&DAMAGE), "The baseline claims one row more; row-count must see it."),
        optional("baseline-digest", Form::Object(&DAMAGE), "The baseline claims another digest; checksum must see it."),
        optional("baseline-column", Form::Object(&DAMAGE), "The baseline lacks a column; schema must see it."),
    ],
};

static DAMAGE: Shape = Shape {
    choice: Choice::Any,
    keys: &[optional("schedule", Form::Object(&SCHEDULE), "When this damage is tried. Default: with the others.")],
};

pub(super) const fn required(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, need: Need::Required, about }
}

pub(super) const fn usual(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, need: Need::Usual, about }
}

pub(super) const fn optional(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, need: Need::Optional, about }
}

pub(super) const fn not_yet(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, form, need: Need::NotYet, about }
}

pub(super) const fn duration(min: Duration, max: Duration) -> Form {
    Form::Duration { min, max }
}
