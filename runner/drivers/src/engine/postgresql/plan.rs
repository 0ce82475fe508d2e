//! Whether a backup can be restored with what is installed: decided before anything is made.
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::Arc;

use async_trait::async_trait;
use drill::finding::{Finding, Severity};
use drill::manifest::{Locale, Manifest, Part};
use drill::port::{EnginePlan, FilesAt, InputFile, Sandbox, SandboxInputs, Server};
use drill::spec::Postgresql;
use drill::stop::Stop;
use drill::unit;
use drill::verdict::Reason;

use super::install::{Install, how_to_install, how_to_install_extension};
use super::tls::Authority;
use super::{OLDEST_MAJOR, PORT, conf, server};

pub(super) struct Plan {
    install: Install,
    authority: Arc<Authority>,
    files: Vec<InputFile>,
    jobs: u32,
    note: String,
    findings: Vec<Finding>,
    disk_estimate: u64,
}

/// Everything that is missing is named at once.
pub(super) fn plan(installs: &[Install], manifest: &Manifest, wanted: &Postgresql) -> Result<Plan, Stop> {
    let install = choose(installs, manifest, wanted)?;
    let missing = missing(install, manifest);
    if !missing.is_empty() {
        let (what, advice): (Vec<String>, Vec<String>) = missing.into_iter().unzip();
        let mut advice = advice;
        advice.dedup();
        return Err(unfit(format!("PostgreSQL {} here lacks {}", install.version, what.join(", ")), advice.join("; ")));
    }
    with(install, manifest, wanted)
}

/// Nobody can look into an image before it runs: what it lacks is told by its first start, or by the restore.
pub(super) fn plan_for_image(manifest: &Manifest, wanted: &Postgresql) -> Result<Plan, Stop> {
    let major = wanted.major.unwrap_or(manifest.source.major());
    let image = Install {
        // As Debian's packages have it, and the images that are made of them.
        bin: format!("/usr/lib/postgresql/{major}/bin").into(),
        version: major.to_string(),
        major,
        minor: 0,
        extensions: BTreeMap::new(),
        options: None,
    };
    let install = choose(std::slice::from_ref(&image), manifest, wanted)?;
    with(install, manifest, wanted)
}

fn with(install: &Install, manifest: &Manifest, wanted: &Postgresql) -> Result<Plan, Stop> {
    conf::check_settings(&wanted.settings)?;
    let authority = Arc::new(conf::authority()?);
    let files = conf::files(install, &authority, wanted.fidelity, &wanted.settings)?;
    Ok(Plan {
        note: note(install, manifest),
        findings: findings(install, manifest),
        disk_estimate: disk_estimate(manifest),
        jobs: wanted.jobs.max(1),
        install: install.clone(),
        authority,
        files,
    })
}

#[async_trait]
impl EnginePlan for Plan {
    fn note(&self) -> String {
        self.note.clone()
    }

    fn findings(&self) -> Vec<Finding> {
        self.findings.clone()
    }

    fn disk_estimate(&self) -> u64 {
        self.disk_estimate
    }

    fn inputs(&self) -> SandboxInputs {
        let authority = Arc::clone(&self.authority);
        SandboxInputs {
            files: self.files.clone(),
            at_address: Some(FilesAt(Arc::new(move |address| conf::certificate(&authority, Some(address))))),
            template: Some(conf::template(&self.install)),
            programs: self.install.outside_usr(),
            port: PORT,
        }
    }

    async fn serve(&self, sandbox: Arc<dyn Sandbox>) -> Result<Arc<dyn Server>, Stop> {
        let server = server::start(sandbox, &self.install, Arc::clone(&self.authority), self.jobs).await?;
        Ok(Arc::new(server))
    }
}

