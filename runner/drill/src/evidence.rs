//! Evidence. (being written)
