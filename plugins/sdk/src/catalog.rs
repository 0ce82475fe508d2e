//! The schema as canonical objects, on both sides. The grant `catalog`.
use std::collections::VecDeque;

use crate::bindings::muster::check::catalog;
use crate::sql::Error;
pub use catalog::{Object, Side};

/// The objects of one side, sorted by the bytes of kind and identity.
pub fn read(side: Side) -> Result<Objects, Error> {
    Ok(Objects { open: catalog::read(side)?, page: VecDeque::new(), ended: false })
}

/// One object after the other; a page of them is held.
pub struct Objects {
    open: catalog::Objects,
    page: VecDeque<Object>,
    ended: bool,
}

impl Iterator for Objects {
    type Item = Result<Object, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        const PAGE: u32 = 500;
        if self.page.is_empty() && !self.ended {
            match self.open.next(PAGE) {
                Ok(page) => {
                    self.ended = page.is_empty();
                    self.page = page.into();
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        self.page.pop_front().map(Ok)
    }
}
