//! Target `records`: see `pedlar_fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::records(data));
