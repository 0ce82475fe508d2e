//! What stands beside the relations: the database and its schemas, extensions, other servers, replication, text search, event
//! triggers and large objects.
use super::words::{acl, enabled, made, name, role, sorted};
use super::{Completion, Query};

pub(super) fn all(version: u32) -> Vec<Query> {
    vec![
        schema(),
        database(),
        extension(),
        event_trigger(),
        foreign_wrapper(),
        foreign_server(),
        user_mapping(),
        publication(version),
        published_table(version),
        published_schema(version),
        subscription(version),
        text_search_parser(),
        text_search_template(),
        text_search_dictionary(),
        text_search_configuration(),
        large_object(),
    ]
}

/// `public` is everybody's; its owner counts where somebody changed it, its privileges are those of a system object.
fn schema() -> Query {
    let (owner, acl) = (role("n.nspowner"), acl("n.nspacl", "n", "n.nspowner"));
    let made = made("pg_namespace", "n.oid");
    Query::new(
        "schema",
        &format!(
            "SELECT pg_catalog.quote_ident(n.nspname) AS identity, pg_catalog.jsonb_build_object(
    'owner', CASE WHEN n.oid >= 16384
        OR n.nspowner <> ALL ('{{10,6171}}'::pg_catalog.oid[]) THEN {owner} END,
    'acl', CASE WHEN n.oid >= 16384 THEN {acl} END) AS content
FROM pg_catalog.pg_namespace n WHERE (n.nspname = 'public' OR {made})
  AND NOT pg_catalog.starts_with(n.nspname, 'pg_temp_') AND NOT pg_catalog.starts_with(n.nspname, 'pg_toast')"
        ),
    )
}

/// What a restore with `--create` keeps. The limit of connections is not compared: a drill lifts it to get in.
fn database() -> Query {
    let (owner, acl) = (role("d.datdba"), acl("d.datacl", "d", "d.datdba"));
    let role = role("s.setrole");
    Query::new(
        "database",
        &format!(
            "SELECT pg_catalog.quote_ident(d.datname) AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'encoding', pg_catalog.pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
    'provider', CASE coalesce(r.j ->> 'datlocprovider', 'c') WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
    'locale', coalesce(r.j ->> 'datlocale', r.j ->> 'daticulocale'), 'rules', r.j ->> 'daticurules',
    'template', CASE WHEN d.datistemplate THEN true END,
    'comment', pg_catalog.shobj_description(d.oid, 'pg_database'),
    'settings', (SELECT pg_catalog.jsonb_agg(e.setting ORDER BY pg_catalog.convert_to(e.setting, 'UTF8'))
        FROM (SELECT pg_catalog.concat(CASE WHEN s.setrole <> 0 THEN pg_catalog.concat('for role ', {role}, ': ') END, c.v)
                AS setting
            FROM pg_catalog.pg_db_role_setting s, LATERAL pg_catalog.unnest(s.setconfig) AS c (v)
            WHERE s.setdatabase = d.oid) e)) AS content
FROM pg_catalog.pg_database d, LATERAL (SELECT pg_catalog.to_jsonb(d)) AS r (j)
WHERE d.datname = pg_catalog.current_database()"
        ),
    )
}

/// Whoever restores owns it. The ones of `initdb` are not in a dump.
fn extension() -> Query {
    Query::new(
        "extension",
        "SELECT pg_catalog.quote_ident(e.extname) AS identity,
  pg_catalog.jsonb_build_object('version', e.extversion, 'schema', pg_catalog.quote_ident(n.nspname)) AS content
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.oid >= 16384",
    )
}

fn event_trigger() -> Query {
    let (owner, made) = (role("t.evtowner"), made("pg_event_trigger", "t.oid"));
    let (tags, enabled) = (sorted("t.evttags"), enabled("t.evtenabled"));
    Query::new(
        "event trigger",
        &format!(
            "SELECT pg_catalog.quote_ident(t.evtname) AS identity, pg_catalog.jsonb_build_object('owner', {owner},
    'event', t.evtevent, 'function', t.evtfoid::pg_catalog.regprocedure, 'tags', {tags}, 'enabled', {enabled}) AS content
FROM pg_catalog.pg_event_trigger t WHERE {made}"
        ),
    )
}

