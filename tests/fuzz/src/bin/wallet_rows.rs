//! Target `wallet_rows`: see `pedlar_fuzz::wallet_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::wallet_rows(data));
