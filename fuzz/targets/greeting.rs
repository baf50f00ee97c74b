//! Fuzzes greetings, heartbeats and the witness's messages. What must hold is in `checks`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| evenkeel_fuzz::checks::greeting(bytes));
