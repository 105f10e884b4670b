//! Target `request`: see `pedlar_fuzz::request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::request(data));
