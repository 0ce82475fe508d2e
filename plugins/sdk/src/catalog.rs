//! The schema as objects, sorted by the bytes of kind and identity: merge the two sides. The grant `catalog`.
pub use crate::bindings::muster::check::catalog::{Object, Side};
pub use crate::bindings::muster::check::values::Error;

/// One side, a page at a time. Fails where that side does not exist.
pub fn objects(side: Side) -> Result<impl Iterator<Item = Result<Object, Error>>, Error> {
    const PAGE: u32 = 500;
    let objects = crate::bindings::muster::check::catalog::read(side)?;
    let mut page = Vec::new().into_iter();
    Ok(std::iter::from_fn(move || {
        if page.len() == 0 {
            match objects.next(PAGE) {
                Ok(next) => page = next.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
        page.next().map(Ok)
    }))
}
