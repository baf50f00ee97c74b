//! Fuzzes requests of the kernel's FUSE protocol. What must hold is in `checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::checks::request(bytes));
