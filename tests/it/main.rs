//! The end-to-end suites: one module per story.

mod wallet;
