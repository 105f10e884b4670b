//! Target `reminder`: see `pedlar_fuzz::reminder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::reminder(data));
