//! Functions, and what is made of them: types, operators, casts and their kin. What is a function's or a type's name is
//! written by PostgreSQL's own output functions.
use super::Query;
use super::words::{acl, made, made_itself, name, role};

pub(super) fn all() -> Vec<Query> {
    vec![
        routine("function", "f,w"),
        routine("procedure", "p"),
        intruder(),
        aggregate(),
        data_type(),
        operator(),
        operator_class(),
        operator_family(),
        cast(),
        conversion(),
        collation(),
        access_method(),
        language(),
        transform(),
    ]
}

const SIGNATURE: &str = "pg_catalog.concat(p.oid::pg_catalog.regprocedure)";

/// Functions of people's own, in people's own schemas.
fn routines(kinds: &str) -> String {
    format!(
        "pg_catalog.pg_proc p WHERE p.prokind = ANY ('{{{kinds}}}'::pg_catalog.\"char\"[])
  AND p.pronamespace <> 'pg_catalog'::pg_catalog.regnamespace
  AND p.pronamespace <> pg_catalog.pg_my_temp_schema() AND {}",
        made_itself("pg_proc", "p.oid")
    )
}

fn routine(kind: &'static str, kinds: &str) -> Query {
    let (owner, acl, from) = (role("p.proowner"), acl("p.proacl", "f", "p.proowner"), routines(kinds));
    Query::new(
        kind,
        &format!(
            "SELECT {SIGNATURE} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'definition', pg_catalog.pg_get_functiondef(p.oid)) AS content
FROM {from}"
        ),
    )
}

/// It would win over PostgreSQL's own by its argument types, and no dump carries it.
fn intruder() -> Query {
    let made = made("pg_proc", "p.oid");
    Query::new(
        "function in pg_catalog",
        &format!(
            "SELECT {SIGNATURE} AS identity, pg_catalog.jsonb_build_object('language', l.lanname, 'source', p.prosrc) AS content
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND {made}"
        ),
    )
}

fn aggregate() -> Query {
    let (owner, acl, from) = (role("p.proowner"), acl("p.proacl", "f", "p.proowner"), routines("a"));
    let from = from.replace(
        "pg_catalog.pg_proc p WHERE",
        "pg_catalog.pg_proc p JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid WHERE",
    );
    let function = |column: &str| {
        format!("CASE WHEN a.{column} <> 0::pg_catalog.oid THEN a.{column}::pg_catalog.regprocedure END")
    };
    let (step, end, combine) = (function("aggtransfn"), function("aggfinalfn"), function("aggcombinefn"));
    let (serial, deserial) = (function("aggserialfn"), function("aggdeserialfn"));
    let (moving, inverse, moving_end) = (function("aggmtransfn"), function("aggminvtransfn"), function("aggmfinalfn"));
    Query::new(
        "aggregate",
        &format!(
            "SELECT {SIGNATURE} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'arguments', pg_catalog.pg_get_function_arguments(p.oid), 'result', pg_catalog.pg_get_function_result(p.oid),
    'ordered', CASE a.aggkind WHEN 'o' THEN 'ordered set' WHEN 'h' THEN 'hypothetical set' END,
    'directArguments', a.aggnumdirectargs, 'parallel', p.proparallel,
    'transition', {step}, 'final', {end}, 'combine', {combine}, 'serialize', {serial}, 'deserialize', {deserial},
    'movingTransition', {moving}, 'movingInverse', {inverse}, 'movingFinal', {moving_end},
    'finalExtra', CASE WHEN a.aggfinalextra THEN true END, 'movingFinalExtra', CASE WHEN a.aggmfinalextra THEN true END,
    'finalModify', a.aggfinalmodify, 'movingFinalModify', a.aggmfinalmodify,
    'sortOperator', CASE WHEN a.aggsortop <> 0 THEN a.aggsortop::pg_catalog.regoperator END,
    'state', pg_catalog.format_type(a.aggtranstype, NULL), 'stateSpace', a.aggtransspace, 'initial', a.agginitval,
    'movingState', CASE WHEN a.aggmtranstype <> 0 THEN pg_catalog.format_type(a.aggmtranstype, NULL) END,
    'movingStateSpace', a.aggmtransspace, 'movingInitial', a.aggminitval) AS content
FROM {from}"
        ),
    )
}

