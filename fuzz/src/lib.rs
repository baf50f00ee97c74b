//! What every decoder of bytes that others wrote must do with any bytes at all.
//!
//! Each function of `checks` is a fuzz target; the corpus is replayed through the same functions
//! by an ordinary test of the crate `node`. No input is made here.

pub mod checks;
