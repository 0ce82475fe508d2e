//! Reads what a component imports and exports, without compiling or running it.
use std::collections::BTreeSet;

use drill::spec::Grant;
use wasmparser::{Encoding, Parser, Payload};

use crate::host::HostError;

/// Bytes of one component.
pub const MAX_COMPONENT: usize = 16 << 20;

/// What a language's runtime needs to start. The host gives stubs: no files, no sockets, no environment.
const RUNTIME: [&str; 6] = ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:io", "wasi:random", "wasi:sockets"];

/// What a component wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What a drill must grant.
    pub grants: BTreeSet<Grant>,
    /// Every import by its full name, such as `muster:check/sql@1.0.0`, in the component's order.
    pub imports: Vec<String>,
    /// Those of `imports` that are stubs for the language's runtime and give nothing.
    pub runtime_imports: Vec<String>,
}

/// An import as the contract sees it.
enum Kind {
    Free,
    Granted(Grant),
    Runtime,
}

/// Fails where the bytes are not a check plugin; names every import that nobody offers.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspection, HostError> {
    if bytes.len() > MAX_COMPONENT {
        return Err(HostError::TooLarge { size: bytes.len() });
    }
    let (imports, exports) = names(bytes)?;
    if !exports.iter().any(|name| interface(name) == Some("plugin")) {
        return Err(HostError::NotAPlugin { why: "it does not export muster:check/plugin@1.x".to_owned() });
    }
    let mut grants = BTreeSet::new();
    let mut runtime_imports = Vec::new();
    let mut foreign = Vec::new();
    for name in &imports {
        match kind(name) {
            Some(Kind::Free) => {}
            Some(Kind::Granted(grant)) => drop(grants.insert(grant)),
            Some(Kind::Runtime) => runtime_imports.push(name.clone()),
            None => foreign.push(name.clone()),
        }
    }
    if !foreign.is_empty() {
        return Err(HostError::ForeignImports { names: foreign });
    }
    Ok(Inspection { grants, imports, runtime_imports })
}

fn kind(name: &str) -> Option<Kind> {
    if let Some(interface) = interface(name) {
        return match interface {
            "values" | "context" | "report" => Some(Kind::Free),
            _ => Grant::ALL.into_iter().find(|grant| grant.as_str() == interface).map(Kind::Granted),
        };
    }
    let (package, rest) = name.split_once('/')?;
    let version = rest.split_once('@')?.1;
    (RUNTIME.contains(&package) && version.starts_with("0.2.")).then_some(Kind::Runtime)
}

/// `sql` of `muster:check/sql@1.0.0`: any version that is compatible with 1.0.
fn interface(name: &str) -> Option<&str> {
    let (interface, version) = name.strip_prefix("muster:check/")?.split_once('@')?;
    version.starts_with("1.").then_some(interface)
}

/// The names that the outermost component imports and exports.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), HostError> {
    let broken = |error: wasmparser::BinaryReaderError| HostError::NotAPlugin { why: error.to_string() };
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(broken)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                let why = "it is a core module, not a component; build it for wasm32-wasip2".to_owned();
                return Err(HostError::NotAPlugin { why });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(broken)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export.map_err(broken)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builtin_wants_what_it_uses_and_no_more() {
        let inspection = inspect(crate::builtin("row-count").expect("it is embedded")).expect("it is a plugin");
        assert_eq!(inspection.grants, BTreeSet::from([Grant::Sql, Grant::Baseline]));
        assert!(inspection.imports.contains(&"muster:check/sql@1.0.0".to_owned()), "{:?}", inspection.imports);
    }

    #[test]
    fn what_is_not_a_plugin_is_refused() {
        let why = |bytes: &[u8]| inspect(bytes).expect_err("refused").to_string();
        assert!(why(b"\0asm\x01\0\0\0").contains("core module"));
        assert!(why(b"\0asm\x0d\0\x01\0").contains("does not export muster:check/plugin"));
        assert!(why(b"\x7fELF").contains("not a check plugin"));
        assert!(why(b"").contains("not a check plugin"));
        assert!(why(&vec![0; MAX_COMPONENT + 1]).contains("at most 16777216"));
    }

    #[test]
    fn only_compatible_versions_are_known() {
        assert!(kind("muster:check/sql@1.2.3").is_some());
        assert!(kind("muster:check/sql@2.0.0").is_none());
        assert!(kind("muster:check/shell@1.0.0").is_none());
        assert!(kind("wasi:cli/stdout@0.2.6").is_some());
        assert!(kind("wasi:http/types@0.2.6").is_none());
        assert!(kind("wasi:cli/stdout@0.3.0").is_none());
    }
}
