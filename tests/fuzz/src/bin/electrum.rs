//! Target `electrum`: see `pedlar_fuzz::electrum`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::electrum(data));
