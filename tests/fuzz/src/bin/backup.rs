//! Target `backup`: see `pedlar_fuzz::backup`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::backup(data));
