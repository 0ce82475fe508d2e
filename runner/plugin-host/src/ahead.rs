//! Compiles the builtin plugins outside of any sandbox, before an agent needs them.
//!
//! It takes names, not components: the compiler never sees here what muster did not bring itself. Whatever else a drill names
//! is compiled by the agent, inside its sandbox.
use std::path::Path;

use drill::id::Sha256Digest;
use wasmtime::Engine;

use crate::builtin::builtin;
use crate::cache::Cache;
use crate::host::{HostError, engine_config};

/// Machine code for a processor like this one's, for [`crate::Host::load_compiled`] of the same build of muster.
pub struct Code {
    pub bytes: Vec<u8>,
    /// It was compiled before, by this user of this machine.
    pub cached: bool,
}

pub struct Compiler {
    engine: Engine,
    cache: Cache,
}

impl Compiler {
    /// Keeps what it compiles in a directory of its own, which nobody else may read or write.
    pub fn open(directory: &Path) -> Result<Self, HostError> {
        let engine = Engine::new(&engine_config()).map_err(|error| HostError::Setup(error.into()))?;
        match Cache::open(directory, &engine) {
            Ok(cache) => Ok(Self { engine, cache }),
            Err(source) => Err(HostError::Cache { path: directory.to_owned(), source }),
        }
    }

    /// None where there is no plugin of that name. Takes a large part of a second where the cache has nothing.
    pub fn builtin(&self, name: &str) -> Option<Result<Code, HostError>> {
        builtin(name).map(|component| self.code(component))
    }

    fn code(&self, component: &'static [u8]) -> Result<Code, HostError> {
        let digest = Sha256Digest::of(component);
        if let Some(bytes) = self.cache.load(&digest) {
            return Ok(Code { bytes, cached: true });
        }
        let bytes = self.engine.precompile_component(component).map_err(|error| HostError::compile(&error))?;
        self.cache.store(&digest, &bytes);
        Ok(Code { bytes, cached: false })
    }
}
