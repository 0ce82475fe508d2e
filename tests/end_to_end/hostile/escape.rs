//! Attempts to get out: files, processes, privileges, kernel interfaces, the network.
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use whole_program::{Finished, Muster, Place, Server, muster, not_tested, programs};

use super::{Attack, KIT, all_held, script, shell, sql, statement};

const REFUSED: &str = "Operation not permitted";
const READ_ONLY: &str = "Read-only file system";
const UNREACHABLE: &str = "Network is unreachable";

/// Numbers of system calls on the two kinds of machine that muster knows.
const fn number(x86_64: i64, aarch64: i64) -> i64 {
    if cfg!(target_arch = "x86_64") { x86_64 } else { aarch64 }
}

const UNSHARE: i64 = number(272, 97);

/// One system call through perl, which a server's machine has.
fn call(name: &'static str, number: i64, arguments: &str) -> Attack {
    shell(
        name,
        &format!("perl -e 'my $p = getppid(); print syscall({number}, {arguments}) < 0 ? $! : \"done\"'"),
        REFUSED,
    )
}

/// The host's own sockets, to which nobody inside may come.
struct Host {
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    unix_name: String,
}

impl Host {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unix_name = format!("muster-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&unix_name).unwrap()).unwrap();
        let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        unix.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        Self { tcp, udp, unix, unix_name }
    }

    fn assert_nobody_came(&self) {
        let nobody = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        assert!(self.tcp.accept().is_err_and(nobody), "somebody came by TCP");
        assert!(self.unix.accept().is_err_and(nobody), "somebody came by an abstract socket");
        assert!(self.udp.recv(&mut [0; 1]).is_err_and(nobody), "a datagram came");
    }
}

fn connect(name: &'static str, family: &str, kind: &str, address: &str, may_see: &'static str) -> Attack {
    let connect = format!(
        "perl -MSocket=:all -e 'socket(my $s, {family}, {kind}, 0) or die \"$!\\n\"; \
         print connect($s, {address}) && defined(send($s, \"x\", 0)) ? \"done\" : $!'"
    );
    shell(name, &connect, may_see)
}

fn inet(host: &str, port: u16) -> String {
    format!("pack_sockaddr_in({port}, inet_aton(\"{host}\"))")
}

fn lo_export(name: &'static str, path: &str, may_see: &'static str) -> Attack {
    let export =
        format!("DO $lo$ DECLARE made oid := lo_from_bytea(0, 'x'); BEGIN PERFORM lo_export(made, '{path}'); END $lo$");
    statement(name, &export, may_see)
}

fn files(place: &Place) -> Vec<Attack> {
    let canary = place.path("canary").display().to_string();
    vec![
        shell("shadow", "cat /etc/shadow", "No such file"),
        shell("canary", &format!("cat {canary}"), "No such file"),
        shell("root", "ls -A / | paste -sd' '", "=backup bin conf data dev etc lib lib64 muster proc sbin tmp usr"),
        shell("etc", "ls -A /etc | paste -sd' '", "=group passwd"),
        shell(
            "devices",
            "ls /dev | paste -sd' '",
            "=core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
        ),
        shell("write passwd", "echo x >>/etc/passwd", READ_ONLY),
        shell("write usr", "echo x >/usr/bin/x", READ_ONLY),
        shell("write muster", "chmod 777 /muster", READ_ONLY),
        shell("write backup", "chmod 666 /backup/*", READ_ONLY),
        shell("write conf", "echo x >>/conf/pg_hba.conf", READ_ONLY),
        shell("write root", "echo x >/x", READ_ONLY),
        shell("hard link", "ln /backup/* /data/x", "cross-device link"),
        shell("mknod", "mknod /tmp/sda b 8 0", REFUSED),
        lo_export("lo to conf", "/conf/pg_hba.conf", READ_ONLY),
        lo_export("lo to usr", "/usr/lib/postgresql/x", READ_ONLY),
        // Its own directory is its own.
        lo_export("lo to data", "/data/exported", "=done"),
        statement("read shadow", "SELECT pg_read_file('/etc/shadow')", "No such file"),
        statement(
            "C function",
            "CREATE FUNCTION f(text) RETURNS int LANGUAGE c AS '/muster', 'system'",
            "could not load library",
        ),
    ]
}

