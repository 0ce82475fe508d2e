use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use drill::port::{Credentials as _, Inside, Isolation as _, SandboxInputs, SandboxSpec};
use drivers::credentials::embedded::Embedded;
use drivers::credentials::fake::FakeCredentials;
use drivers::engine::fake::{FakeServer, Script};
use drivers::isolation::fake::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::contract::credentials_contract;
use crate::source::SourceServer;
use crate::{LIMITS, TestFn, ask, request, restored, schema, serve, test};

pub(crate) fn tests() -> Vec<(&'static str, TestFn)> {
    vec![
        test!(the_fake_keeps_the_contract),
        test!(embedded_keeps_the_contract_and_the_lease_can_do_nothing_in_a_hostile_database),
        test!(a_doorway_leads_to_the_server_until_it_is_closed),
        test!(a_lease_that_is_not_renewed_ends_by_itself_and_one_that_is_lives_on),
    ]
}

/// Everything that could let a login write, run as somebody else, or read what it must not.
const HOSTILE: &str = r"
CREATE ROLE app LOGIN PASSWORD 'production';
CREATE ROLE middle NOLOGIN;
CREATE DATABASE vault OWNER app CONNECTION LIMIT 0;
REVOKE CONNECT ON DATABASE vault FROM PUBLIC;
GRANT SET ON PARAMETER session_replication_role TO PUBLIC;
GRANT app TO pg_read_all_data;
\connect vault
CREATE TABLE public.open (id int GENERATED ALWAYS AS IDENTITY, a int, b int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO public.open (a) VALUES (1), (2);
GRANT ALL ON public.open TO PUBLIC;
GRANT INSERT ON public.open TO pg_read_all_data;
CREATE TABLE public.columns (a int);
GRANT UPDATE (a), INSERT (a) ON public.columns TO PUBLIC;
CREATE TABLE public.passed_on (a int);
GRANT UPDATE ON public.passed_on TO middle WITH GRANT OPTION;
SET ROLE middle;
GRANT UPDATE ON public.passed_on TO PUBLIC;
RESET ROLE;
CREATE SEQUENCE public.s;
GRANT ALL ON SEQUENCE public.s TO PUBLIC;
GRANT CREATE ON SCHEMA public TO PUBLIC;
CREATE FUNCTION public.as_owner() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO public.open (a) VALUES (9)';
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO PUBLIC;
SELECT lo_create(4711);
GRANT UPDATE ON LARGE OBJECT 4711 TO PUBLIC;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION dblink;
CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1');
GRANT USAGE ON FOREIGN SERVER remote TO PUBLIC;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO PUBLIC;
CREATE USER MAPPING FOR app SERVER remote OPTIONS (user 'x', password 'production');
CREATE SUBSCRIPTION sub CONNECTION 'host=192.0.2.1 password=production' PUBLICATION p WITH (connect = false, slot_name = NONE);
CREATE TABLE public.hidden (a int);
INSERT INTO public.hidden VALUES (1), (2);
ALTER TABLE public.hidden ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.hidden FORCE ROW LEVEL SECURITY;
CREATE POLICY nothing ON public.hidden USING (false);
-- Names of pg_catalog, to be found first by whoever does not look.
CREATE FUNCTION public.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT ''x'' || pg_catalog.pg_sleep(60)';
CREATE FUNCTION public.equals(name, text) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.equals);
-- An event trigger that objects to everything, whatever the session says.
CREATE TABLE public.spied (tag text);
CREATE FUNCTION public.spy() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_catalog.current_setting('ssl') = 'on' THEN
    INSERT INTO public.spied VALUES (tg_tag);
    RAISE EXCEPTION 'the event trigger fired on %', tg_tag;
  END IF;
END $$;
CREATE EVENT TRIGGER spy ON ddl_command_start EXECUTE FUNCTION public.spy();
CREATE EVENT TRIGGER spy_always ON ddl_command_end EXECUTE FUNCTION public.spy();
ALTER EVENT TRIGGER spy_always ENABLE ALWAYS;
";

async fn the_fake_keeps_the_contract() {
    let server = FakeServer::new(Script::default());
    let request = request("orders-20261122t021500z-fake", &["orders"], Duration::from_mins(5));
    let world = World::new();
    let isolation = world.isolation();
    isolation.prepare(&request.run).await.expect("prepared");
    let spec = SandboxSpec { run: request.run.clone(), limits: LIMITS, inputs: SandboxInputs::default() };
    let sandbox = isolation.provision(spec).await.expect("provisioned");
    let inside = Inside { server: &server, sandbox: sandbox.as_ref() };
    credentials_contract(&FakeCredentials::default(), inside, &request).await;
}

