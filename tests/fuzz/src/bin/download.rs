//! Target `download`: see `pedlar_fuzz::download`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::download(data));
