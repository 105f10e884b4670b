//! Target `config`: see `pedlar_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::config(data));
