//! Target `paper`: see `pedlar_fuzz::paper`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::paper(data));