/// Enums, domains, ranges, base and shell types. Row types are relations; arrays and multiranges come with their types.
fn data_type() -> Query {
    let (identity, owner, acl) =
        (name("n.nspname", "t.typname"), role("t.typowner"), acl("t.typacl", "T", "t.typowner"));
    let (collation, made) = (name("cn.nspname", "co.collname"), made("pg_type", "t.oid"));
    let range_collation = name("rcn.nspname", "rco.collname");
    let (class, multirange) = (name("ocn.nspname", "oc.opcname"), name("mn.nspname", "m.typname"));
    let base = |content: &str| format!("CASE WHEN t.typtype = 'b' THEN {content} END");
    let function = |column: &str| base(&format!("CASE WHEN t.{column} <> 0::pg_catalog.oid THEN t.{column} END"));
    let (input, output, receive, send) =
        (function("typinput"), function("typoutput"), function("typreceive"), function("typsend"));
    let (modin, modout, analyze, subscript) =
        (function("typmodin"), function("typmodout"), function("typanalyze"), function("typsubscript"));
    let (length, by_value, alignment) = (base("t.typlen"), base("t.typbyval"), base("t.typalign"));
    let (storage, category, preferred) = (base("t.typstorage"), base("t.typcategory"), base("t.typispreferred"));
    let (delimiter, collatable) = (base("t.typdelim"), base("t.typcollation <> 0"));
    let element = base("CASE WHEN t.typelem <> 0 THEN pg_catalog.format_type(t.typelem, NULL) END");
    Query::new(
        "type",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'kind', CASE WHEN NOT t.typisdefined THEN 'shell type' WHEN t.typtype = 'e' THEN 'enum' WHEN t.typtype = 'd' THEN 'domain'
        WHEN t.typtype = 'r' THEN 'range' ELSE 'base type' END,
    'labels', e.labels,
    'base', CASE WHEN t.typtype = 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod) END,
    'notNull', CASE WHEN t.typnotnull THEN true END, 'default', t.typdefault,
    'collation', CASE WHEN t.typtype = 'd' AND t.typcollation <> b.typcollation THEN {collation} END,
    'subtype', CASE WHEN r.rngtypid IS NOT NULL THEN pg_catalog.format_type(r.rngsubtype, NULL) END,
    'operatorClass', CASE WHEN r.rngtypid IS NOT NULL THEN {class} END,
    'rangeCollation', CASE WHEN rco.oid IS NOT NULL THEN {range_collation} END,
    'canonical', CASE WHEN r.rngcanonical <> 0::pg_catalog.oid THEN r.rngcanonical END,
    'difference', CASE WHEN r.rngsubdiff <> 0::pg_catalog.oid THEN r.rngsubdiff END,
    'multirange', CASE WHEN m.oid IS NOT NULL THEN {multirange} END,
    'input', {input}, 'output', {output}, 'receive', {receive}, 'send', {send}, 'modifierIn', {modin},
    'modifierOut', {modout}, 'analyze', {analyze}, 'subscript', {subscript}, 'length', {length},
    'byValue', {by_value}, 'alignment', {alignment}, 'storage', {storage}, 'category', {category},
    'preferred', {preferred}, 'delimiter', {delimiter}, 'collatable', {collatable}, 'element', {element}) AS content
FROM pg_catalog.pg_type t
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype
LEFT JOIN pg_catalog.pg_collation co ON co.oid = t.typcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
LEFT JOIN pg_catalog.pg_collation rco ON rco.oid = r.rngcollation AND rco.collname <> 'default'
LEFT JOIN pg_catalog.pg_namespace rcn ON rcn.oid = rco.collnamespace
LEFT JOIN pg_catalog.pg_opclass oc ON oc.oid = r.rngsubopc
LEFT JOIN pg_catalog.pg_namespace ocn ON ocn.oid = oc.opcnamespace
LEFT JOIN pg_catalog.pg_type m ON m.oid = r.rngmultitypid
LEFT JOIN pg_catalog.pg_namespace mn ON mn.oid = m.typnamespace
LEFT JOIN (SELECT e.enumtypid, pg_catalog.jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) AS labels
    FROM pg_catalog.pg_enum e GROUP BY e.enumtypid) e ON e.enumtypid = t.oid
WHERE (t.typtype = ANY ('{{b,d,e,r}}'::pg_catalog.\"char\"[]) OR NOT t.typisdefined)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_type x WHERE x.typarray = t.oid)
  AND n.nspname <> 'pg_toast' AND {made}"
        ),
    )
}

