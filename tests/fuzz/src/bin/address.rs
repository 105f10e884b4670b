//! Target `address`: see `pedlar_fuzz::address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::address(data));
