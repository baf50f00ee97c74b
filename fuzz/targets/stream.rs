//! Fuzzes frames of the replication stream, both ways. What must hold is in `checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::checks::stream(bytes));