/// One without a function is a shell: a dump makes it by the way, or not at all.
fn operator() -> Query {
    let (owner, made) = (role("o.oprowner"), made("pg_operator", "o.oid"));
    Query::new(
        "operator",
        &format!(
            "SELECT pg_catalog.concat(o.oid::pg_catalog.regoperator) AS identity, pg_catalog.jsonb_build_object('owner', {owner},
    'function', o.oprcode::pg_catalog.regprocedure,
    'commutator', CASE WHEN o.oprcom <> 0 THEN o.oprcom::pg_catalog.regoperator END,
    'negator', CASE WHEN o.oprnegate <> 0 THEN o.oprnegate::pg_catalog.regoperator END,
    'restrict', CASE WHEN o.oprrest <> 0::pg_catalog.oid THEN o.oprrest END,
    'join', CASE WHEN o.oprjoin <> 0::pg_catalog.oid THEN o.oprjoin END,
    'merges', CASE WHEN o.oprcanmerge THEN true END, 'hashes', CASE WHEN o.oprcanhash THEN true END) AS content
FROM pg_catalog.pg_operator o WHERE o.oprcode <> 0::pg_catalog.oid AND {made}"
        ),
    )
}

fn operator_class() -> Query {
    let (identity, family) = (name("n.nspname", "c.opcname"), name("fn.nspname", "f.opfname"));
    let (owner, made) = (role("c.opcowner"), made("pg_opclass", "c.oid"));
    Query::new(
        "operator class",
        &format!(
            "SELECT pg_catalog.concat({identity}, ' using ', pg_catalog.quote_ident(am.amname)) AS identity,
  pg_catalog.jsonb_build_object('owner', {owner}, 'family', {family}, 'type', pg_catalog.format_type(c.opcintype, NULL),
    'default', c.opcdefault, 'storage', CASE WHEN c.opckeytype <> 0 THEN pg_catalog.format_type(c.opckeytype, NULL) END) AS content
FROM pg_catalog.pg_opclass c
JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace
JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod
JOIN pg_catalog.pg_opfamily f ON f.oid = c.opcfamily
JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace
WHERE {made}"
        ),
    )
}

/// Operators and functions of its classes stand here, because they are the family's in the catalog too.
fn operator_family() -> Query {
    let identity = name("n.nspname", "f.opfname");
    let (owner, made, sort) = (role("f.opfowner"), made("pg_opfamily", "f.oid"), name("sn.nspname", "sf.opfname"));
    Query::new(
        "operator family",
        &format!(
            "SELECT pg_catalog.concat({identity}, ' using ', pg_catalog.quote_ident(am.amname)) AS identity,
  pg_catalog.jsonb_build_object('owner', {owner}, 'operators', o.members, 'functions', p.members) AS content
FROM pg_catalog.pg_opfamily f
JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
JOIN pg_catalog.pg_am am ON am.oid = f.opfmethod
LEFT JOIN (SELECT e.amopfamily, pg_catalog.jsonb_agg(e.member ORDER BY pg_catalog.convert_to(e.member, 'UTF8')) AS members
    FROM (SELECT o.amopfamily, pg_catalog.concat(o.amopstrategy, ' ', o.amopopr::pg_catalog.regoperator,
        CASE WHEN o.amoppurpose = 'o' THEN pg_catalog.concat(' for order by ', {sort}) END) AS member
        FROM pg_catalog.pg_amop o
        LEFT JOIN pg_catalog.pg_opfamily sf ON sf.oid = o.amopsortfamily
        LEFT JOIN pg_catalog.pg_namespace sn ON sn.oid = sf.opfnamespace) e GROUP BY e.amopfamily) o ON o.amopfamily = f.oid
LEFT JOIN (SELECT e.amprocfamily, pg_catalog.jsonb_agg(e.member ORDER BY pg_catalog.convert_to(e.member, 'UTF8')) AS members
    FROM (SELECT p.amprocfamily, pg_catalog.concat(p.amprocnum, ' ', pg_catalog.format_type(p.amproclefttype, NULL), ', ',
        pg_catalog.format_type(p.amprocrighttype, NULL), ' ', p.amproc::pg_catalog.regprocedure) AS member
        FROM pg_catalog.pg_amproc p) e GROUP BY e.amprocfamily) p ON p.amprocfamily = f.oid
WHERE {made}"
        ),
    )
}

