//! Target `link`: see `pedlar_fuzz::link`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::link(data));
