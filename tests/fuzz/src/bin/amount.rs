//! Target `amount`: see `pedlar_fuzz::amount`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::amount(data));