fn cast() -> Query {
    let made = made_itself("pg_cast", "c.oid");
    Query::new(
        "cast",
        &format!(
            "SELECT pg_catalog.concat('(', pg_catalog.format_type(c.castsource, NULL), ' AS ',
    pg_catalog.format_type(c.casttarget, NULL), ')') AS identity,
  pg_catalog.jsonb_build_object('function', CASE WHEN c.castfunc <> 0 THEN c.castfunc::pg_catalog.regprocedure END,
    'context', CASE c.castcontext WHEN 'i' THEN 'implicit' WHEN 'a' THEN 'assignment' ELSE 'explicit' END,
    'method', CASE c.castmethod WHEN 'f' THEN 'function' WHEN 'i' THEN 'in and out' ELSE 'binary' END) AS content
FROM pg_catalog.pg_cast c WHERE {made}"
        ),
    )
}

fn conversion() -> Query {
    let (identity, owner, made) = (name("n.nspname", "c.conname"), role("c.conowner"), made("pg_conversion", "c.oid"));
    Query::new(
        "conversion",
        &format!(
            "SELECT {identity} AS identity, pg_catalog.jsonb_build_object('owner', {owner},
    'from', pg_catalog.pg_encoding_to_char(c.conforencoding), 'to', pg_catalog.pg_encoding_to_char(c.contoencoding),
    'function', c.conproc, 'default', CASE WHEN c.condefault THEN true END) AS content
FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace WHERE {made}"
        ),
    )
}

/// The locale of ICU stood in `collcollate` until 14, in `colliculocale` until 16, and in `colllocale` since.
fn collation() -> Query {
    let (identity, owner, made) = (name("n.nspname", "c.collname"), role("c.collowner"), made("pg_collation", "c.oid"));
    Query::new(
        "collation",
        &format!(
            "SELECT pg_catalog.concat({identity}, CASE WHEN c.collencoding >= 0 THEN
    pg_catalog.concat(' for ', pg_catalog.pg_encoding_to_char(c.collencoding)) END) AS identity,
  pg_catalog.jsonb_build_object('owner', {owner}, 'deterministic', c.collisdeterministic,
    'provider', CASE c.collprovider WHEN 'i' THEN 'icu' WHEN 'c' THEN 'libc' WHEN 'b' THEN 'builtin' ELSE 'default' END,
    'locale', coalesce(r.j ->> 'colllocale', r.j ->> 'colliculocale', CASE WHEN c.collprovider = 'i' THEN r.j ->> 'collcollate' END),
    'collate', CASE WHEN c.collprovider <> 'i' THEN r.j ->> 'collcollate' END,
    'ctype', CASE WHEN c.collprovider <> 'i' THEN r.j ->> 'collctype' END, 'rules', r.j ->> 'collicurules') AS content
FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace,
LATERAL (SELECT pg_catalog.to_jsonb(c)) AS r (j) WHERE {made}"
        ),
    )
}

fn access_method() -> Query {
    let made = made("pg_am", "m.oid");
    Query::new(
        "access method",
        &format!(
            "SELECT pg_catalog.quote_ident(m.amname) AS identity, pg_catalog.jsonb_build_object('handler', m.amhandler,
    'type', CASE m.amtype WHEN 't' THEN 'table' ELSE 'index' END) AS content
FROM pg_catalog.pg_am m WHERE {made}"
        ),
    )
}

fn language() -> Query {
    let (owner, acl, made) = (role("l.lanowner"), acl("l.lanacl", "l", "l.lanowner"), made("pg_language", "l.oid"));
    let function = |column: &str| format!("CASE WHEN l.{column} <> 0 THEN l.{column}::pg_catalog.regprocedure END");
    let (handler, inline, validator) = (function("lanplcallfoid"), function("laninline"), function("lanvalidator"));
    Query::new(
        "language",
        &format!(
            "SELECT pg_catalog.quote_ident(l.lanname) AS identity, pg_catalog.jsonb_build_object('owner', {owner}, 'acl', {acl},
    'trusted', l.lanpltrusted, 'handler', {handler}, 'inline', {inline}, 'validator', {validator}) AS content
FROM pg_catalog.pg_language l WHERE {made}"
        ),
    )
}

fn transform() -> Query {
    let made = made("pg_transform", "t.oid");
    let function = |column: &str| {
        format!("CASE WHEN t.{column} <> 0::pg_catalog.oid THEN t.{column}::pg_catalog.regprocedure END")
    };
    let (from, to) = (function("trffromsql"), function("trftosql"));
    Query::new(
        "transform",
        &format!(
            "SELECT pg_catalog.concat('for ', pg_catalog.format_type(t.trftype, NULL), ' language ',
    pg_catalog.quote_ident(l.lanname)) AS identity, pg_catalog.jsonb_build_object('from', {from}, 'to', {to}) AS content
FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang WHERE {made}"
        ),
    )
}