fn foreign_wrapper() -> Query {
    let (owner, acl) = (role("w.fdwowner"), acl("w.fdwacl", "F", "w.fdwowner"));
    let (options, made) = (sorted("w.fdwoptions"), made("pg_foreign_data_wrapper", "w.oid"));
    Query::new(
        "foreign data wrapper",
        &format!(
            "SELECT pg_catalog.quote_ident(w.fdwname) AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'handler', CASE WHEN w.fdwhandler <> 0 THEN w.fdwhandler::pg_catalog.regprocedure END,
    'validator', CASE WHEN w.fdwvalidator <> 0 THEN w.fdwvalidator::pg_catalog.regprocedure END, 'options', {options}) AS content
FROM pg_catalog.pg_foreign_data_wrapper w WHERE {made}"
        ),
    )
}

fn foreign_server() -> Query {
    let (owner, acl) = (role("s.srvowner"), acl("s.srvacl", "S", "s.srvowner"));
    let (options, made) = (sorted("s.srvoptions"), made("pg_foreign_server", "s.oid"));
    Query::new(
        "foreign server",
        &format!(
            "SELECT pg_catalog.quote_ident(s.srvname) AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'wrapper', w.fdwname, 'type', s.srvtype, 'version', s.srvversion, 'options', {options}) AS content
FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE {made}"
        ),
    )
}

/// Its options are passwords: never read.
fn user_mapping() -> Query {
    let (role, made) = (role("m.umuser"), made("pg_user_mapping", "m.oid"));
    Query::new(
        "user mapping",
        &format!(
            "SELECT pg_catalog.concat(CASE WHEN m.umuser = 0 THEN 'PUBLIC' ELSE {role} END, ' on ',
    pg_catalog.quote_ident(s.srvname)) AS identity, pg_catalog.jsonb_build_object() AS content
FROM pg_catalog.pg_user_mapping m JOIN pg_catalog.pg_foreign_server s ON s.oid = m.umserver WHERE {made}"
        ),
    )
}

fn publication(version: u32) -> Query {
    let (owner, made) = (role("p.pubowner"), made("pg_publication", "p.oid"));
    let generated = if version >= 180_000 { "CASE WHEN p.pubgencols <> 'n' THEN p.pubgencols END" } else { "NULL" };
    Query::new(
        "publication",
        &format!(
            "SELECT pg_catalog.quote_ident(p.pubname) AS identity, pg_catalog.jsonb_build_object('owner', {owner},
    'allTables', CASE WHEN p.puballtables THEN true END, 'insert', p.pubinsert, 'update', p.pubupdate, 'delete', p.pubdelete,
    'truncate', p.pubtruncate, 'viaRoot', CASE WHEN p.pubviaroot THEN true END, 'generatedColumns', {generated}) AS content
FROM pg_catalog.pg_publication p WHERE {made}"
        ),
    )
}

/// Filters and lists of columns came with 15.
fn published_table(version: u32) -> Query {
    let table = name("n.nspname", "c.relname");
    let more = if version >= 150_000 {
        "'where', pg_catalog.pg_get_expr(r.prqual, r.prrelid),
    'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY pg_catalog.convert_to(a.attname, 'UTF8'))
        FROM pg_catalog.unnest(r.prattrs) AS k (attnum)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = k.attnum)"
    } else {
        "'where', NULL"
    };
    Query::new(
        "relation publication",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(p.pubname), ': ', {table}) AS identity,
  pg_catalog.jsonb_build_object('table', {table}, {more}) AS content
FROM pg_catalog.pg_publication_rel r
JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        ),
    )
}

fn published_schema(version: u32) -> Query {
    let from = "FROM pg_catalog.pg_publication_namespace s
JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid";
    let from = if version >= 150_000 {
        from
    } else {
        "FROM pg_catalog.pg_publication p, pg_catalog.pg_namespace n WHERE false"
    };
    Query::new(
        "publication schema",
        &format!(
            "SELECT pg_catalog.concat(pg_catalog.quote_ident(p.pubname), ': ', pg_catalog.quote_ident(n.nspname)) AS identity,
  pg_catalog.jsonb_build_object() AS content
{from}"
        ),
    )
}

