//! Drill files: raw, then checked. (being written)
