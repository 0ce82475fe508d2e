use proptest::prelude::*;

use super::{Event, Refusal, Scanner};

const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

/// Statements as they were told, and how it ended.
fn scan_in(pieces: &[&[u8]]) -> (Vec<String>, Result<(), Refusal>) {
    let mut seen = Vec::new();
    let mut scanner = Scanner::new(|event: Event<'_>| match event {
        Event::Statement(text) => seen.push(text.to_owned()),
        Event::Connect(database) => seen.push(format!("-> {database}")),
        Event::Comment(_) => {}
    });
    let mut pushed = Ok(());
    for piece in pieces {
        pushed = pushed.and_then(|()| scanner.push(piece));
    }
    let ended = pushed.and_then(|()| scanner.finish());
    (seen, ended)
}

fn scan(script: &str) -> (Vec<String>, Result<(), Refusal>) {
    scan_in(&[script.as_bytes()])
}

#[track_caller]
fn accepted(script: &str) -> Vec<String> {
    let (seen, ended) = scan(&format!("{script}{END}"));
    assert_eq!(ended, Ok(()), "{script}");
    seen
}

#[track_caller]
fn refused(script: &str) -> String {
    let (_, ended) = scan(&format!("{script}{END}"));
    ended.expect_err(script).to_string()
}

#[test]
fn statements_end_where_psql_ends_them() {
    let seen = accepted(
        "SET a = 'x;y';\nSELECT ';' || $$;$$ || $t$ $$; \\! id $t$;\n-- a ; comment \\! id\n/* ; /* nested ; */ \\! id */ SELECT 1 - 2 / 3;\n\
         CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);\nSELECT E'\\'; \\\\' , e'a''b;', \"x;\"\"\\y\";\nSELECT 'back\\slash';\n\
         SELECT foo$bar, $1, a[1:2], x'1f', B'0', U&'d\\0061t';\n",
    );
    assert_eq!(seen.len(), 7, "{seen:?}");
    assert_eq!(seen[0], "SET a = 'x;y'");
    assert_eq!(seen[2], "SELECT 1 - 2 / 3");
}

/// `psql` reads such a body as one statement; here it comes in pieces, and nothing in it is taken for something else.
#[test]
fn a_body_of_sql_is_read_to_its_end() {
    let function = "CREATE FUNCTION public.f(a integer) RETURNS integer\n    LANGUAGE sql\n    BEGIN ATOMIC\n \
                    INSERT INTO public.log VALUES ('it''s; \\! id');\n \
                    SELECT CASE WHEN (f.a > 0) THEN 1 ELSE 2 END AS \"x;\";\nEND;\n";
    let seen = accepted(&format!("{function}SELECT 'after';\nCOPY public.t FROM stdin;\n1\n\\.\n"));
    assert!(seen[0].starts_with("CREATE FUNCTION public.f"), "{seen:?}");
    assert_eq!(seen[seen.len() - 2..], ["SELECT 'after'", "COPY public.t FROM stdin"]);
    // A command of psql is none of the body's.
    assert!(refused(&function.replace("END;", "\\! id\nEND;")).contains("`\\!`"));
    let cut = scan(&function[..function.len() - 3]).1.expect_err("cut short");
    assert!(cut.why.starts_with("it ends in the middle of a statement"), "{cut}");
}

#[test]
fn data_of_a_copy_is_data() {
    let seen =
        accepted("COPY public.t (a, b) FROM stdin;\n1\tit's; -- $$ /* \"\n\\N\ta\\\\!b\\n\\t\n\\.\n\nSELECT 1;\n");
    assert_eq!(seen, ["COPY public.t (a, b) FROM stdin", "SELECT 1"]);
    assert!(accepted("COPY t FROM stdin;\n\\.\n").len() == 1);
    assert!(
        refused("COPY t FROM stdin;\n\\! id\n\\.\n").starts_with("line 2: `\\!`"),
        "an old psql would run it after a failed COPY"
    );
    assert!(refused("COPY t FROM stdin;\na\\copy\n\\.\n").starts_with("line 2: `\\c`"));
    assert!(refused("COPY t FROM stdin; SELECT 1;\n").contains("behind a COPY"));
    assert!(refused("COPY t FROM stdin;\n\\.x\n").contains("behind the end"));
    assert!(refused("COPY t FROM PROGRAM 'id';\n").contains("not from stdin"));
    assert!(refused("COPY t TO '/tmp/x';\n").contains("not from stdin"));
}

#[test]
fn commands_of_psql_are_refused_with_their_line() {
    for (script, said) in [
        ("SELECT 1;\n\\! id\n", "line 2: `\\!` is a command of psql"),
        ("SELECT 1;\n\n\\o /tmp/x\n", "line 3: `\\o` is a command of psql"),
        ("\\copy t from program 'id'\n", "line 1: `\\copy` is a command of psql"),
        ("SELECT 1 \\gexec\n", "line 1: a backslash stands where"),
        ("SELECT 1;\n  \\! id\n", "line 2: a backslash stands where"),
        ("SELECT 1\\; SELECT 2;\n", "line 1: a backslash stands where"),
        ("SELECT '\\'; \n\\! id\n", "line 2: `\\!`"),
        ("SELECT E'\\\\';\n\\! id\n", "line 2: `\\!`"),
        ("SELECT $e$ $e $e$;\n\\! id\n", "line 2: `\\!`"),
        ("SELECT fooE'\\';\n\\! id\n", "line 2: `\\!`"),
        ("/* /* */ */\n\\! id\n", "line 2: `\\!`"),
        ("\\connect `id`\n", "line 1: `\\connect` is a command of psql that pg_dump does not write so"),
        ("\\connect a\n\\connect b\n", "line 2: it connects to a second database"),
    ] {
        let refusal = refused(script);
        assert!(refusal.starts_with(said), "{script}: {refusal}");
    }
    assert_eq!(accepted("\\restrict a1\n\\connect \"Shop\"\n\\unrestrict a1\n"), ["-> Shop"]);
}