fn choose<'a>(installs: &'a [Install], manifest: &Manifest, wanted: &Postgresql) -> Result<&'a Install, Stop> {
    if manifest.source.engine != "postgresql" {
        return Err(unfit(
            format!("the backup is of `{}`, not of PostgreSQL", manifest.source.engine),
            "drill it elsewhere",
        ));
    }
    let own = manifest.source.major();
    let major = wanted.major.unwrap_or(own);
    if major < own {
        return Err(unfit(
            format!("a backup of PostgreSQL {own} cannot be restored into PostgreSQL {major}"),
            format!("remove the version from the drill's engine, or name {own} or a newer one"),
        ));
    }
    if major < OLDEST_MAJOR {
        return Err(unfit(
            format!("PostgreSQL {major} has no read-only role for checks (pg_read_all_data came with {OLDEST_MAJOR})"),
            format!("name {OLDEST_MAJOR} or a newer major in the drill's engine"),
        ));
    }
    let install = installs.iter().find(|install| install.major == major).ok_or_else(|| absent(installs, major, own))?;
    let tool = tool_major(&manifest.source.tool).unwrap_or(own);
    // A script of a newer pg_dump can be read; what an older server does not know in it is told by the restore.
    if tool > install.major && manifest.parts.iter().any(|part| part.format.packing().is_none()) {
        return Err(unfit(
            format!("the dump was made by pg_dump {tool}, which pg_restore {} may not read", install.version),
            format!("name {tool} in the drill's engine, or capture with pg_dump {own}"),
        ));
    }
    Ok(install)
}

fn absent(installs: &[Install], major: u32, own: u32) -> Stop {
    let mut advice = how_to_install(major);
    let newer: Vec<String> =
        installs.iter().filter(|install| install.major > own).map(|install| install.major.to_string()).collect();
    if let Some(newest) = newer.first() {
        advice = format!(
            "{advice}; PostgreSQL {} is installed and could read it: a drill that names it (engine version {newest}) proves the \
             recovery into that major",
            newer.join(", "),
        );
    }
    unfit(format!("PostgreSQL {major} is not installed here"), advice)
}

/// `pg_dump (PostgreSQL) 15.18`.
fn tool_major(tool: &str) -> Option<u32> {
    super::install::parse_version(tool).map(|(_, major, _)| major)
}

/// What is missing, and what to type.
fn missing(install: &Install, manifest: &Manifest) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    for part in &manifest.parts {
        for extension in &part.extensions {
            if !install.extensions.contains_key(&extension.name) {
                let what = format!("extension {} (database {})", extension.name, part.database);
                missing.push((what, how_to_install_extension(install.major, &extension.name)));
            }
        }
        missing.extend(missing_locale(install, part));
    }
    missing
}

fn missing_locale(install: &Install, part: &Part) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    let Some(locale) = &part.locale else { return missing };
    if locale.provider == "icu" && install.has_option("icu") == Some(false) {
        let what = format!("ICU (database {})", part.database);
        missing.push((what, "install a PostgreSQL that was built with ICU".to_owned()));
    }
    if locale.provider == "builtin" && install.major < 17 {
        let what = format!("the builtin locale provider (database {})", part.database);
        missing.push((what, how_to_install(17)));
    }
    let mut names = vec![&locale.collate, &locale.ctype];
    names.dedup();
    for name in names {
        if !is_locale(name) {
            let what = format!("locale {name} (database {})", part.database);
            missing.push((what, how_to_make_locale(locale, name)));
        }
    }
    missing
}

fn how_to_make_locale(locale: &Locale, name: &str) -> String {
    let (language, codeset) = name.split_once('.').unwrap_or((name, &locale.encoding));
    let codeset = if codeset.eq_ignore_ascii_case("utf8") { "UTF-8" } else { codeset };
    format!("`apt-get install locales && localedef -i {language} -f {codeset} {name}`")
}

/// Whether the C library knows a locale. The sandbox has this machine's `/usr`, and so its locales.
#[expect(unsafe_code, reason = "the C library is the only one who knows")]
fn is_locale(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: `name` is a C string that lives until the end; a null base makes a new locale, which is freed where there is one.
    unsafe {
        let locale = libc::newlocale(libc::LC_ALL_MASK, name.as_ptr(), std::ptr::null_mut());
        if locale.is_null() {
            return false;
        }
        libc::freelocale(locale);
    }
    true
}

