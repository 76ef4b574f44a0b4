//! Tests.
use landfall_engine as _;
