//! The functions that expressions may call: one table, by which expressions are checked and evaluated.
//!
//! Not handled: what [`ABSENT`] names; an expression that calls one of them is refused when it is written.

mod kubernetes;
mod language;

use std::sync::{Arc, LazyLock};

use cel::common::functions::Function as Implementation;
use cel::common::types;
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError, Value, extensions};

use super::extra::Extra;

/// What a parameter or a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scheme) enum Sort {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Timestamp,
    List,
    Map,
    Optional,
    /// Of a type of [`Extra`].
    Quantity,
    Url,
    Address,
    Network,
    Version,
    Format,
    /// A result: of the type of the value that was asked.
    Same,
    /// A result: of the type of the items of the value that was asked.
    Item,
}

/// How a function is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// `name(…)`
    Plain,
    /// `library.name(…)`
    In(&'static str),
    /// `value.name(…)`; the value is the first parameter.
    Of,
}

/// What a function takes, what it gives, and who does it: none is the `cel` crate.
pub(super) type Overload = (&'static [Sort], Sort, Option<Implementation>);

pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) how: How,
    pub(super) overloads: &'static [Overload],
    /// Expressions that hold, at least one for each overload.
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    pub(super) examples: &'static [&'static str],
}

/// Functions in plain values, for which [`here`] makes what the `cel` crate calls.
type PlainFunction = fn(&[Value]) -> Result<Value, String>;

/// Makes an implementation from a function in plain values.
macro_rules! here {
    ($function:path) => {{
        fn called<'b, 'v>(
            arguments: Vec<cel::common::value::CowVal<'b, 'v>>,
        ) -> Result<cel::common::value::CowVal<'b, 'v>, cel::ExecutionError> {
            $crate::scheme::expression::functions::call(stringify!($function), $function, &arguments)
        }
        Some(called as cel::common::functions::Function)
    }};
}
pub(super) use here;

fn call<'b, 'v>(
    name: &str,
    function: PlainFunction,
    arguments: &[CowVal<'b, 'v>],
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let values = arguments.iter().map(|argument| Value::try_from(argument.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let name = name.rsplit("::").next().unwrap_or(name).trim();
    let given = function(&values).map_err(|why| ExecutionError::function_error(name, why))?;
    let given: Box<dyn Val> = <Box<dyn Val>>::try_from(given)?;
    Ok(CowVal::Owned(given))
}

/// Where expressions are compiled and evaluated.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::stdlib();
    environment.add_extension(extensions::strings).expect("the names of the libraries differ");
    environment.add_extension(extensions::lists).expect("the names of the libraries differ");
    for function in all() {
        register(&mut environment, function);
    }
    Arc::new(environment)
});

pub(super) fn environment() -> &'static Arc<Env> {
    &ENVIRONMENT
}

/// Adds what is done here of a function.
fn register(environment: &mut Env, function: &Function) {
    let name = match function.how {
        How::In(library) => format!("{library}.{}", function.name),
        How::Plain | How::Of => function.name.to_owned(),
    };
    for (parameters, _, implementation) in function.overloads {
        let Some(implementation) = *implementation else { continue };
        let id = format!("{:?} {name} {parameters:?}", function.how);
        let mut types: Vec<_> = parameters.iter().map(|sort| sort.declared()).collect();
        let added = if function.how == How::Of {
            let target = types.remove(0);
            environment.add_member_overload(&name, &id, target, types, implementation)
        } else {
            environment.add_overload(&name, &id, types, implementation)
        };
        added.expect("each overload is in the table once");
    }
}

impl Sort {
    /// As the `cel` crate has it.
    fn declared(self) -> types::Type {
        match self {
            Self::Any | Self::Same | Self::Item => types::DYN_TYPE,
            Self::Bool => types::BOOL_TYPE,
            Self::Int => types::INT_TYPE,
            Self::Uint => types::UINT_TYPE,
            Self::Double => types::DOUBLE_TYPE,
            Self::Text => types::STRING_TYPE,
            Self::Bytes => types::BYTES_TYPE,
            Self::Duration => types::DURATION_TYPE,
            Self::Timestamp => types::TIMESTAMP_TYPE,
            Self::List => types::LIST_TYPE,
            Self::Map => types::MAP_TYPE,
            Self::Optional => types::OPTIONAL_TYPE,
            Self::Quantity | Self::Url | Self::Address | Self::Network | Self::Version | Self::Format => {
                types::Type::new_opaque_type(self.name())
            }
        }
    }

    /// As messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Any | Self::Same | Self::Item => "dyn",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List => "list",
            Self::Map => "map",
            Self::Optional => "optional_type",
            Self::Quantity => Extra::QUANTITY,
            Self::Url => Extra::URL,
            Self::Address => Extra::ADDRESS,
            Self::Network => Extra::NETWORK,
            Self::Version => Extra::VERSION,
            Self::Format => Extra::FORMAT,
        }
    }
}

/// Every function that can be called.
pub(super) fn all() -> impl Iterator<Item = &'static Function> {
    language::FUNCTIONS.iter().chain(kubernetes::FUNCTIONS)
}

/// The function that a call names.
pub(super) fn find(name: &str, how: How) -> Option<&'static Function> {
    all().find(|function| function.name == name && function.how == how)
}

/// How a function is called of a library, if there is one of that name.
pub(super) fn library(name: &str) -> Option<How> {
    all().map(|function| function.how).find(|how| matches!(how, How::In(library) if *library == name))
}

/// Functions that Kubernetes has and this engine has not: the authorizer, patches, and macros with two variables.
pub(super) const ABSENT: [&str; 23] = [
    "all",
    "allowed",
    "check",
    "errored",
    "error",
    "escapeKey",
    "exists",
    "existsOne",
    "exists_one",
    "fieldSelector",
    "group",
    "labelSelector",
    "name",
    "namespace",
    "path",
    "reason",
    "resource",
    "serviceAccount",
    "subresource",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "unwrapOpt",
];
