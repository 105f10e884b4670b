//! Target `seed`: see `pedlar_fuzz::seed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::seed(data));