/// Code of the attacker's own in the server's process: from a library that the backup brings along, and in an untrusted language.
fn code(place: &Place) -> Vec<Attack> {
    let library = place.path("library.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/hostile/library.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let made = Command::new(compiler).args(["-shared", "-fPIC", "-s", "-o"]).arg(&library).arg(source).status();
    assert!(made.expect("`make setup` finds a compiler").success(), "{source}");
    let hex = fs::read(&library).unwrap().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let bring = format!(
        "DO $lo$ DECLARE made oid := lo_from_bytea(0, '\\x{hex}'); BEGIN PERFORM lo_export(made, '/data/library.so'); END $lo$"
    );
    let perl = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION public.perl() RETURNS void LANGUAGE plperlu AS $perl$ {body} $perl$; SELECT public.perl()"
        )
    };
    vec![
        statement("bring a library", &bring, "=done"),
        // It runs where it is loaded, before the server sees that it is none of its own.
        statement("own library", "LOAD '/data/library.so'", "missing magic block"),
        shell(
            "library saw",
            "cat /data/library",
            "=/etc/shadow: No such file or directory, user namespace: Operation not permitted, packets: Operation not permitted",
        ),
        statement("plperlu", "CREATE EXTENSION plperlu", "=done"),
        statement(
            "plperlu file",
            &perl("open(my $f, '<', '/etc/shadow') or elog(ERROR, $!)"),
            "=No such file or directory at line 1.",
        ),
        statement("plperlu program", &perl("elog(ERROR, `id -u 2>&1`)"), "70"),
        statement(
            "plperlu system",
            &perl(&format!("elog(ERROR, syscall({UNSHARE}, 0x10000000) < 0 ? $! : 'done')")),
            REFUSED,
        ),
        statement("plpython3u", "CREATE EXTENSION plpython3u", "is not available"),
    ]
}

fn processes() -> Vec<Attack> {
    vec![
        shell("environment", "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c PRODUCTION", "=0"),
        shell("init environment", "wc -c </proc/1/environ", "=0"),
        // It can be read, and holds paths of binds; nobody writes to it.
        shell("bwrap memory", "echo x >/proc/1/mem", READ_ONLY),
        shell("init memory", "head -c 1 /proc/2/mem", "ermission denied"),
        shell("kill bwrap", "kill -9 1; ls -d /proc/1", "/proc/1"),
        // Each is of its own namespace: seen from outside, it would have two numbers or more.
        shell("strangers", "cat /proc/[0-9]*/status | grep -cP '^NSpid:\\t\\d+\\t'", "=0"),
        shell("oom score", "echo -1000 >/proc/self/oom_score_adj", READ_ONLY),
        shell("core pattern", "echo x >/proc/sys/kernel/core_pattern", READ_ONLY),
        shell("sysrq", "echo b >/proc/sysrq-trigger", "annot create"),
        shell("ulimit", "ulimit -n 100000", "error setting limit"),
        shell("nice", "nice -n -5 true", "cannot set niceness"),
        shell("set-uid file", "cp /usr/bin/id /data/id; chmod u+s /data/id; /data/id -u", "=70"),
        // There is no user 0 in the sandbox's user namespace.
        shell("set-uid of root", "chown 0 /data/id", "Invalid argument"),
        shell("set-uid su", "su -c id </dev/null 2>&1 | grep -c uid=0", "=0"),
        shell("capabilities", "grep CapBnd /proc/self/status | tr -dc 0-9", "=0000000000000000"),
        shell("new privileges", "grep NoNewPrivs /proc/self/status | tr -dc 0-9", "=1"),
        shell("user namespace", "unshare -Ur id -u", REFUSED),
        shell("chroot", "/usr/sbin/chroot / true", REFUSED),
        shell("kernel log", "dmesg", "not permitted"),
        call("ptrace", number(101, 117), "16, $p, 0, 0"),
        call("process_vm_readv", number(310, 270), "$p, 0, 0, 0, 0, 0"),
        call("pidfd_getfd", 438, "3, 3, 0"),
        call("unshare", UNSHARE, "0x10000000"),
        call("mount", number(165, 40), "0, 0, 0, 0, 0"),
        call("keyctl", number(250, 219), "0, -3, 0"),
        call("add_key", number(248, 217), "0, 0, 0, 0, 0"),
        call("bpf", number(321, 280), "0, 0, 0"),
        call("io_uring", 425, "8, 0"),
        call("userfaultfd", number(323, 282), "0"),
        call("perf_event_open", number(298, 241), "0, 0, 0, 0, 0"),
    ]
}

