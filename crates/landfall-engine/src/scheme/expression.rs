//! Expressions in the Common Expression Language before they are run: do they compile, do they name what is there, and
//! what do they give?
//!
//! Types are followed as far as they are known. Not handled: the argument types of functions, the cost of an
//! expression, which Kubernetes limits, and the macros `transformList` and `transformMap`.

use std::collections::BTreeMap;

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators};
use cel::parser::Parser;

/// What is known of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Any,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    List(Box<Type>),
    /// From texts to values.
    Map(Box<Type>),
    Object(BTreeMap<String, Type>),
}

impl Type {
    pub(super) fn object<const N: usize>(fields: [(&str, Type); N]) -> Self {
        Self::Object(fields.into_iter().map(|(name, of)| (name.to_owned(), of)).collect())
    }

    /// As messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Any => "dyn".to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::Int => "int".to_owned(),
            Self::Uint => "uint".to_owned(),
            Self::Double => "double".to_owned(),
            Self::String => "string".to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Null => "null_type".to_owned(),
            Self::List(item) => format!("list({})", item.name()),
            Self::Map(value) => format!("map(string, {})", value.name()),
            Self::Object(_) => "object".to_owned(),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    fn is_scalar(&self) -> bool {
        self.is_number() || matches!(self, Self::Bool | Self::String | Self::Bytes)
    }

    /// Whether values of the two can be compared.
    fn meets(&self, other: &Self) -> bool {
        !self.is_scalar() || !other.is_scalar() || self == other || self.is_number() && other.is_number()
    }

    /// What a value of either is.
    fn joined(self, other: &Self) -> Self {
        if self == *other { self } else { Self::Any }
    }
}

/// Finds out what an expression gives; the error is what is wrong with it, as Kubernetes words it.
pub(super) fn check(source: &str, variables: &BTreeMap<String, Type>) -> Result<Type, String> {
    let (expression, places) =
        Parser::default().enable_optional_syntax(true).parse_with_source_info(source).map_err(|errors| {
            let first = errors.errors.first();
            let (line, column) = first.map_or((1, 1), |error| error.pos);
            let message = first.map(|error| error.msg.as_str()).unwrap_or_default();
            // The parser says so itself of some errors and not of others.
            let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
            told(source, line.unsigned_abs(), column.unsigned_abs(), &format!("Syntax error: {message}"))
        })?;
    let checker = Checker { places: &places };
    checker.infer(&expression, &Scope { variables, outer: None }).map_err(|(id, message)| {
        let (line, column) = checker.place(id);
        told(source, line, column, &message)
    })
}

/// Whether an expression that can be read names a variable.
pub(super) fn mentions(source: &str, variable: &str) -> bool {
    cel::Program::compile(source).is_ok_and(|program| program.references().has_variable(variable))
}

/// The message with the line and a mark below it.
fn told(source: &str, line: usize, column: usize, message: &str) -> String {
    let shown = source.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let mark = ".".repeat(column.saturating_sub(1));
    format!("compilation failed: ERROR: <input>:{line}:{column}: {message}\n | {shown}\n | {mark}^")
}

/// The node that is wrong, and how.
type Wrong = (u64, String);

/// Names that can be used, the innermost first.
struct Scope<'a> {
    variables: &'a BTreeMap<String, Type>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<&Type> {
        self.variables.get(name).or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

struct Checker<'a> {
    places: &'a SourceInfo,
}

