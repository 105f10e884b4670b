//! Target `account`: see `pedlar_fuzz::account`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::account(data));
