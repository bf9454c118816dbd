//! Float adapter to integer adapter.
