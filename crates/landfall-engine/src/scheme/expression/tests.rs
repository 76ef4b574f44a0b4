//! Expressions with the answers that a real API server gave.

use super::*;

fn variables() -> BTreeMap<String, Type> {
    let item = Type::object([("a", Type::String)]);
    let object =
        Type::object([("n", Type::Int), ("l", Type::List(Box::new(item))), ("m", Type::Map(Box::new(Type::String)))]);
    BTreeMap::from([("self".to_owned(), object)])
}

fn check(source: &str, expected: Result<&str, &str>) {
    let found = super::check(source, &variables());
    let found = found.as_ref().map(Type::name).map_err(String::as_str);
    assert_eq!(found.as_ref().map(String::as_str).map_err(|wrong| *wrong), expected, "{source}");
}

#[test]
fn an_expression_has_the_type_of_what_it_gives() {
    check("self.n > 1", Ok("bool"));
    check("self.n > 1.0", Ok("bool"));
    check("self.n", Ok("int"));
    check("self.m.any == 'a'", Ok("bool"));
    check("self.l.exists(x, x.a == 'c')", Ok("bool"));
    check("self.l.map(x, x.a).size() > 1", Ok("bool"));
    check("self.n in [1, 2] && 'a' in self.m", Ok("bool"));
    check("type(self.n) == int", Ok("bool"));
    check("has(self.m.b) ? 'a' : 'b'", Ok("string"));
    check("optional.of(1).hasValue()", Ok("bool"));
    check("'a' + string(self.n)", Ok("string"));
}

#[test]
fn a_field_that_is_not_there_is_told_with_its_place() {
    check(
        "self.nothing > 1",
        Err("compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing > 1\n | ....^"),
    );
    check(
        "self.l.all(x, x.b == 'c')",
        Err("compilation failed: ERROR: <input>:1:16: undefined field 'b'\n | self.l.all(x, x.b == 'c')\n | \
             ...............^"),
    );
    check(
        "self.n.foo > 1",
        Err(
            "compilation failed: ERROR: <input>:1:7: type 'int' does not support field selection\n | self.n.foo > 1\n \
             | ......^",
        ),
    );
}

#[test]
fn a_name_that_nobody_has_declared_is_told_with_its_place() {
    check(
        "slf.n > 1",
        Err(
            "compilation failed: ERROR: <input>:1:1: undeclared reference to 'slf' (in container '')\n | slf.n > 1\n | ^",
        ),
    );
    check(
        "foo(self.n)",
        Err(
            "compilation failed: ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')\n | foo(self.n)\n \
             | ...^",
        ),
    );
}

#[test]
fn values_that_can_never_be_equal_are_not_compared() {
    check(
        "self.n == 'a'",
        Err("compilation failed: ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, \
             string)'\n | self.n == 'a'\n | .......^"),
    );
    check(
        "self.n ? true : false",
        Err("compilation failed: ERROR: <input>:1:8: found no matching overload for '_?_:_' applied to '(int, bool, \
             bool)'\n | self.n ? true : false\n | .......^"),
    );
}

#[test]
fn every_function_that_is_accepted_can_be_evaluated() {
    for function in functions::all() {
        assert!(function.examples.len() >= function.overloads.len(), "{} lacks an example", function.name);
        for example in function.examples {
            assert_eq!(super::check(example, &BTreeMap::new()), Ok(Type::Bool), "{example}");
            assert_eq!(evaluate(example, &context()), Ok(Value::Bool(true)), "{example}");
        }
    }
}

#[test]
fn a_function_takes_what_it_is_for() {
    check(
        "self.m.any.find(1) == ''",
        Err(
            "compilation failed: ERROR: <input>:1:16: found no matching overload for 'find' applied to 'string.(int)'\n \
             | self.m.any.find(1) == ''\n | ...............^",
        ),
    );
    check(
        "quantity('1') < quantity('2')",
        Err("compilation failed: ERROR: <input>:1:15: found no matching overload for '_<_' applied to \
             '(kubernetes.Quantity, kubernetes.Quantity)'\n | quantity('1') < quantity('2')\n | ..............^"),
    );
}

#[test]
fn what_this_engine_does_not_have_is_refused() {
    check(
        "self.l.transformList(i, x, x.a).size() == 1",
        Err("compilation failed: ERROR: <input>:1:21: this engine does not have the function 'transformList'\n | \
             self.l.transformList(i, x, x.a).size() == 1\n | ....................^"),
    );
}

#[test]
fn whole_numbers_of_json_are_added_to_those_of_an_expression() {
    let mut context = context();
    context.add_variable_from_value("self", from_json(&serde_json::json!({"n": 1, "f": 1.5})));
    assert_eq!(evaluate("self.n + 1 == 2 && self.f * 2.0 == 3.0", &context), Ok(Value::Bool(true)));
}

#[test]
fn what_cannot_be_read_is_a_syntax_error() {
    for source in ["object.(", "1 +", "self.n > "] {
        let wrong = super::check(source, &variables()).expect_err("it is no expression");
        assert!(wrong.starts_with("compilation failed: ERROR: <input>:1:"), "{wrong}");
        assert!(wrong.contains("Syntax error: "), "{wrong}");
    }
}