/// Never `subconninfo`. What a restore cannot keep, such as being enabled, is told apart by whoever compares.
fn subscription(version: u32) -> Query {
    let (owner, publications) = (role("s.subowner"), sorted("s.subpublications"));
    let since =
        |major: u32, content: &str| if version >= major * 10_000 { content.to_owned() } else { "NULL".to_owned() };
    let streaming = if version >= 160_000 {
        "CASE s.substream WHEN 't' THEN 'on' WHEN 'p' THEN 'parallel' END"
    } else {
        "CASE WHEN s.substream THEN 'on' END"
    };
    let two_phase = since(15, "CASE WHEN s.subtwophasestate <> 'd' THEN true END");
    let stops = since(15, "CASE WHEN s.subdisableonerr THEN true END");
    let origin = since(16, "CASE WHEN s.suborigin <> 'any' THEN s.suborigin END");
    let password = since(16, "CASE WHEN NOT s.subpasswordrequired THEN false END");
    let as_owner = since(16, "CASE WHEN s.subrunasowner THEN true END");
    let failover = since(17, "CASE WHEN s.subfailover THEN true END");
    Query::new(
        "subscription",
        &format!(
            "SELECT pg_catalog.quote_ident(s.subname) AS identity, pg_catalog.jsonb_build_object('owner', {owner},
    'enabled', s.subenabled, 'slot', s.subslotname, 'publications', {publications}, 'synchronousCommit', s.subsynccommit,
    'binary', CASE WHEN s.subbinary THEN true END, 'streaming', {streaming}, 'twoPhase', {two_phase},
    'disabledOnError', {stops}, 'origin', {origin}, 'passwordRequired', {password}, 'runAsOwner', {as_owner},
    'failover', {failover}) AS content
FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid
WHERE d.datname = pg_catalog.current_database()"
        ),
    )
}

fn text_search_parser() -> Query {
    let (identity, made) = (name("n.nspname", "p.prsname"), made("pg_ts_parser", "p.oid"));
    Query::new(
        "text search parser",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('start', p.prsstart, 'token', p.prstoken,
    'end', p.prsend, 'headline', p.prsheadline, 'types', p.prslextype) AS content
FROM pg_catalog.pg_ts_parser p JOIN pg_catalog.pg_namespace n ON n.oid = p.prsnamespace WHERE {made}"
        ),
    )
}

fn text_search_template() -> Query {
    let (identity, made) = (name("n.nspname", "t.tmplname"), made("pg_ts_template", "t.oid"));
    Query::new(
        "text search template",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('init', t.tmplinit, 'lexize', t.tmpllexize) AS content
FROM pg_catalog.pg_ts_template t JOIN pg_catalog.pg_namespace n ON n.oid = t.tmplnamespace WHERE {made}"
        ),
    )
}

fn text_search_dictionary() -> Query {
    let (identity, made) = (name("n.nspname", "d.dictname"), made("pg_ts_dict", "d.oid"));
    let (owner, template) = (role("d.dictowner"), name("tn.nspname", "t.tmplname"));
    Query::new(
        "text search dictionary",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'template', {template},
    'options', d.dictinitoption) AS content
FROM pg_catalog.pg_ts_dict d JOIN pg_catalog.pg_namespace n ON n.oid = d.dictnamespace
JOIN pg_catalog.pg_ts_template t ON t.oid = d.dicttemplate
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.tmplnamespace WHERE {made}"
        ),
    )
}

/// Token types by number: their names would come from the parser's own function, which may be the backup's.
fn text_search_configuration() -> Query {
    let (identity, made) = (name("n.nspname", "c.cfgname"), made("pg_ts_config", "c.oid"));
    let (owner, parser, dictionary) =
        (role("c.cfgowner"), name("pn.nspname", "p.prsname"), name("dn.nspname", "d.dictname"));
    Query::new(
        "text search configuration",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'parser', {parser},
    'mappings', m.mappings) AS content
FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
JOIN pg_catalog.pg_ts_parser p ON p.oid = c.cfgparser
JOIN pg_catalog.pg_namespace pn ON pn.oid = p.prsnamespace
LEFT JOIN (SELECT m.mapcfg, pg_catalog.jsonb_agg(pg_catalog.concat('token type ', m.maptokentype, ': ', {dictionary})
        ORDER BY m.maptokentype, m.mapseqno) AS mappings
    FROM pg_catalog.pg_ts_config_map m JOIN pg_catalog.pg_ts_dict d ON d.oid = m.mapdict
    JOIN pg_catalog.pg_namespace dn ON dn.oid = d.dictnamespace GROUP BY m.mapcfg) m ON m.mapcfg = c.oid
WHERE {made}"
        ),
    )
}

/// Its bytes are hashed by whoever reads: see [`Completion`]. Numbers may be below 16384.
fn large_object() -> Query {
    let (owner, acl) = (role("m.lomowner"), acl("m.lomacl", "L", "m.lomowner"));
    Query {
        completion: Some(Completion::LargeObject),
        ..Query::new(
            "large object",
            &format!(
                "SELECT pg_catalog.concat(m.oid) AS identity,
  pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl}) AS content
FROM pg_catalog.pg_largeobject_metadata m"
            ),
        )
    }
}
