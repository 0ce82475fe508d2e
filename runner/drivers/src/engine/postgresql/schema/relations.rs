//! Relations, and what belongs to one: `table` in the content names it.
use super::words::{acl, enabled, made, name, relations, role, sorted};
use super::{Completion, Query};

const RELATIONS: &str = "r,p,v,m,f,c";
/// Without the server's own `pg_attver`, which PostgreSQL 15.20 gives every column: no dump holds it, and each restore has
/// another one.
const COLUMN_OPTIONS: &str = "(SELECT pg_catalog.array_agg(o.v) FROM pg_catalog.unnest(a.attoptions) AS o (v)
    WHERE NOT pg_catalog.starts_with(o.v, 'pg_attver='))";

pub(super) fn all() -> Vec<Query> {
    vec![
        relation(),
        column(),
        column_order(),
        constraint(),
        index(),
        statistics(),
        trigger(),
        rule(),
        policy(),
        sequence(),
    ]
}

fn relation() -> Query {
    let (owner, acl) = (role("c.relowner"), acl("c.relacl", "r", "c.relowner"));
    let (options, toast, foreign) = (sorted("c.reloptions"), sorted("t.reloptions"), sorted("f.ftoptions"));
    let (identity, parent) = (name("n.nspname", "c.relname"), name("pn.nspname", "pc.relname"));
    let from = relations(RELATIONS);
    Query::new(
        "relation",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object(
    'kind', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
        WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'composite type' END,
    'owner', {owner}, 'acl', {acl}, 'unlogged', CASE WHEN c.relpersistence = 'u' THEN true END,
    'options', {options}, 'toastOptions', {toast},
    'accessMethod', CASE WHEN am.amname <> 'heap' THEN am.amname END, 'tablespace', s.spcname,
    'rowSecurity', CASE WHEN c.relrowsecurity THEN true END,
    'forceRowSecurity', CASE WHEN c.relforcerowsecurity THEN true END,
    'replicaIdentity', CASE c.relreplident WHEN 'f' THEN 'full' WHEN 'n' THEN 'nothing' WHEN 'i' THEN 'index' END,
    'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
    'parents', p.parents, 'partitionKey', pg_catalog.pg_get_partkeydef(c.oid),
    'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
    'ofType', CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END,
    'server', fs.srvname, 'foreignOptions', {foreign},
    'definition', CASE WHEN c.relkind = ANY ('{{v,m}}'::pg_catalog.\"char\"[]) THEN pg_catalog.pg_get_viewdef(c.oid) END) AS content
FROM {from}
LEFT JOIN pg_catalog.pg_class t ON t.oid = c.reltoastrelid
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_server fs ON fs.oid = f.ftserver
LEFT JOIN (SELECT i.inhrelid, pg_catalog.jsonb_agg({parent} ORDER BY i.inhseqno) AS parents
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class pc ON pc.oid = i.inhparent
    JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace GROUP BY i.inhrelid) p ON p.inhrelid = c.oid"
        ),
    )
}

fn column() -> Query {
    let table = name("n.nspname", "c.relname");
    let (acl, collation) = (acl("a.attacl", "c", "c.relowner"), name("cn.nspname", "co.collname"));
    let (options, foreign, from) = (sorted(COLUMN_OPTIONS), sorted("a.attfdwoptions"), relations(RELATIONS));
    Query::new(
        "relation column",
        &format!(
            "SELECT pg_catalog.concat({table}, '.', pg_catalog.quote_ident(a.attname)) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
    'notNull', CASE WHEN a.attnotnull THEN true END,
    'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
    'generated', CASE a.attgenerated WHEN 's' THEN 'stored' WHEN 'v' THEN 'virtual' END,
    'expression', CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
    'identity', CASE a.attidentity WHEN 'a' THEN 'always' WHEN 'd' THEN 'by default' END,
    'collation', CASE WHEN a.attcollation <> t.typcollation THEN {collation} END,
    'storage', CASE WHEN a.attstorage <> t.typstorage THEN CASE a.attstorage WHEN 'p' THEN 'plain'
        WHEN 'e' THEN 'external' WHEN 'm' THEN 'main' ELSE 'extended' END END,
    'compression', CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END,
    'statisticsTarget', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END,
    'options', {options}, 'foreignOptions', {foreign},
    'acl', CASE WHEN a.attacl IS NOT NULL THEN {acl} END) AS content
FROM {from}
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 1 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace"
        ),
    )
}

