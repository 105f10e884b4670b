//! Target `collection`: see `pedlar_fuzz::collection`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::collection(data));
