//! Target `session`: see `pedlar_fuzz::session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::session(data));