/// Apart from the columns: a restore may order those of inheritance children differently.
fn column_order() -> Query {
    let (table, from) = (name("n.nspname", "c.relname"), relations(RELATIONS));
    Query::new(
        "relation column order",
        &format!(
            "SELECT {table} AS identity, pg_catalog.jsonb_build_object('table', {table}, 'columns', a.columns,
  'inherits', CASE WHEN i.inhrelid IS NOT NULL THEN true END) AS content
FROM {from}
JOIN (SELECT a.attrelid, pg_catalog.jsonb_agg(a.attname ORDER BY a.attnum) AS columns FROM pg_catalog.pg_attribute a
    WHERE a.attnum >= 1 AND NOT a.attisdropped GROUP BY a.attrelid) a ON a.attrelid = c.oid
LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND i.inhseqno = 1"
        ),
    )
}

/// Those of domains have no table. Names of what a partition got from its root are the server's choice; NOT NULL is a
/// property of the column, and a constraint since 18 only.
fn constraint() -> Query {
    let (table, made) = (name("n.nspname", "c.relname"), made("pg_constraint", "k.oid"));
    let domain = name("tn.nspname", "t.typname");
    Query::new(
        "relation constraint",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(k.conname), ' on ',
    CASE WHEN k.contypid <> 0 THEN {domain} ELSE {table} END) AS identity,
  pg_catalog.jsonb_build_object('table', CASE WHEN c.oid IS NOT NULL THEN {table} END,
    'domain', CASE WHEN k.contypid <> 0 THEN {domain} END, 'definition', pg_catalog.pg_get_constraintdef(k.oid),
    'validated', k.convalidated, 'deferrable', CASE WHEN k.condeferrable THEN true END,
    'deferred', CASE WHEN k.condeferred THEN true END) AS content
FROM pg_catalog.pg_constraint k
LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_type t ON t.oid = k.contypid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
WHERE k.contype <> ALL ('{{n,t}}'::pg_catalog.\"char\"[]) AND k.conparentid = 0 AND {made}
  AND (c.oid IS NULL OR c.relpersistence <> 't')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.deptype = 'e' AND e.objid = coalesce(c.oid, t.oid)
    AND e.classid = CASE WHEN c.oid IS NULL THEN 'pg_catalog.pg_type'::pg_catalog.regclass
        ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END)"
        ),
    )
}

/// An invalid index is not in a dump.
fn index() -> Query {
    let (table, from) = (name("rn.nspname", "r.relname"), relations("i,I"));
    let (index, parent) = (name("n.nspname", "c.relname"), name("pn.nspname", "pc.relname"));
    let on_table = super::words::no_member("pg_class", "r.oid");
    Query::new(
        "relation index",
        &format!(
            "SELECT {index} AS identity, pg_catalog.jsonb_build_object('table', {table},
    'definition', pg_catalog.pg_get_indexdef(c.oid), 'clustered', CASE WHEN x.indisclustered THEN true END,
    'replicaIdentity', CASE WHEN x.indisreplident THEN true END, 'statisticsTargets', a.targets,
    'parent', CASE WHEN pc.oid IS NOT NULL THEN {parent} END) AS content
FROM {from}
JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid AND x.indisvalid
JOIN pg_catalog.pg_class r ON r.oid = x.indrelid AND r.relkind <> 't' AND {on_table}
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid
LEFT JOIN pg_catalog.pg_class pc ON pc.oid = h.inhparent
LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace
LEFT JOIN (SELECT a.attrelid,
        pg_catalog.jsonb_agg(pg_catalog.concat(a.attnum, ': ', a.attstattarget) ORDER BY a.attnum) AS targets
    FROM pg_catalog.pg_attribute a WHERE a.attstattarget >= 0 AND a.attnum >= 1 GROUP BY a.attrelid) a ON a.attrelid = c.oid"
        ),
    )
}

