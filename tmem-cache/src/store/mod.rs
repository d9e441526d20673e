//! The store: pools of chunks under handles.
