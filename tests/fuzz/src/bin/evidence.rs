//! Target `evidence`: see `pedlar_fuzz::evidence`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::evidence(data));
