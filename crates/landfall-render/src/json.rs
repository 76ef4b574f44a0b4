//! `json!`, which moves the values that it is given.
//!
//! The macro of `serde_json` has the same grammar and copies every value through serde, so that an object that is put
//! together from parts is copied once for each level that a part lies deep. Here a [`Value`] is moved into its place,
//! and only what is not one yet goes through serde.

use serde::Serialize;
use serde_json::Value;

/// What is put into an object.
pub(crate) struct Part<T>(pub(crate) T);

/// Moves what is a value already. Method resolution looks here first, and at [`ByCopy`] when nothing fits.
pub(crate) trait ByMove {
    fn into_json(self) -> Value;
}

impl ByMove for Part<Value> {
    fn into_json(self) -> Value {
        self.0
    }
}

impl ByMove for Part<Option<Value>> {
    fn into_json(self) -> Value {
        self.0.unwrap_or(Value::Null)
    }
}

impl ByMove for Part<Vec<Value>> {
    fn into_json(self) -> Value {
        Value::Array(self.0)
    }
}

impl ByMove for Part<serde_json::Map<String, Value>> {
    fn into_json(self) -> Value {
        Value::Object(self.0)
    }
}

impl ByMove for Part<String> {
    fn into_json(self) -> Value {
        Value::String(self.0)
    }
}

/// Copies everything else through serde.
pub(crate) trait ByCopy {
    fn into_json(self) -> Value;
}

impl<T: Serialize> ByCopy for &Part<T> {
    fn into_json(self) -> Value {
        serde_json::to_value(&self.0).expect("what is rendered are texts, numbers, lists and maps with texts for keys")
    }
}

/// An object, a list or a single value, written as JSON with expressions in it.
macro_rules! json {
    (@fields $map:ident) => {};
    (@fields $map:ident $key:tt : null $(, $($rest:tt)*)?) => {
        $map.insert(::std::convert::Into::into($key), ::serde_json::Value::Null);
        $crate::json::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $map.insert(::std::convert::Into::into($key), $crate::json::json!({ $($inner)* }));
        $crate::json::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $map.insert(::std::convert::Into::into($key), $crate::json::json!([ $($inner)* ]));
        $crate::json::json!(@fields $map $($($rest)*)?);
    };
    (@fields $map:ident $key:tt : $value:expr $(, $($rest:tt)*)?) => {
        $map.insert(::std::convert::Into::into($key), $crate::json::json!($value));
        $crate::json::json!(@fields $map $($($rest)*)?);
    };
    (@items $list:ident) => {};
    (@items $list:ident null $(, $($rest:tt)*)?) => {
        $list.push(::serde_json::Value::Null);
        $crate::json::json!(@items $list $($($rest)*)?);
    };
    (@items $list:ident { $($inner:tt)* } $(, $($rest:tt)*)?) => {
        $list.push($crate::json::json!({ $($inner)* }));
        $crate::json::json!(@items $list $($($rest)*)?);
    };
    (@items $list:ident [ $($inner:tt)* ] $(, $($rest:tt)*)?) => {
        $list.push($crate::json::json!([ $($inner)* ]));
        $crate::json::json!(@items $list $($($rest)*)?);
    };
    (@items $list:ident $value:expr $(, $($rest:tt)*)?) => {
        $list.push($crate::json::json!($value));
        $crate::json::json!(@items $list $($($rest)*)?);
    };
    (null) => { ::serde_json::Value::Null };
    ({}) => { ::serde_json::Value::Object(::serde_json::Map::new()) };
    ([]) => { ::serde_json::Value::Array(::std::vec::Vec::new()) };
    ({ $($fields:tt)+ }) => {{
        let mut map = ::serde_json::Map::new();
        $crate::json::json!(@fields map $($fields)+);
        ::serde_json::Value::Object(map)
    }};
    ([ $($items:tt)+ ]) => {{
        let mut list = ::std::vec::Vec::new();
        $crate::json::json!(@items list $($items)+);
        ::serde_json::Value::Array(list)
    }};
    ($value:expr) => {{
        #[expect(unused_imports, reason = "one of the two is used, by what the value is")]
        use $crate::json::{ByCopy as _, ByMove as _};
        $crate::json::Part($value).into_json()
    }};
}
pub(crate) use json;
