//! `catalog` and `digest`: what the host reads and hashes at its own speed.
use std::sync::Arc;

use wasmtime::Result;
use wasmtime::component::Resource;

use super::{Guest, convert, page};
use crate::backend::{Objects, Scan, ScanOutcome, Side};
use crate::bindings::muster::check::{catalog, digest, values};
use crate::limits::{Limit, MAX_PAYLOAD};

/// The guest's end of one side of the schema.
#[expect(unreachable_pub, reason = "the generated bindings export it again, which takes `pub`")]
pub struct OpenObjects(Box<dyn Objects>);

/// The guest's end of a scan. Dropping it cancels; one that has ended left its place among the handles to its outcome.
#[expect(unreachable_pub, reason = "the generated bindings export it again, which takes `pub`")]
pub struct OpenScan(Option<Box<dyn Scan>>);

#[expect(unreachable_pub, reason = "the generated bindings export it again, which takes `pub`")]
pub struct FinishedScan(ScanOutcome);

impl Guest {
    pub(super) fn room_for_a_handle(&self) -> Result<()> {
        if self.handles >= self.limits.handles { Err(Limit::handles(&self.limits).into()) } else { Ok(()) }
    }
}

impl catalog::Host for Guest {
    async fn read(&mut self, side: catalog::Side) -> Result<Result<Resource<OpenObjects>, values::Error>> {
        self.room_for_a_handle()?;
        let catalog = Arc::clone(&self.backend()?.catalog);
        let side = match side {
            catalog::Side::Baseline => Side::Baseline,
            catalog::Side::Restored => Side::Restored,
        };
        match self.cpu.excuse(catalog.read(side)).await {
            Ok(objects) => {
                let handle = self.resources.push(OpenObjects(objects))?;
                self.handles += 1;
                Ok(Ok(handle))
            }
            Err(error) => Ok(Err(convert::error(error))),
        }
    }
}

impl catalog::HostObjects for Guest {
    async fn next(
        &mut self,
        objects: Resource<OpenObjects>,
        max: u32,
    ) -> Result<Result<Vec<catalog::Object>, values::Error>> {
        let cpu = self.cpu.clone();
        let objects = self.resources.get_mut(&objects)?;
        Ok(match cpu.excuse(objects.0.next(max.max(1), MAX_PAYLOAD / 2)).await {
            Ok(page) => Ok(page.into_iter().map(convert::object).collect()),
            Err(error) => Err(convert::error(error)),
        })
    }

    fn drop(&mut self, objects: Resource<OpenObjects>) -> Result<()> {
        self.resources.delete(objects)?;
        self.handles = self.handles.saturating_sub(1);
        Ok(())
    }
}

impl digest::Host for Guest {
    async fn start(&mut self, schema: String, name: String) -> Result<Result<Resource<OpenScan>, values::Error>> {
        self.room_for_a_handle()?;
        let digest = Arc::clone(&self.backend()?.digest);
        match self.cpu.excuse(digest.start(&schema, &name)).await {
            Ok(scan) => {
                let handle = self.resources.push(OpenScan(Some(scan)))?;
                self.handles += 1;
                Ok(Ok(handle))
            }
            Err(error) => Ok(Err(convert::error(error))),
        }
    }
}

impl digest::HostScan for Guest {
    fn poll(&mut self, scan: Resource<OpenScan>) -> Result<digest::Progress> {
        let seen = self.resources.get(&scan)?.0.as_ref().map(|scan| scan.progress()).unwrap_or_default();
        Ok(digest::Progress { rows: seen.rows, bytes: seen.bytes })
    }

    async fn finish(&mut self, scan: Resource<OpenScan>) -> Result<Result<Resource<FinishedScan>, values::Error>> {
        let Some(scan) = self.resources.get_mut(&scan)?.0.take() else { return Ok(Err(convert::finished_twice())) };
        match self.cpu.excuse(scan.finish()).await {
            Ok(outcome) => Ok(Ok(self.resources.push(FinishedScan(outcome))?)),
            Err(error) => {
                self.handles = self.handles.saturating_sub(1);
                Ok(Err(convert::error(error)))
            }
        }
    }

    fn drop(&mut self, scan: Resource<OpenScan>) -> Result<()> {
        if self.resources.delete(scan)?.0.is_some() {
            self.handles = self.handles.saturating_sub(1);
        }
        Ok(())
    }
}

impl digest::HostOutcome for Guest {
    fn rows(&mut self, outcome: Resource<FinishedScan>) -> Result<u64> {
        Ok(self.resources.get(&outcome)?.0.rows)
    }

    fn root(&mut self, outcome: Resource<FinishedScan>) -> Result<Vec<u8>> {
        Ok(self.resources.get(&outcome)?.0.root.map_or_else(Vec::new, Vec::from))
    }

    fn blocks(&mut self, outcome: Resource<FinishedScan>) -> Result<u64> {
        Ok(self.resources.get(&outcome)?.0.blocks)
    }

    fn blocks_different(&mut self, outcome: Resource<FinishedScan>) -> Result<u64> {
        Ok(self.resources.get(&outcome)?.0.blocks_different)
    }

    fn mismatches(&mut self, outcome: Resource<FinishedScan>, skip: u32, max: u32) -> Result<Vec<digest::Mismatch>> {
        let mismatches = &self.resources.get(&outcome)?.0.mismatches;
        Ok(page(mismatches, skip, max, convert::mismatch, |mismatch| {
            64 + mismatch.keys.as_ref().map_or(0, |(first, last)| first.len() + last.len())
        }))
    }

    fn drop(&mut self, outcome: Resource<FinishedScan>) -> Result<()> {
        self.resources.delete(outcome)?;
        self.handles = self.handles.saturating_sub(1);
        Ok(())
    }
}
