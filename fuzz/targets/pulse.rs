//! Fuzzes pulses of a farm. What must hold is in `checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::checks::pulse(bytes));
