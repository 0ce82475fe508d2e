//! Which PostgreSQL majors are installed, and what each of them can do. Also serves `muster doctor`.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One installed server with its tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// The directory of `postgres`, `initdb`, `pg_ctl`, `psql` and `pg_restore`.
    pub bin: PathBuf,
    /// Such as `15.18`.
    pub version: String,
    pub major: u32,
    pub minor: u32,
    /// Name and default version of each extension that can be created.
    pub extensions: BTreeMap<String, Option<String>>,
    /// Of the build, such as `icu`, `lz4`, `zstd`, `libxml`. None where `pg_config` is missing: then nothing is known.
    pub options: Option<BTreeSet<String>>,
}

impl Install {
    pub fn program(&self, name: &str) -> String {
        self.bin.join(name).to_string_lossy().into_owned()
    }

    /// The installation's directory where it lies outside `/usr`, which every sandbox has.
    pub fn outside_usr(&self) -> Option<PathBuf> {
        let prefix = self.bin.parent()?;
        (!prefix.starts_with("/usr")).then(|| prefix.to_path_buf())
    }

    /// None where it cannot be known.
    pub fn has_option(&self, name: &str) -> Option<bool> {
        self.options.as_ref().map(|options| options.contains(name))
    }
}

const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_ctl", "psql", "pg_restore"];
/// Names in `configure`'s `--with-…` that decide whether a backup can be restored.
const OPTIONS: [&str; 7] = ["icu", "lz4", "zstd", "libxml", "openssl", "python", "perl"];

/// Every complete server under the usual places, newest first.
pub fn installs() -> Vec<Install> {
    let mut found: Vec<Install> = directories().iter().filter_map(|bin| examine(bin)).collect();
    found.sort_by_key(|install| std::cmp::Reverse((install.major, install.minor)));
    found
}

fn directories() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = children(Path::new("/usr/lib/postgresql"));
    places.extend(children(Path::new("/usr")).into_iter().filter(|path| named(path, "pgsql-")));
    places.extend(children(Path::new("/usr/local")).into_iter().filter(|path| named(path, "pgsql")));
    for place in children(Path::new("/opt")) {
        places.extend(children(&place));
        places.push(place);
    }
    places.sort();
    places.into_iter().map(|place| place.join("bin")).filter(|bin| bin.join("postgres").is_file()).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).take(1_000).collect()
}

