//! What an honest server needs still works inside: the list of system calls is neither too long nor too short.
use whole_program::{Place, muster};

use super::{all_held, script, shell, sql};

/// A statement that fails here fails the restore.
const WORK: &str = "
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT e.name FROM pg_available_extensions AS e ORDER BY 1 LOOP
        EXECUTE format('CREATE EXTENSION IF NOT EXISTS %I CASCADE', name);
    END LOOP;
END $$;
CREATE TABLE public.work AS SELECT g AS id, md5(g::text) AS v FROM generate_series(1, 100000) AS g;
CREATE INDEX ON public.work USING gin (v gin_trgm_ops);
CREATE INDEX ON public.work USING bloom (v);
CREATE UNIQUE INDEX CONCURRENTLY work_id ON public.work (id);
SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT count(*), sum(length(a.v)) FROM public.work AS a JOIN public.work AS b USING (v);
SET work_mem = '64kB';
SELECT count(*) FROM (SELECT v FROM public.work ORDER BY v OFFSET 10) AS sorted;
RESET work_mem;
VACUUM (FULL, ANALYZE) public.work;
VACUUM (PARALLEL 2) public.work;
CHECKPOINT;
REINDEX TABLE CONCURRENTLY public.work;
SELECT pg_prewarm('public.work'), pg_switch_wal(), pg_rotate_logfile();
SELECT digest('x', 'sha256'), gen_random_uuid(), uuid_generate_v4(), crypt('x', gen_salt('bf', 4));
SELECT bt_index_check('public.work_id'), heap_page_items(get_raw_page('public.work', 0));
CREATE SERVER here FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE public.passwd (line text) SERVER here OPTIONS (filename '/etc/passwd');
SELECT count(*) FROM public.passwd;
DO $$ DECLARE made oid := lo_from_bytea(0, 'x'); BEGIN PERFORM lo_export(made, '/data/made'); PERFORM lo_import('/data/made'); END $$;
DO $$ BEGIN EXECUTE 'COPY public.work TO PROGRAM ''sort | gzip >/tmp/work.gz'''; END $$;
CREATE DATABASE beside TEMPLATE template0; DROP DATABASE beside;
LISTEN work; NOTIFY work, 'done';
";

#[test]
fn servers_extensions_and_programs_work_inside() {
    for place in [Place::new(), Place::of_a_plain_user()] {
        let attacks = [
            shell(
                "perl",
                "perl -e 'use Socket; use POSIX; use File::Temp qw(tempfile); tempfile(); print \"works\"'",
                "works",
            ),
            shell(
                "files",
                "cp -a /etc /tmp/x && tar -C /tmp -cf - x | tar -tf - >/dev/null && find /tmp/x | sort | wc -l",
                "3",
            ),
            shell("pipes", "seq 1 100000 | xargs -P 2 -n 1000 echo | wc -w", "100000"),
        ];
        let dump = script(&place, "work", &format!("{WORK}{}", sql("SELECT", &attacks)));
        let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]).expect(0);
        all_held(&run, &attacks);
        place.assert_nothing_left();
    }
}
