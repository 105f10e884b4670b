//! Target `book`: see `pedlar_fuzz::book`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::book(data));