fn network(host: &Host) -> Vec<Attack> {
    let (tcp, udp) = (host.tcp.local_addr().unwrap().port(), host.udp.local_addr().unwrap().port());
    let unix = format!("pack_sockaddr_un(\"\\0{}\")", host.unix_name);
    vec![
        shell("interfaces", "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' \\n'", "=lo"),
        shell("routes", "tail -n +2 /proc/net/route | grep -c .", "=0"),
        connect("host TCP", "AF_INET", "SOCK_STREAM", &inet("127.0.0.1", tcp), "Connection refused"),
        // What is sent to nobody is sent; the host sees whether it came.
        connect("host UDP", "AF_INET", "SOCK_DGRAM", &inet("127.0.0.1", udp), ""),
        connect("abstract socket", "AF_UNIX", "SOCK_STREAM", &unix, "Connection refused"),
        connect("metadata", "AF_INET", "SOCK_STREAM", &inet("169.254.169.254", 80), UNREACHABLE),
        connect("DNS", "AF_INET", "SOCK_DGRAM", &inet("8.8.8.8", 53), UNREACHABLE),
        connect("internet", "AF_INET", "SOCK_STREAM", &inet("192.0.2.1", 443), UNREACHABLE),
        connect(
            "IPv6",
            "AF_INET6",
            "SOCK_STREAM",
            "pack_sockaddr_in6(80, inet_pton(AF_INET6, \"2001:db8::1\"))",
            "unreachable",
        ),
        shell("resolve", "perl -e 'print scalar(gethostbyname(\"example.com\")) ? \"done\" : \"unknown\"'", "unknown"),
        connect("packet socket", "17", "3", "\"\"", REFUSED),
        connect("vsock", "40", "1", "\"\"", REFUSED),
        connect("AF_ALG", "38", "5", "\"\"", REFUSED),
    ]
}

/// What must be the same on the host before and after, beside what each place looks at.
fn state_of_host(place: &Place) -> BTreeMap<String, Vec<u8>> {
    let keys = fs::read_to_string("/proc/keys").unwrap_or_default();
    // Keyrings come and go with other tests' users and containers, and their counts with them.
    let keys: String = keys.lines().filter(|key| !key.contains(" keyring ")).collect();
    let here = fs::read_dir(place.path("")).unwrap().flatten().map(|entry| entry.path());
    let files = here.filter(|path| path.is_file()).chain(["/etc/hosts", "/etc/resolv.conf"].map(PathBuf::from));
    let files = files.map(|path| (path.display().to_string(), fs::read(&path).unwrap_or_default()));
    files.chain([("/proc/keys".to_owned(), keys.into_bytes())]).collect()
}

/// Runs a drill between two looks at the host.
fn between_two_looks(place: &Place, host: &Host, what: &[&str]) -> Finished {
    let before = state_of_host(place);
    let run = Muster::start_with(place, &[&["run", "--output", "json"], what].concat(), |command| {
        command.env("PRODUCTION_TOKEN", "hunter2");
    });
    let run = run.wait();
    host.assert_nobody_came();
    let mut after = state_of_host(place);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    for (path, before) in before {
        assert_eq!(Some(text(before)), after.remove(&path).map(text), "{path} is not as it was");
    }
    assert!(after.is_empty(), "new: {:?}", after.keys());
    place.assert_nothing_left();
    assert!(!run.stdout.contains("hunter2"));
    run
}

#[test]
fn a_script_that_tries_to_get_out_finds_nothing() {
    tries_to_get_out(&Place::new());
}

#[test]
fn a_script_in_a_plain_users_drill_finds_nothing() {
    tries_to_get_out(&Place::of_a_plain_user());
}

fn tries_to_get_out(place: &Place) {
    place.write("canary", "production");
    let host = Host::new();
    for (name, attacks) in
        [("files", files(place)), ("code", code(place)), ("processes", processes()), ("network", network(&host))]
    {
        let dump = script(place, name, &sql("SELECT", &attacks));
        let run = between_two_looks(place, &host, &["--dump", &dump]);
        all_held(&run, &attacks);
        // It is restored, and an attack that failed is no fault of the data.
        assert_eq!(run.expect(0).result()["reason"], "proven");
    }
}

