//! Target `journal_rows`: see `pedlar_fuzz::journal_rows`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pedlar_fuzz::journal_rows(data));
