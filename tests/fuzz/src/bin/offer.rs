//! Target `offer`: see `pedlar_fuzz::offer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::offer(data));
