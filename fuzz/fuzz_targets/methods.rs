//! See `warren_wire::fuzz_entry::methods`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| warren_wire::fuzz_entry::methods(data));
