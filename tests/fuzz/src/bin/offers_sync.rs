//! Target `offers_sync`: see `pedlar_fuzz::offers_sync`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::offers_sync(data));
