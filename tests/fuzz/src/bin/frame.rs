//! Target `frame`: see `pedlar_fuzz::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::frame(data));
