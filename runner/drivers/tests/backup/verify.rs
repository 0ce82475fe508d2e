//! What the gate refuses.
