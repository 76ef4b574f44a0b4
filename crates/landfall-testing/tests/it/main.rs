//! The schemas, against real objects of real kinds.

mod schemas;
