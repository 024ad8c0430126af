//! bench library