#[test]
fn what_would_be_read_otherwise_is_refused() {
    for (script, said) in [
        ("SET client_encoding = 'SJIS';\n", "encoding sjis"),
        ("SET client_encoding = 'SHIFT_JIS_2004';\n", "encoding shiftjis2004"),
        ("SELECT set_config('client_encoding', 'GBK', false);\n", "changes the client encoding"),
        ("SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);\n", "how quotes are read"),
        ("SELECT 1E'\\'';\n", "a number runs into a quote"),
        ("SELECT 1e$$;$$;\n", "a number runs into a quote"),
        ("SELECT E'a'\n'b\\'c';\n", "is continued"),
        ("SELECT \0;\n", "zero byte"),
    ] {
        let refusal = refused(script);
        assert!(refusal.contains(said), "{script}: {refusal}");
    }
    // A source whose strings are not standard says so, and is read so.
    assert_eq!(accepted("SET standard_conforming_strings = off;\nSELECT 'it\\'s;';\n").len(), 2);
    assert!(refused("SET standard_conforming_strings = on;\nSELECT 'it\\'s;';\n").contains("it ends in the middle"));
    assert_eq!(accepted("SET client_encoding = 'LATIN1';\nSELECT setval('public.client_encoding_seq', 1);\n").len(), 2);
}

#[test]
fn a_script_that_is_cut_short_says_so() {
    let whole = format!("COPY t FROM stdin;\n1\n\\.\nSELECT 'x;';\nSELECT $$ y $$;\n/* c */\n{END}");
    assert_eq!(scan(&whole).1, Ok(()));
    let last = whole.rfind("complete").expect("its end") + "complete".len();
    for cut in 0..last {
        let refusal = scan(&whole[..cut]).1.expect_err("cut short");
        assert!(refusal.why.starts_with("it ends"), "{cut}: {refusal}");
    }
    assert!(scan(&format!("{END}SELECT 1;\n")).1.is_err(), "what comes after the end is not of the dump");
}

/// One statement of a dump, with texts that look like everything else.
fn statement() -> impl Strategy<Value = String> {
    let nasty = "[-a-z0-9 ;'\"\\\\$/*\n!:é]{0,20}";
    prop_oneof![
        nasty.prop_map(|text| format!("INSERT INTO t VALUES ('{}');\n", text.replace('\'', "''"))),
        nasty.prop_map(|text| format!("SELECT E'{}';\n", text.replace('\\', "\\\\").replace('\'', "\\'"))),
        nasty.prop_map(|text| format!("COMMENT ON TABLE \"{}\" IS NULL;\n", text.replace('"', "\"\""))),
        nasty.prop_map(|text| format!("DO $tag${}$tag$;\n", text.replace('$', ""))),
        nasty.prop_map(|text| format!("-- {}\nSELECT 1;\n", text.replace('\n', " "))),
        "[-a-z ;'\"$!\n]{0,20}".prop_map(|text| format!("/* {text} */ SELECT 2;\n")),
        nasty.prop_map(|text| {
            let data = text.replace('\\', "\\\\");
            format!("COPY public.t (a) FROM stdin;\n{data}\n\\.\n")
        }),
    ]
}

proptest! {
    #[test]
    fn dumps_are_read_whatever_they_hold(statements in proptest::collection::vec(statement(), 0..12)) {
        let script = format!("{}{END}", statements.concat());
        let (seen, ended) = scan(&script);
        prop_assert_eq!(ended, Ok(()), "{}", script);
        prop_assert_eq!(seen.len(), statements.len(), "{}", script);
    }

    #[test]
    fn a_command_between_statements_is_found_on_its_line(
        before in proptest::collection::vec(statement(), 0..6),
        after in proptest::collection::vec(statement(), 0..6),
        command in "[!oiegw][ a-z]{0,5}",
    ) {
        let start = before.concat();
        let script = format!("{start}\\{command}\n{}{END}", after.concat());
        let line = start.matches('\n').count() as u64 + 1;
        prop_assert_eq!(scan(&script).1.expect_err("refused").line, line, "{}", script);
    }

    #[test]
    fn how_it_comes_in_pieces_does_not_matter(
        script in "[-a-zE0-9 ;'\"\\\\$/*\n!()]{0,80}",
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = scan(&script);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(script.len() + 1)).collect();
        cuts.extend([0, script.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &script.as_bytes()[pair[0]..pair[1]]).collect();
        prop_assert_eq!(scan_in(&pieces), whole);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan_in(&[&bytes]);
    }
}