fn named(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

fn examine(bin: &Path) -> Option<Install> {
    if !PROGRAMS.iter().all(|program| bin.join(program).is_file()) {
        return None;
    }
    let (version, major, minor) = parse_version(&output(&bin.join("postgres"), "--version")?)?;
    let options = output(&bin.join("pg_config"), "--configure").map(|text| parse_options(&text));
    let extensions = extension_directory(bin, major).map(|directory| extensions(&directory)).unwrap_or_default();
    Some(Install { bin: bin.to_path_buf(), version, major, minor, extensions, options })
}

fn output(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).env_clear().output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`, `17beta1`, `18devel`.
pub fn parse_version(text: &str) -> Option<(String, u32, u32)> {
    let version = text.split("(PostgreSQL) ").nth(1)?.split_whitespace().next()?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(version);
    let minor = version[major.len()..].strip_prefix('.').map(digits).unwrap_or_default();
    Some((version.to_owned(), major.parse().ok()?, minor.parse().unwrap_or(0)))
}

fn parse_options(configure: &str) -> BTreeSet<String> {
    let has = |name: &&&str| configure.contains(&format!("--with-{name}"));
    let mut options: BTreeSet<String> = OPTIONS.iter().filter(has).map(|name| (*name).to_owned()).collect();
    if configure.contains("--with-ssl=openssl") {
        options.insert("openssl".to_owned());
    }
    // From 16 on ICU is built in unless it was left out.
    if parse_without_icu(configure) {
        options.remove("icu");
    }
    options
}

fn parse_without_icu(configure: &str) -> bool {
    configure.contains("--without-icu")
}

fn extension_directory(bin: &Path, major: u32) -> Option<PathBuf> {
    let told = output(&bin.join("pg_config"), "--sharedir").map(|text| PathBuf::from(text.trim()).join("extension"));
    let prefix = bin.parent()?;
    let usual = [
        PathBuf::from(format!("/usr/share/postgresql/{major}/extension")),
        prefix.join("share/extension"),
        prefix.join("share/postgresql/extension"),
    ];
    told.into_iter().chain(usual).find(|directory| directory.is_dir())
}

fn extensions(directory: &Path) -> BTreeMap<String, Option<String>> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeMap::new() };
    let control_files = entries.flatten().map(|entry| entry.path()).filter(|path| {
        // `postgis--3.4.control` belongs to one version of an extension.
        path.extension().is_some_and(|extension| extension == "control") && !path.to_string_lossy().contains("--")
    });
    control_files
        .filter_map(|path| {
            let name = path.file_stem()?.to_string_lossy().into_owned();
            let version = fs::read_to_string(&path).ok().and_then(|text| default_version(&text));
            Some((name, version))
        })
        .collect()
}

fn default_version(control: &str) -> Option<String> {
    let line = control.lines().map(str::trim).find(|line| line.starts_with("default_version"))?;
    Some(line.split_once('=')?.1.trim().trim_matches('\'').to_owned())
}

/// What to type for a missing major, on the systems that most people have.
pub fn how_to_install(major: u32) -> String {
    format!(
        "install it: `apt-get install postgresql-{major}` (Debian, Ubuntu; where the release has another major, add the \
         repository of apt.postgresql.org first)"
    )
}

/// What to type for a missing extension.
pub fn how_to_install_extension(major: u32, name: &str) -> String {
    const CONTRIB: &str = "adminpack amcheck autoinc bloom btree_gin btree_gist citext cube dblink dict_int dict_xsyn \
         earthdistance file_fdw fuzzystrmatch hstore insert_username intagg intarray isn lo ltree moddatetime old_snapshot \
         pageinspect pg_buffercache pg_freespacemap pg_prewarm pg_stat_statements pg_surgery pg_trgm pg_visibility \
         pg_walinspect pgcrypto pgrowlocks pgstattuple postgres_fdw refint seg sslinfo tablefunc tcn tsm_system_rows \
         tsm_system_time unaccent uuid-ossp xml2";
    let package = match name {
        _ if CONTRIB.split_whitespace().any(|known| known == name) => format!("postgresql-{major}"),
        "plpython3u" => format!("postgresql-plpython3-{major}"),
        "plperl" | "plperlu" => format!("postgresql-plperl-{major}"),
        "pltcl" | "pltclu" => format!("postgresql-pltcl-{major}"),
        "vector" => format!("postgresql-{major}-pgvector"),
        _ if name.starts_with("postgis") => format!("postgresql-{major}-postgis-3"),
        _ => {
            let tail = name.strip_prefix("pg_").unwrap_or(name).replace('_', "-");
            return format!("`apt-cache search postgresql-{major}-{tail}` shows the package");
        }
    };
    format!("`apt-get install {package}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_releases_and_previews_are_read() {
        let release = parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n");
        assert_eq!(release, Some(("15.18".to_owned(), 15, 18)));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta2"), Some(("19beta2".to_owned(), 19, 0)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn the_distributions_server_is_found_with_its_extensions_and_options() {
        let installs = installs();
        let install = installs.first().expect("PostgreSQL is installed: see make setup");
        assert!(install.major >= 14, "{install:?}");
        assert!(install.extensions.contains_key("plpgsql"), "{install:?}");
        assert_eq!(install.outside_usr(), None);
    }

    #[test]
    fn what_to_type_names_the_package() {
        assert_eq!(how_to_install_extension(15, "pgcrypto"), "`apt-get install postgresql-15`");
        assert_eq!(how_to_install_extension(16, "vector"), "`apt-get install postgresql-16-pgvector`");
        assert!(how_to_install_extension(16, "pg_cron").contains("postgresql-16-cron"));
    }

    #[test]
    fn a_build_without_icu_is_told() {
        assert!(parse_options("'--with-icu' '--with-lz4' '--with-ssl=openssl'").contains("icu"));
        assert!(!parse_options("'--without-icu'").contains("icu"));
        assert_eq!(default_version("# x\ndefault_version = '1.3'\n"), Some("1.3".to_owned()));
    }
}
