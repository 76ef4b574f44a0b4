//! Expressions in the Common Expression Language: do they compile, do they name what is there, what do they give, and
//! what is their value?
//!
//! Types are followed as far as they are known. Not handled: the cost of an expression, which Kubernetes limits.

mod addresses;
mod amounts;
mod extra;
mod functions;
mod texts;

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};
use cel::{Context, Value};

pub(crate) use self::extra::from_json;
use self::functions::{Function, How, Overload, Sort};

/// What a function says of arguments that it cannot have got.
const MISFIT: &str = "the arguments are of other types";

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
    /// A time, or of a type that Kubernetes adds to the language.
    Special(Sort),
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
            Self::Special(sort) => sort.name().to_owned(),
        }
    }

    /// Of what a function gives; `first` is its first argument.
    fn of_sort(sort: Sort, first: Option<&Self>) -> Self {
        match (sort, first) {
            (Sort::Bool, _) => Self::Bool,
            (Sort::Int, _) => Self::Int,
            (Sort::Uint, _) => Self::Uint,
            (Sort::Double, _) => Self::Double,
            (Sort::Text, _) => Self::String,
            (Sort::Bytes, _) => Self::Bytes,
            (Sort::List, _) => Self::List(Box::new(Self::Any)),
            (Sort::Map, _) => Self::Map(Box::new(Self::Any)),
            (Sort::Same, Some(first)) => first.clone(),
            (Sort::Item, Some(Self::List(item))) => Self::clone(item),
            (Sort::Any | Sort::Optional | Sort::Same | Sort::Item, _) => Self::Any,
            (special, _) => Self::Special(special),
        }
    }

    /// Whether a value can be a parameter.
    fn fits(&self, parameter: Sort) -> bool {
        match (self, parameter) {
            (Self::Any, _) | (_, Sort::Any) => true,
            (Self::Special(sort), _) => *sort == parameter,
            (Self::Bool, Sort::Bool)
            | (Self::Int, Sort::Int)
            | (Self::Uint, Sort::Uint)
            | (Self::Double, Sort::Double)
            | (Self::String, Sort::Text)
            | (Self::Bytes, Sort::Bytes)
            | (Self::List(_), Sort::List)
            | (Self::Map(_) | Self::Object(_), Sort::Map) => true,
            _ => false,
        }
    }

    /// Whether only functions can do something with a value, and no operator but equality.
    fn is_closed(&self) -> bool {
        matches!(self, Self::Special(sort) if !matches!(sort, Sort::Duration | Sort::Timestamp))
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
    let parser = functions::environment().parser();
    let (expression, places) = parser.parse_with_source_info(source).map_err(|errors| {
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
    functions::environment().compile(source).is_ok_and(|program| program.references().has_variable(variable))
}

/// A place without variables in which every expression that passed its check can be evaluated.
pub(crate) fn context<'v>() -> Context<'static, 'v> {
    Context::with_env(Arc::clone(functions::environment()))
}

/// The value of an expression.
pub(crate) fn evaluate(source: &str, context: &Context<'_, '_>) -> Result<Value, String> {
    let program = functions::environment().compile(source).map_err(|error| error.to_string())?;
    program.execute(context).map_err(|error| error.to_string())
}

/// The value of a text that the language reads with one of its functions, such as `timestamp`.
pub(super) fn read(function: &str, text: &str) -> Result<Value, String> {
    let mut context = context();
    context.add_variable_from_value("text", text);
    evaluate(&format!("{function}(text)"), &context)
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
            Expr::Call(call) => self.call(node.id, call, scope),
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

    fn call(&self, id: u64, call: &CallExpr, scope: &Scope<'_>) -> Result<Type, Wrong> {
        let name = call.func_name.as_str();
        let library = call.target.as_ref().and_then(|target| match &target.expr {
            Expr::Ident(name) if scope.get(name).is_none() => functions::library(name),
            _ => None,
        });
        let how = library.unwrap_or(if call.target.is_some() { How::Of } else { How::Plain });
        let function = functions::find(name, how);
        if function.is_none() && functions::ABSENT.contains(&name) {
            return Err((id, format!("this engine does not have the function '{name}'")));
        }
        let mut types = Vec::new();
        if let (Some(target), None) = (&call.target, library) {
            types.push(self.infer(target, scope)?);
        }
        for argument in &call.args {
            types.push(self.infer(argument, scope)?);
        }
        let found = match function {
            Some(function) => of_function(function, &types),
            None => of_operator(name, &types),
        };
        found.map_err(|message| (id, message))
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

/// What a function gives for arguments of some types.
fn of_function(function: &Function, types: &[Type]) -> Result<Type, String> {
    let fits = |(parameters, ..): &&Overload| {
        parameters.len() == types.len() && types.iter().zip(*parameters).all(|(of, parameter)| of.fits(*parameter))
    };
    let overloads = function.overloads.iter().filter(fits);
    let mut given = overloads.map(|(_, gives, _)| Type::of_sort(*gives, types.first()));
    let first = given.next().ok_or_else(|| misfit(function.name, function.how, types))?;
    Ok(given.fold(first, |one, other| one.joined(&other)))
}

fn misfit(name: &str, how: How, types: &[Type]) -> String {
    let names: Vec<_> = types.iter().map(Type::name).collect();
    let shown = match names.split_first() {
        Some((first, rest)) if how == How::Of => format!("{first}.({})", rest.join(", ")),
        _ => format!("({})", names.join(", ")),
    };
    format!("found no matching overload for '{name}' applied to '{shown}'")
}

fn of_operator(name: &str, arguments: &[Type]) -> Result<Type, String> {
    let misfit = || misfit(name, How::Plain, arguments);
    let compares = matches!(name, operators::EQUALS | operators::NOT_EQUALS | operators::CONDITIONAL);
    if name.starts_with('_') && !compares && arguments.iter().any(Type::is_closed) {
        return Err(misfit());
    }
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
                Err(misfit())
            }
        }
        (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
            let fits = |of: &Type| matches!(of, Type::Any | Type::Bool);
            if fits(left) && fits(right) { Ok(Type::Bool) } else { Err(misfit()) }
        }
        (operators::LOGICAL_NOT, [of]) => match of {
            Type::Any | Type::Bool => Ok(Type::Bool),
            _ => Err(misfit()),
        },
        (operators::CONDITIONAL, [condition, yes, no]) => match condition {
            Type::Any | Type::Bool => Ok(yes.clone().joined(no)),
            _ => Err(misfit()),
        },
        (operators::ADD, [left, right]) => match (left, right) {
            (Type::List(_), Type::List(_)) if left != right => Ok(Type::List(Box::new(Type::Any))),
            _ if left == right => Ok(left.clone()),
            _ if left.is_scalar() && right.is_scalar() => Err(misfit()),
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
        _ => Err(undeclared(name)),
    }
}

/// Types, which are values too.
const TYPES: [&str; 12] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type"];

#[cfg(test)]
mod tests;
