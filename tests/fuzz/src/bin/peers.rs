//! Target `peers`: see `pedlar_fuzz::peers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::peers(data));