fn statistics() -> Query {
    let (table, made) = (name("rn.nspname", "r.relname"), made("pg_statistic_ext", "s.oid"));
    let (identity, owner) = (name("n.nspname", "s.stxname"), role("s.stxowner"));
    Query::new(
        "relation statistics",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('table', {table}, 'owner', {owner},
    'definition', pg_catalog.pg_get_statisticsobjdef(s.oid),
    'target', CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget END) AS content
FROM pg_catalog.pg_statistic_ext s
JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
JOIN pg_catalog.pg_class r ON r.oid = s.stxrelid
JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
WHERE {made}"
        ),
    )
}

/// A partition's copy of its root's trigger counts where it is enabled otherwise.
fn trigger() -> Query {
    let (table, from) = (name("n.nspname", "c.relname"), relations("r,p,v,f"));
    let (enabled, made) = (enabled("g.tgenabled"), made("pg_trigger", "g.oid"));
    Query::new(
        "relation trigger",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(g.tgname), ' on ', {table}) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, 'definition', pg_catalog.pg_get_triggerdef(g.oid),
    'enabled', {enabled}) AS content
FROM {from}
JOIN pg_catalog.pg_trigger g ON g.tgrelid = c.oid AND {made}
LEFT JOIN pg_catalog.pg_trigger p ON p.oid = g.tgparentid AND NOT p.tgisinternal
WHERE CASE WHEN g.tgparentid = 0 THEN NOT g.tgisinternal ELSE p.tgenabled <> g.tgenabled END"
        ),
    )
}

fn rule() -> Query {
    let (table, from) = (name("n.nspname", "c.relname"), relations("r,p,v,m,f"));
    let enabled = enabled("w.ev_enabled");
    Query::new(
        "relation rule",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(w.rulename), ' on ', {table}) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, 'definition', pg_catalog.pg_get_ruledef(w.oid),
    'enabled', {enabled}) AS content
FROM {from}
JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid AND w.rulename <> '_RETURN'"
        ),
    )
}

fn policy() -> Query {
    let (table, from) = (name("n.nspname", "c.relname"), relations("r,p"));
    let role = role("r.oid");
    Query::new(
        "relation policy",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(y.polname), ' on ', {table}) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, 'permissive', y.polpermissive,
    'command', CASE y.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update'
        WHEN 'd' THEN 'delete' ELSE 'all' END,
    'roles', (SELECT pg_catalog.jsonb_agg(s.name ORDER BY pg_catalog.convert_to(s.name, 'UTF8'))
        FROM (SELECT CASE WHEN r.oid = 0 THEN 'PUBLIC' ELSE {role} END AS name
            FROM pg_catalog.unnest(y.polroles) AS r (oid)) s),
    'using', pg_catalog.pg_get_expr(y.polqual, y.polrelid),
    'check', pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid)) AS content
FROM {from}
JOIN pg_catalog.pg_policy y ON y.polrelid = c.oid"
        ),
    )
}

/// Its state is read from the sequence itself: see [`Completion`].
fn sequence() -> Query {
    let (identity, from) = (name("n.nspname", "c.relname"), relations("S"));
    let (owner, acl) = (role("c.relowner"), acl("c.relacl", "s", "c.relowner"));
    let table = name("tn.nspname", "t.relname");
    let column = format!("pg_catalog.concat({table}, '.', pg_catalog.quote_ident(a.attname))");
    // An unlogged one cannot be read on a standby.
    let readable = "NOT (c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery())";
    Query {
        completion: Some(Completion::Sequence),
        ..Query::new(
            "sequence",
            &format!(
                "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'table', CASE WHEN t.oid IS NOT NULL THEN {table} END,
    'unlogged', CASE WHEN c.relpersistence = 'u' THEN true END, 'type', pg_catalog.format_type(q.seqtypid, NULL),
    'start', q.seqstart, 'increment', q.seqincrement, 'minimum', q.seqmin, 'maximum', q.seqmax, 'cache', q.seqcache,
    'cycle', CASE WHEN q.seqcycle THEN true END, 'readable', CASE WHEN {readable} THEN NULL ELSE false END,
    'ownedBy', CASE WHEN d.deptype = 'a' THEN {column} END,
    'identityOf', CASE WHEN d.deptype = 'i' THEN {column} END) AS content
FROM {from}
JOIN pg_catalog.pg_sequence q ON q.seqrelid = c.oid
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid >= 1
  AND d.deptype = ANY ('{{a,i}}'::pg_catalog.\"char\"[])
LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
            ),
        )
    }
}