async fn embedded_keeps_the_contract_and_the_lease_can_do_nothing_in_a_hostile_database() {
    let source = SourceServer::start().await;
    source.sql(HOSTILE).await;
    let backup = source.dump(&["vault", "postgres"], &["dblink"]).await;
    let (running, restored) = restored(&backup, 2).await;
    assert_eq!(restored.findings, []);
    let server = running.server.as_ref();
    let embedded = Embedded::new();
    let request = request("orders-20261122t021500z-real", &["vault", "postgres"], Duration::from_mins(5));
    schema::views_are_told_in_the_servers_words(server, "vault").await;
    schema::what_is_taken_is_known(&embedded, &request, running.inside()).await;
    credentials_contract(&embedded, running.inside(), &request).await;

    let lease = embedded.issue(&request, running.inside()).await.expect("a lease");
    let names: Vec<&str> = lease.proof.attempts.iter().map(|attempt| attempt.what.as_str()).collect();
    assert!(names.len() > 50, "{names:?}");
    assert!(names.contains(&"see rows that policies hide (it must)"));
    for attempt in &lease.proof.attempts {
        assert!(attempt.held, "{attempt:?}");
    }
    let session = server.login(&lease.grant.identity, "vault").await.expect("it logs in");
    let state = async |statement: &str| session.run(statement).await.err().and_then(|error| error.sqlstate);
    session.run("SET default_transaction_read_only = off").await.expect("a setting of its own");
    let denied = Some("42501".to_owned());
    assert_eq!(state("SELECT public.as_owner()").await, denied);
    assert_eq!(state("UPDATE public.passed_on SET a = 1").await, denied);
    assert_eq!(state("UPDATE public.columns SET a = 1").await, denied);
    assert_eq!(state("INSERT INTO public.columns (a) VALUES (1)").await, denied);
    assert_eq!(state("SELECT pg_catalog.nextval('public.s')").await, denied);
    assert_eq!(state("SELECT pg_catalog.lo_put(4711, 0, 'x')").await, denied);
    assert_eq!(state("CREATE SERVER x FOREIGN DATA WRAPPER postgres_fdw").await, denied);
    assert_eq!(state("SELECT public.dblink_connect('host=/tmp user=muster_sandbox')").await, denied);
    assert_eq!(state("SET ROLE app").await, denied);
    assert_eq!(state("SET session_replication_role = replica").await, denied);
    let rows = session.run("SELECT count(*)::pg_catalog.text FROM public.hidden").await.expect("it reads");
    assert_eq!(rows, [[Some("2".to_owned())]], "policies hide nothing from it");
    let secrets = "SELECT (SELECT count(*) FROM pg_catalog.pg_user_mapping WHERE umoptions IS NULL), \
         (SELECT count(*) FROM pg_catalog.pg_subscription WHERE subconninfo = '')";
    let rows = session.run(secrets).await.expect("it reads");
    assert_eq!(rows, [[Some("1".to_owned()), Some("1".to_owned())]], "found, and blank");

    assert_eq!(ask(server, "vault", "SELECT count(*) FROM public.spied").await, "0", "no event trigger fired");
    let triggers = "SELECT string_agg(evtenabled::text, '' ORDER BY evtname) FROM pg_event_trigger";
    assert_eq!(ask(server, "vault", triggers).await, "OA", "and they are as they were");
    assert!(server.connections().iter().any(|line| line.contains("muster-orders")), "the log names the lease");

    // Its session ends with the lease.
    embedded.revoke(&request, Some(&lease), Some(running.inside())).await.expect("revoked");
    assert!(session.run("SELECT 1").await.is_err());
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'muster-%'";
    assert_eq!(ask(server, "vault", left).await, "0");
    running.end().await;
}

async fn a_lease_that_is_not_renewed_ends_by_itself_and_one_that_is_lives_on() {
    let source = SourceServer::start().await;
    let backup = source.dump(&["postgres"], &[]).await;
    let (running, _) = restored(&backup, 1).await;
    let server = Arc::clone(&running.server);
    let embedded = Embedded::new();
    let request = request("orders-20261122t021500z-ttls", &["postgres"], Duration::from_secs(4));
    let lease = embedded.issue(&request, running.inside()).await.expect("a lease");
    let session = server.login(&lease.grant.identity, "postgres").await.expect("it logs in");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let renewed = embedded.renew(&request, &lease, running.inside()).await.expect("renewed");
    let certificates = [&lease, &renewed].map(|lease| lease.grant.identity.certificate.as_str());
    assert_ne!(certificates[0], certificates[1], "a certificate of its own");
    assert!(certificates.iter().all(|pem| ends_within(pem, 90)), "it ends with its lease, not with the run");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    session.run("SELECT 1").await.expect("renewed: it lives");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    session.run("SELECT 1").await.expect_err("its session was ended");
    let refused = server.login(&lease.grant.identity, "postgres").await.map(drop).expect_err("and its login is locked");
    assert_eq!(refused.sqlstate.as_deref(), Some("28000"));
    embedded.renew(&request, &lease, running.inside()).await.expect_err("it has expired");
    embedded.revoke(&request, Some(&lease), Some(running.inside())).await.expect("revoked");
    drop(server);
    running.end().await;
}

/// By openssl's own reading of the certificate.
fn ends_within(pem: &str, seconds: u32) -> bool {
    let seconds = seconds.to_string();
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-noout", "-checkend", &seconds]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut openssl = openssl.spawn().expect("openssl is there");
    openssl.stdin.take().expect("piped").write_all(pem.as_bytes()).expect("it reads");
    !openssl.wait().expect("it is ours").success()
}

/// Whoever comes through it meets the server's demand for a certificate, and is out when it is closed.
async fn a_doorway_leads_to_the_server_until_it_is_closed() {
    let source = SourceServer::start().await;
    let backup = source.dump(&["postgres"], &[]).await;
    let running = serve(&backup, 1).await;
    let doorway = running.inside().sandbox.open_doorway().await.expect("a doorway");
    let address = (doorway.host(), doorway.port());
    assert_eq!(address.0, "127.0.0.1");
    // PostgreSQL's request for TLS, to which it alone answers `S`.
    let mut visitor = TcpStream::connect((address.0.as_str(), address.1)).await.expect("it is open");
    visitor.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.expect("asked");
    assert_eq!(visitor.read_u8().await.expect("an answer"), b'S');
    doorway.close().await.expect("closed");
    assert!(matches!(visitor.read(&mut [0; 16]).await, Ok(0) | Err(_)), "the visitor is out");
    TcpStream::connect((address.0.as_str(), address.1)).await.expect_err("it is closed");

    let doorway = running.inside().sandbox.open_doorway().await.expect("another doorway");
    let port = doorway.port();
    drop(doorway);
    let gone = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), gone).await.expect("a doorway that is dropped closes");
    running.end().await;
}
