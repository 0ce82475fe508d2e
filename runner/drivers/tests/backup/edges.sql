-- Every built-in type's edge values, and every kind of table.
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE EXTENSION seg; CREATE EXTENSION cube;
CREATE EXTENSION isn;
CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN small AS int CHECK (VALUE < 100); CREATE DOMAIN ratio AS float8;
CREATE TYPE pair AS (a int, b text); CREATE TYPE floats AS RANGE (subtype = float8);
CREATE TABLE numbers (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, r ratio, n numeric, m money, o oid);
INSERT INTO numbers VALUES (-32768, -2147483648, -9223372036854775808, 'NaN', 'Infinity', 'NaN', 'NaN', '-1.99', 0),
  (32767, 2147483647, 9223372036854775807, '-0', '-0', '-Infinity', '-Infinity', '92233720368547758.07', 4294967295),
  (NULL, NULL, NULL, '1e-45', '5e-324', '1.7e308', repeat('9', 1000)::numeric, NULL, NULL),
  (0, 0, 0, 'Infinity'::float4 - 'Infinity'::float4, 'Infinity'::float8 - 'Infinity'::float8, 'Infinity'::float8 - 'Infinity'::float8, 1.000, 0, 1);
CREATE TABLE times (d date, t time, tt timetz, ts timestamp, tz timestamptz, i interval);
INSERT INTO times VALUES ('4713-01-01 BC', '24:00', '23:59:59.999999-15:59', '4713-01-01 00:00:00 BC', '0044-03-15 12:00+00 BC', '-178000000 years'),
  ('infinity', '00:00', '00:00+15:59', '-infinity', 'infinity', '1 mon -1 day 00:00:00.000001');
CREATE TABLE texts (a text, b varchar(5), c char(5), d "char", e name, x xml, j json, b2 jsonb, p jsonpath, v tsvector, q tsquery);
INSERT INTO texts VALUES (E'\t\n\\\\\r\x01', 'a ', 'a', 'x', 'n', '<a b="1">&amp;</a>', '{"a" :1}', '{"a": [1.0, 1.00, 1e3, null]}', '$.a[*]', 'a:1A b:2', 'a & !b'),
  ('', '', '', '', '', '', '[]', '{}', '$', '', ''), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'null', NULL, NULL, NULL);
CREATE TABLE bits (b bytea, f bit(3), v varbit, u uuid, m macaddr, m8 macaddr8, i inet, c cidr, l pg_lsn);
INSERT INTO bits VALUES ('\x00ff00', B'101', B'', gen_random_uuid(), '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '::1/64', '10.0.0.0/8', '16/B374D848'), ('\x', NULL, B'1', NULL, NULL, NULL, NULL, NULL, '0/0');
CREATE TABLE nested (a int[], b float8[], c mood, d mood[], e small, f small[], g pair, h pair[], r int4range, mr int4multirange, fr floats, tr tstzrange);
INSERT INTO nested VALUES ('{}', '{NaN,-0}', 'sad', '{sad,NULL}', 7, '{1,2}', ROW(NULL, ''), ARRAY[ROW(1, 'x')::pair], 'empty', '{}', 'empty', '(,)'),
  ('[0:1][2:3]={{1,2},{3,NULL}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[1,5]', '{[1,2],[5,)}', '[-Infinity,NaN]', '[2026-01-01,infinity]');
CREATE TABLE shapes (p point, l line, s lseg, b box, h path, g polygon, c circle);
INSERT INTO shapes VALUES ('(NaN,-0)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),1>');
CREATE TABLE regs (c regclass, t regtype, r regrole, a aclitem); INSERT INTO regs VALUES ('pg_class', 'int4', 'postgres', 'postgres=r/postgres');
CREATE TABLE extensions (h hstore, c citext, l ltree, s seg, q cube, i isbn13);
INSERT INTO extensions VALUES ('a=>NULL', 'ÄbC', 'a.b', '1 .. 2', '(1,2),(3,4)', '978-0-393-04002-9');
CREATE TABLE keyed_int (id int8 PRIMARY KEY, v text); INSERT INTO keyed_int SELECT n * 7 - 20000, md5(n::text) FROM generate_series(1, 30000) n;
CREATE TABLE keyed_text (k text COLLATE "C", n int, v float8, UNIQUE (k, n)); ALTER TABLE keyed_text ALTER k SET NOT NULL, ALTER n SET NOT NULL;
INSERT INTO keyed_text SELECT md5(n::text), n, n / 7.0 FROM generate_series(1, 5000) n;
CREATE TABLE no_key AS SELECT n % 10 AS v FROM generate_series(1, 5000) n;
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES; CREATE TABLE empty (id int, f float8[]);
CREATE TABLE guarded (id int); INSERT INTO guarded VALUES (1), (2); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE parent (id int, z int); CREATE TABLE child (a int) INHERITS (parent); ALTER TABLE parent ADD late text;
INSERT INTO parent VALUES (1, 2, 'p'); INSERT INTO child VALUES (3, 4, 5, 'c');
CREATE TABLE top (a int, b int, c text) PARTITION BY RANGE (a); CREATE TABLE mid PARTITION OF top FOR VALUES FROM (0) TO (1000) PARTITION BY LIST (b);
CREATE TABLE leaf1 PARTITION OF mid FOR VALUES IN (0, 1); CREATE TABLE leaf2 PARTITION OF mid DEFAULT; INSERT INTO top SELECT n, n % 3, n FROM generate_series(0, 999) n;
CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED, dropped int); ALTER TABLE computed DROP dropped; INSERT INTO computed VALUES (1), (NULL);
CREATE UNLOGGED TABLE quick (id int); INSERT INTO quick VALUES (1);
CREATE MATERIALIZED VIEW seen AS SELECT * FROM numbers;
DO $$ BEGIN EXECUTE 'CREATE TABLE broad (' || (SELECT string_agg('c' || n || ' int', ',') FROM generate_series(1, 1600) n) || ')'; END $$;
INSERT INTO broad (c1, c1600) VALUES (1, 2);