impl Checker<'_> {
    /// Line and column, both from one.
    fn place(&self, id: u64) -> (usize, usize) {
        let start = self.places.offset_for(id).map_or(0, |(start, _)| start as usize);
        let before = self.places.source.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        (line, before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1)
    }

    fn infer(&self, node: &IdedExpr, scope: &Scope<'_>) -> Result<Type, Wrong> {
        match &node.expr {
            Expr::Unspecified => Ok(Type::Any),
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => match scope.get(name) {
                Some(known) => Ok(known.clone()),
                None if TYPES.contains(&name.as_str()) => Ok(Type::Any),
                None => Err((node.id, undeclared(name))),
            },
            Expr::Select(select) => self.select(node.id, select, scope),
            Expr::Call(call) => {
                let qualified = call.target.as_ref().is_some_and(|target| {
                    matches!(&target.expr, Expr::Ident(name)
                        if scope.get(name).is_none() && LIBRARIES.contains(&name.as_str()))
                });
                let target = match &call.target {
                    Some(target) if !qualified => Some(self.infer(target, scope)?),
                    _ => None,
                };
                let mut arguments = Vec::new();
                for argument in &call.args {
                    arguments.push(self.infer(argument, scope)?);
                }
                of_call(&call.func_name, target.as_ref(), &arguments).map_err(|message| (node.id, message))
            }
            Expr::List(list) => {
                let mut item: Option<Type> = None;
                for element in &list.elements {
                    let of = self.infer(element, scope)?;
                    item = Some(match item {
                        Some(item) => item.joined(&of),
                        None => of,
                    });
                }
                Ok(Type::List(Box::new(item.unwrap_or(Type::Any))))
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    self.entry(&entry.expr, scope)?;
                }
                Ok(Type::Map(Box::new(Type::Any)))
            }
            Expr::Struct(of) => {
                for entry in &of.entries {
                    self.entry(&entry.expr, scope)?;
                }
                Ok(Type::Any)
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, scope),
        }
    }

    fn entry(&self, entry: &EntryExpr, scope: &Scope<'_>) -> Result<(), Wrong> {
        match entry {
            EntryExpr::StructField(field) => self.infer(&field.value, scope).map(drop),
            EntryExpr::MapEntry(entry) => {
                self.infer(&entry.key, scope)?;
                self.infer(&entry.value, scope).map(drop)
            }
        }
    }

    fn select(&self, id: u64, select: &SelectExpr, scope: &Scope<'_>) -> Result<Type, Wrong> {
        let found = match self.infer(&select.operand, scope)? {
            Type::Any => Type::Any,
            Type::Map(value) => *value,
            Type::Object(mut fields) => {
                fields.remove(&select.field).ok_or_else(|| (id, format!("undefined field '{}'", select.field)))?
            }
            other => return Err((id, format!("type '{}' does not support field selection", other.name()))),
        };
        Ok(if select.test { Type::Bool } else { found })
    }

    /// What the macros over lists and maps become.
    fn comprehension(&self, of: &ComprehensionExpr, scope: &Scope<'_>) -> Result<Type, Wrong> {
        let (first, second) = match self.infer(&of.iter_range, scope)? {
            Type::List(item) if of.iter_var2.is_some() => (Type::Int, *item),
            Type::List(item) => (*item, Type::Any),
            Type::Map(value) => (Type::String, *value),
            Type::Object(_) => (Type::String, Type::Any),
            Type::Any => (Type::Any, Type::Any),
            other => {
                let message = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    other.name()
                );
                return Err((of.iter_range.id, message));
            }
        };
        let gathered = self.infer(&of.accu_init, scope)?;
        let mut names = BTreeMap::from([(of.iter_var.clone(), first), (of.accu_var.clone(), gathered)]);
        if let Some(name) = &of.iter_var2 {
            names.insert(name.clone(), second);
        }
        let inner = Scope { variables: &names, outer: Some(scope) };
        self.infer(&of.loop_cond, &inner)?;
        let stepped = self.infer(&of.loop_step, &inner)?;
        names.insert(of.accu_var.clone(), stepped);
        self.infer(&of.result, &Scope { variables: &names, outer: Some(scope) })
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

fn of_literal(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::UInt(_) => Type::Uint,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::String(_) => Type::String,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Null => Type::Null,
    }
}