/// A stand-in for a cloud's metadata service, in a network in which only this drill runs.
#[test]
fn a_metadata_service_that_the_runner_reaches_is_out_of_reach_inside() {
    if !rustix::process::geteuid().is_root() {
        not_tested("a metadata service that the runner reaches: only root can make a network for it");
        return;
    }
    // What a thread starts is in the thread's network.
    std::thread::spawn(|| {
        enter_a_network_of_its_own();
        ip(&["link", "set", "lo", "up"]);
        ip(&["address", "add", "169.254.169.254/32", "dev", "lo"]);
        let service = TcpListener::bind("169.254.169.254:80").unwrap();
        TcpStream::connect("169.254.169.254:80").expect("the control: outside of the sandbox, it answers");
        service.accept().expect("the control came");
        service.set_nonblocking(true).unwrap();

        let place = Place::new();
        let attacks = [
            connect("metadata", "AF_INET", "SOCK_STREAM", &inet("169.254.169.254", 80), UNREACHABLE),
            shell("link-local", "grep -c 169.254 /proc/net/fib_trie", "=0"),
        ];
        let dump = script(&place, "metadata", &sql("SELECT", &attacks));
        let run = muster(&place, &["run", "--dump", &dump, "--output", "json"]);
        place.assert_nothing_left();
        let came = service.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(came, Err(ErrorKind::WouldBlock), "somebody came from inside");
        all_held(&run, &attacks);
        assert_eq!(run.expect(0).result()["reason"], "proven");
    })
    .join()
    .unwrap();
}

/// It ends with the last thread or process in it.
fn enter_a_network_of_its_own() {
    let mut holder = Command::new("unshare").args(["--net", "--", "sleep", "60"]).spawn().unwrap();
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
    let begun = Instant::now();
    while network(&holder.id().to_string()).is_ok_and(|its| its == network("thread-self").unwrap()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "unshare made no network");
        std::thread::sleep(Duration::from_millis(5));
    }
    let new = fs::File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    move_into_link_name_space(new.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
}

fn ip(arguments: &[&str]) {
    assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
}

/// The same in an archive: it runs where a materialized view is filled.
#[test]
fn an_archive_that_tries_to_get_out_finds_nothing() {
    let place = Place::new();
    place.write("canary", "production");
    let host = Host::new();
    let attacks: Vec<Attack> = [&files(&place)[..8], &processes()[..20], &network(&host)[..]].concat();
    // Where the dump is made there is no sandbox, and nothing is tried.
    let trap = format!(
        "{KIT}\nCREATE FUNCTION public.attack() RETURNS int LANGUAGE plpgsql AS $body$ BEGIN
             IF pg_catalog.pg_stat_file('/conf/pg_hba.conf', true) IS NULL THEN RETURN 0; END IF;
             {} RETURN 1; END $body$;
         CREATE MATERIALIZED VIEW public.trap AS SELECT public.attack() AS attacked;",
        sql("PERFORM", &attacks)
    );
    let server = Server::start();
    server.psql("postgres", "CREATE DATABASE evil");
    server.psql_script("evil", &trap);
    // With its roles, so that what owns the view is a superuser inside, too.
    let dump = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(programs().join(program));
        command.args(["--host", &server.host(), "--username", "postgres"]).args(arguments).current_dir(place.path(""));
        assert!(command.status().unwrap().success(), "{program}");
    };
    dump("pg_dump", &["--format=custom", "--file=evil.dump", "evil"]);
    dump("pg_dumpall", &["--globals-only", "--file=globals.sql"]);
    drop(server);
    muster(&place, &["key", "generate", "backup"]).expect(0);
    let adopt = ["adopt", "evil.dump", "--key", "backup.key", "--out", "evil", "--globals", "globals.sql"];
    muster(&place, &adopt).expect(0);
    place.write(
        "evil.yaml",
        "apiVersion: muster.dev/v1\nkind: Drill\nmetadata: { name: evil }\nspec:\n  source: { manifest: evil/latest/manifest.json, trustedKeys: [{ file: backup.pub }] }\n",
    );
    let run = between_two_looks(&place, &host, &["evil.yaml"]);
    all_held(&run, &attacks);
    assert_eq!(run.expect(0).result()["reason"], "proven");
}