fn note(install: &Install, manifest: &Manifest) -> String {
    let extensions: std::collections::BTreeSet<&str> =
        manifest.parts.iter().flat_map(|part| &part.extensions).map(|extension| extension.name.as_str()).collect();
    let databases = unit::plural(count(manifest.parts.len()), "database");
    let mut note = format!("PostgreSQL {}, {databases}", install.version);
    if !extensions.is_empty() {
        note = format!("{note}, {}", unit::plural(count(extensions.len()), "extension"));
    }
    note
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn findings(install: &Install, manifest: &Manifest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |database: Option<&str>, severity, subject: &str, message: String| Finding {
        source: "preflight".to_owned(),
        database: database.map(str::to_owned),
        severity,
        subject: subject.to_owned(),
        message,
        details: Vec::new(),
    };
    if install.major != manifest.source.major() {
        let message = format!(
            "the backup is of PostgreSQL {}: this proves its recovery into {} only",
            manifest.source.version, install.version
        );
        findings.push(finding(None, Severity::Warning, "version", message));
    }
    for part in &manifest.parts {
        if part.locale.is_none() {
            let message = if part.makes_its_database() {
                "the dump does not say with which locale its database is made: whether this machine has it is told by the restore"
            } else {
                "the dump makes no database: one is made for it, with UTF8 and the locale C.UTF-8; the source's may sort differently"
            };
            findings.push(finding(Some(&part.database), Severity::Info, "locale", message.to_owned()));
        }
        for extension in &part.extensions {
            let here = install.extensions.get(&extension.name).and_then(Option::as_deref);
            if let (Some(here), Some(source)) = (here, extension.version.as_deref())
                && here != source
            {
                let message = format!("version {here} is restored, the source had {source}");
                findings.push(finding(Some(&part.database), Severity::Info, &extension.name, message));
            }
        }
    }
    findings
}

/// A compressed dump holds no indexes: four times its size is what common databases need, and WAL comes on top, up to the
/// distance between two checkpoints.
fn disk_estimate(manifest: &Manifest) -> u64 {
    const EMPTY_CLUSTER: u64 = 64 << 20;
    const MAX_WAL: u64 = 2 << 30;
    let dumps: u64 = manifest.parts.iter().flat_map(|part| &part.files).map(|file| file.size).sum();
    let data = dumps.saturating_mul(4);
    EMPTY_CLUSTER.saturating_add(data).saturating_add(data.min(MAX_WAL))
}

fn unfit(message: impl Into<String>, advice: impl Into<String>) -> Stop {
    Stop::new(Reason::SandboxUnfit, message).advise(advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(major: u32) -> Install {
        Install {
            bin: format!("/usr/lib/postgresql/{major}/bin").into(),
            version: format!("{major}.3"),
            major,
            minor: 3,
            extensions: [("plpgsql".to_owned(), Some("1.0".to_owned()))].into(),
            options: Some(["icu".to_owned()].into()),
        }
    }

    fn manifest(major: u32, extension: &str, collate: &str) -> Manifest {
        let json = serde_json::json!({
            "version": 1, "kind": "logical", "name": "orders", "snapshotTime": "2026-11-22T02:15:00Z",
            "source": {"engine": "postgresql", "version": format!("{major}.1"), "versionNumber": major * 10_000 + 1,
                       "tool": format!("pg_dump (PostgreSQL) {major}.1")},
            "globals": null,
            "parts": [{"database": "orders", "format": "custom", "files": [], "baseline": null,
                "locale": {"encoding": "UTF8", "collate": collate, "ctype": "C", "provider": "libc"},
                "extensions": [{"name": extension, "version": "1.0", "schema": "pg_catalog"}]}],
        });
        serde_json::from_value(json).expect("a manifest")
    }

    fn wanted(major: Option<u32>) -> Postgresql {
        let fidelity = drill::spec::Fidelity::Production;
        Postgresql { major, jobs: 1, fidelity, settings: std::collections::BTreeMap::new() }
    }

    fn refusal(installs: &[Install], manifest: &Manifest, major: Option<u32>) -> (String, String) {
        let stop = plan(installs, manifest, &wanted(major)).err().expect("refused");
        assert_eq!(stop.reason, Reason::SandboxUnfit);
        (stop.message, stop.advice.expect("advice"))
    }

    #[test]
    fn the_backups_own_major_is_chosen() {
        let plan = plan(&[install(17), install(15)], &manifest(15, "plpgsql", "C"), &wanted(None)).expect("fits");
        assert_eq!(plan.note(), "PostgreSQL 15.3, 1 database, 1 extension");
        assert_eq!(plan.findings(), []);
        assert_eq!(plan.inputs().port, PORT);
    }

    /// Whoever comes from outside connects to an address, and checks that it is the certificate's.
    #[test]
    fn a_sandbox_with_an_address_gets_a_certificate_for_it() {
        let plan = plan(&[install(15)], &manifest(15, "plpgsql", "C"), &wanted(None)).expect("fits");
        let inputs = plan.inputs();
        let address = std::net::IpAddr::from([192, 0, 2, 7]);
        let others = (inputs.at_address.expect("some").0)(address).expect("made");
        let file = |files: &[InputFile], name: &str| {
            let found = files.iter().find(|file| file.name == name).expect(name);
            String::from_utf8(found.contents.clone()).expect("PEM")
        };
        let carries = |files: &[InputFile]| {
            use rustls::pki_types::pem::PemObject;
            let pem = file(files, "server.crt");
            let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
            // An address among the names of a certificate: its kind, its length, its bytes.
            der.windows(6).any(|bytes| bytes == [0x87, 4, 192, 0, 2, 7])
        };
        assert!(carries(&others) && !carries(&inputs.files));
        assert_ne!(file(&others, "server.key"), file(&inputs.files, "server.key"));
    }

    #[test]
    fn what_an_image_has_is_not_looked_for_on_this_machine() {
        let lacking = manifest(15, "pgcrypto", "xx_YY.UTF-8");
        let plan = plan_for_image(&lacking, &wanted(None)).expect("the restore tells what is missing");
        assert_eq!(plan.note(), "PostgreSQL 15, 1 database, 1 extension");
        assert_eq!(plan.inputs().programs, None);
        assert_eq!(plan_for_image(&lacking, &wanted(Some(17))).expect("a newer one").findings()[0].subject, "version");
        let stop = plan_for_image(&lacking, &wanted(Some(14))).err().expect("an older one");
        assert!(stop.message.contains("cannot be restored into PostgreSQL 14"), "{stop}");
    }

    #[test]
    fn a_newer_major_is_used_only_when_the_drill_names_it() {
        let (message, advice) = refusal(&[install(17)], &manifest(15, "plpgsql", "C"), None);
        assert_eq!(message, "PostgreSQL 15 is not installed here");
        assert!(advice.contains("apt-get install postgresql-15") && advice.contains("17"), "{advice}");
        let plan = plan(&[install(17)], &manifest(15, "plpgsql", "C"), &wanted(Some(17))).expect("named");
        assert_eq!(plan.findings()[0].severity, Severity::Warning);
    }

    #[test]
    fn what_is_missing_is_named_at_once_with_what_to_type() {
        let (message, advice) = refusal(&[install(15)], &manifest(15, "pgcrypto", "xx_YY.UTF-8"), None);
        assert!(message.contains("extension pgcrypto (database orders)"), "{message}");
        assert!(message.contains("locale xx_YY.UTF-8 (database orders)"), "{message}");
        assert!(advice.contains("apt-get install postgresql-15") && advice.contains("localedef"), "{advice}");
    }

    #[test]
    fn an_older_major_is_refused() {
        assert!(refusal(&[install(15)], &manifest(16, "plpgsql", "C"), Some(15)).0.contains("cannot be restored"));
        assert!(refusal(&[install(13)], &manifest(13, "plpgsql", "C"), None).0.contains("no read-only role"));
    }

    #[test]
    fn the_c_library_is_asked_about_locales() {
        assert!(is_locale("C"));
        assert!(is_locale("C.UTF-8"));
        assert!(!is_locale("xx_YY.UTF-8"));
        assert!(!is_locale("a\0b"));
    }
}
