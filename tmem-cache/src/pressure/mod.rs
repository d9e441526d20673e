//! How much memory the store may have just now.
