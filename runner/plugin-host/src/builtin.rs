//! The plugins that ship inside muster; `build.rs` takes them from where `make plugins` puts them.

/// Names that `plugin: builtin:…` takes.
pub const BUILTINS: &[&str] = &["checksum", "freshness", "row-count", "schema"];

/// The component of a builtin plugin.
pub fn builtin(name: &str) -> Option<&'static [u8]> {
    match name {
        "checksum" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/checksum.wasm"))),
        "freshness" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/freshness.wasm"))),
        "row-count" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/row_count.wasm"))),
        "schema" => Some(include_bytes!(concat!(env!("OUT_DIR"), "/schema.wasm"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_is_there() {
        assert!(BUILTINS.iter().all(|name| builtin(name).is_some()));
        assert_eq!(builtin("nothing"), None);
        assert_eq!(BUILTINS, drill::file::BUILTIN_PLUGINS, "what a drill file may name");
    }
}