fn of_call(name: &str, target: Option<&Type>, arguments: &[Type]) -> Result<Type, String> {
    let names = |types: &[&Type]| types.iter().map(|of| of.name()).collect::<Vec<_>>().join(", ");
    let misfit = |types: &[&Type]| format!("found no matching overload for '{name}' applied to '({})'", names(types));
    match (name, arguments) {
        (
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS,
            [left, right],
        ) => {
            if left.meets(right) {
                Ok(Type::Bool)
            } else {
                Err(misfit(&[left, right]))
            }
        }
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
            let fits = |of: &Type| matches!(of, Type::Any | Type::Bool);
            if fits(left) && fits(right) { Ok(Type::Bool) } else { Err(misfit(&[left, right])) }
        }
        (operators::LOGICAL_NOT, [of]) => match of {
            Type::Any | Type::Bool => Ok(Type::Bool),
            _ => Err(misfit(&[of])),
        },
        (operators::CONDITIONAL, [condition, yes, no]) => match condition {
            Type::Any | Type::Bool => Ok(yes.clone().joined(no)),
            _ => Err(misfit(&[condition, yes, no])),
        },
        (operators::ADD, [left, right]) => match (left, right) {
            (Type::List(_), Type::List(_)) if left != right => Ok(Type::List(Box::new(Type::Any))),
            _ if left == right => Ok(left.clone()),
            _ if left.is_scalar() && right.is_scalar() => Err(misfit(&[left, right])),
            _ => Ok(Type::Any),
        },
        (operators::INDEX, [Type::List(item), _]) => Ok(Type::clone(item)),
        (operators::INDEX, [Type::Map(value), _]) => Ok(Type::clone(value)),
        (operators::IN | operators::NOT_STRICTLY_FALSE, _) => Ok(Type::Bool),
        (
            operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO | operators::NEGATE,
            [first, ..],
        ) => Ok(if first.is_number() { first.clone() } else { Type::Any }),
        (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, _) => Ok(Type::Any),
        _ if CONDITIONS.contains(&name) => Ok(Type::Bool),
        ("size", _) | ("int", [_]) => Ok(Type::Int),
        ("string", [_]) | ("lowerAscii" | "upperAscii" | "trim" | "replace", _) => Ok(Type::String),
        ("dyn", _) => Ok(Type::Any),
        _ if FUNCTIONS.contains(&name) || target.is_some() && METHODS.contains(&name) => Ok(Type::Any),
        _ => Err(undeclared(name)),
    }
}

/// Types, which are values too.
const TYPES: [&str; 12] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type"];

/// What stands before the dot of functions that are not asked of a value.
const LIBRARIES: [&str; 8] = ["cidr", "format", "ip", "jsonpatch", "lists", "optional", "sets", "strings"];

/// Functions that say yes or no.
const CONDITIONS: [&str; 12] = [
    "bool",
    "contains",
    "endsWith",
    "hasValue",
    "isCIDR",
    "isIP",
    "isQuantity",
    "isSemver",
    "isSorted",
    "isURL",
    "matches",
    "startsWith",
];

/// Functions of the language and of what Kubernetes adds to it, whose type is not followed.
const FUNCTIONS: [&str; 18] = [
    "bytes",
    "cidr",
    "double",
    "duration",
    "equivalent",
    "intersects",
    "ip",
    "named",
    "none",
    "of",
    "ofNonZeroValue",
    "quantity",
    "range",
    "semver",
    "timestamp",
    "type",
    "uint",
    "url",
];

/// What can be asked of a value beside that.
const METHODS: [&str; 81] = [
    "add",
    "allowed",
    "asApproximateFloat",
    "asInteger",
    "charAt",
    "check",
    "compareTo",
    "containsCIDR",
    "containsIP",
    "distinct",
    "error",
    "errored",
    "escapeKey",
    "family",
    "fieldSelector",
    "find",
    "findAll",
    "first",
    "flatten",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "group",
    "indexOf",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isUnspecified",
    "join",
    "labelSelector",
    "last",
    "lastIndexOf",
    "major",
    "masked",
    "max",
    "min",
    "minor",
    "name",
    "namespace",
    "optFlatMap",
    "optMap",
    "or",
    "orValue",
    "patch",
    "path",
    "prefixLength",
    "quote",
    "reason",
    "resource",
    "reverse",
    "serviceAccount",
    "sign",
    "slice",
    "sort",
    "sortBy",
    "split",
    "sub",
    "subresource",
    "substring",
    "sum",
    "validate",
    "value",
];

#[cfg(test)]
mod tests;
