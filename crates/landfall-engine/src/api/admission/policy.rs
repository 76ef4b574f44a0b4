//! Validating admission policies: expressions in the Common Expression Language that a write must satisfy.
//!
//! Not handled: `authorizer` variables, whose functions no policy that is accepted calls, and audit annotations.

use std::sync::Arc;

use cel::{Context, Value as CelValue};
use serde_json::{Value, json};

use super::{Intent, Operation};
use crate::api::failure::{Failure, Subject};
use crate::api::{Call, Warnings};
use crate::scheme::Resource;
use crate::scheme::expression::{self, evaluate, from_json};
use crate::scheme::selector::LabelSelector;
use crate::store::{Collection, Key};

const GROUP: &str = "admissionregistration.k8s.io";

/// Refuses the write if a policy that is bound to it says so. The others are asked all the same: who is refused is warned too.
pub(crate) fn check(
    call: &Call<'_>,
    intent: Intent,
    new: Option<&Value>,
    old: Option<&Value>,
    warnings: &mut Warnings,
) -> Result<(), Failure> {
    let store = &call.state.store;
    let bindings = store.list(&Collection::new(GROUP, "validatingadmissionpolicybindings"), None).records;
    // Policies are not asked about themselves, so that a bad one can be taken away.
    if bindings.is_empty() || call.resource.group == GROUP {
        return Ok(());
    }
    let namespace = namespace_of(call);
    let request = Request { call, intent, new, old, namespace: &namespace };
    let mut refused = Ok(());
    for binding in &bindings {
        let binding = binding.value();
        let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
        let key = Key::new(&Collection::new(GROUP, "validatingadmissionpolicies"), "", name);
        let Some(policy) = store.get(&key) else { continue };
        let policy = policy.value();
        let matches = request.matches(&policy["spec"]["matchConstraints"])
            && (binding["spec"]["matchResources"].is_null() || request.selects(&binding["spec"]["matchResources"]));
        if matches {
            refused = refused.and(request.judge(&policy, &binding, warnings));
        }
    }
    refused
}

/// The namespace that a request writes into; null if it writes into none.
pub(super) fn namespace_of(call: &Call<'_>) -> Value {
    if !call.resource.namespaced {
        return Value::Null;
    }
    let key = Key::new(&Collection::new("", "namespaces"), "", &call.target.namespace);
    call.state.store.get(&key).map_or(Value::Null, |record| Value::clone(&record.value()))
}

/// A write, as rules and expressions see it.
pub(super) struct Request<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) intent: Intent,
    pub(super) new: Option<&'a Value>,
    pub(super) old: Option<&'a Value>,
    pub(super) namespace: &'a Value,
}

impl Request<'_> {
    pub(super) fn operation(&self) -> &'static str {
        match self.intent.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
        }
    }

    fn matches(&self, constraints: &Value) -> bool {
        let rules = |key: &str| constraints[key].as_array().cloned().unwrap_or_default();
        let exact = constraints["matchPolicy"] == "Exact";
        rules("resourceRules").iter().any(|rule| self.matches_rule(rule, exact))
            && !rules("excludeResourceRules").iter().any(|rule| self.matches_rule(rule, exact))
            && self.selects(constraints)
    }

    /// Whether a webhook is to be asked: by its rules, its selectors and its conditions.
    pub(super) fn concerns(&self, webhook: &Value) -> Result<bool, String> {
        let exact = webhook["matchPolicy"] == "Exact";
        let mut rules = webhook["rules"].as_array().into_iter().flatten();
        if !rules.any(|rule| self.matches_rule(rule, exact)) || !self.selects(webhook) {
            return Ok(false);
        }
        if webhook["matchConditions"].as_array().is_none_or(Vec::is_empty) {
            return Ok(true);
        }
        Self::applies(webhook, &self.context(&Value::Null))
    }

    /// The selectors of a match, and its rules if it has any.
    fn selects(&self, constraints: &Value) -> bool {
        let selected = |key: &str, object: &Value| {
            let selector = &constraints[key];
            selector.is_null()
                || LabelSelector::of_object(selector)
                    .is_some_and(|selector| selector.is_empty() || selector.matches(object))
        };
        let rules = constraints["resourceRules"].as_array();
        let exact = constraints["matchPolicy"] == "Exact";
        // A namespace is selected by its own labels.
        let namespace = if self.call.resource.plural == "namespaces" { self.object() } else { self.namespace };
        rules.is_none_or(|rules| rules.is_empty() || rules.iter().any(|rule| self.matches_rule(rule, exact)))
            && (namespace.is_null() || selected("namespaceSelector", namespace))
            && (selected("objectSelector", self.object())
                || self.old.is_some_and(|old| selected("objectSelector", old)))
    }

    pub(super) fn object(&self) -> &Value {
        self.new.or(self.old).unwrap_or(&Value::Null)
    }

    /// Whether a rule speaks of the request; unless `exact`, also by another version of the same objects.
    ///
    /// Not handled: expressions see the object in the version of the request and not in that of the rule.
    fn matches_rule(&self, rule: &Value, exact: bool) -> bool {
        let has = |key: &str, wanted: &str| {
            let list = rule[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).any(|item| item == "*" || item == wanted)
        };
        let target = self.call.target;
        let resource = &self.call.resource;
        let full = if target.subresource.is_empty() {
            resource.plural.clone()
        } else {
            format!("{}/{}", resource.plural, target.subresource)
        };
        let resources = rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str).any(|item| {
            item == full
                || item == "*/*"
                || (item == "*" && target.subresource.is_empty())
                || item.strip_suffix("/*").is_some_and(|plural| plural == resource.plural)
                || item.strip_prefix("*/").is_some_and(|sub| sub == target.subresource && !sub.is_empty())
        });
        let names = rule["resourceNames"].as_array().is_none_or(|names| {
            names.is_empty() || names.iter().any(|name| *name == self.object()["metadata"]["name"])
        });
        let same =
            |one: &&Arc<Resource>| one.collection == resource.collection && (!exact || Arc::ptr_eq(one, resource));
        let mut versions = self.call.scheme.resources().filter(same);
        let scope = match rule["scope"].as_str() {
            Some("Cluster") => !resource.namespaced,
            Some("Namespaced") => resource.namespaced,
            _ => true,
        };
        has("operations", self.operation())
            && versions.any(|one| has("apiGroups", &one.group) && has("apiVersions", &one.version))
            && resources
            && names
            && scope
    }

    /// The objects by which a binding sets its policy's parameters: one, several, or none at all.
    fn parameters(&self, policy: &Value, binding: &Value) -> Vec<Value> {
        let kind = &policy["spec"]["paramKind"];
        if kind.is_null() {
            return vec![Value::Null];
        }
        let version = kind["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let resource = self.call.scheme.by_kind(group, version, kind["kind"].as_str().unwrap_or_default());
        let Some(resource) = resource else { return Vec::new() };
        let reference = &binding["spec"]["paramRef"];
        let namespace = match reference["namespace"].as_str() {
            _ if !resource.namespaced => "",
            Some(namespace) => namespace,
            None => &self.call.target.namespace,
        };
        let collection = Collection::from(resource.collection.as_str());
        if let Some(name) = reference["name"].as_str() {
            let found = self.call.state.store.get(&Key::new(&collection, namespace, name));
            return found.map(|record| Value::clone(&record.value())).into_iter().collect();
        }
        let Some(selector) = LabelSelector::of_object(&reference["selector"]) else { return Vec::new() };
        let listed = self.call.state.store.list(&collection, Some(namespace)).records;
        let values = listed.iter().map(|record| record.value()).filter(|value| selector.matches(value));
        values.map(|value| Value::clone(&value)).collect()
    }

    fn judge(&self, policy: &Value, binding: &Value, warnings: &mut Warnings) -> Result<(), Failure> {
        let parameters = self.parameters(policy, binding);
        if parameters.is_empty() && binding["spec"]["paramRef"]["parameterNotFoundAction"] == "Deny" {
            let why =
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
            return Err(self.refusal(policy, binding, why, "Invalid"));
        }
        let ignores = policy["spec"]["failurePolicy"] == "Ignore";
        for parameter in parameters {
            let mut context = self.context(&parameter);
            match Self::applies(&policy["spec"], &context) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(_) if ignores => continue,
                Err(error) => return Err(self.refusal(policy, binding, &error, "Invalid")),
            }
            let variables = define(policy, &mut context);
            for validation in policy["spec"]["validations"].as_array().into_iter().flatten() {
                let expression = validation["expression"].as_str().unwrap_or_default();
                let problem = match variables.clone().and_then(|()| evaluate(expression, &context)) {
                    Ok(CelValue::Bool(true)) => continue,
                    Ok(CelValue::Bool(false)) => message(validation, expression, &context),
                    Ok(_) => format!("expression '{expression}' resulted in error: it is no bool"),
                    Err(_) if ignores => continue,
                    Err(error) => format!("expression '{expression}' resulted in error: {error}"),
                };
                let actions = binding["spec"]["validationActions"].as_array().cloned().unwrap_or_default();
                if actions.iter().any(|action| action == "Warn") {
                    warnings.add(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {problem}",
                        name(policy),
                        name(binding)
                    ));
                }
                if actions.iter().any(|action| action == "Deny") {
                    let reason = validation["reason"].as_str().unwrap_or("Invalid");
                    return Err(self.refusal(policy, binding, &problem, reason));
                }
            }
        }
        Ok(())
    }

    /// Whether the conditions of a policy or a webhook hold.
    fn applies(of: &Value, context: &Context<'_, '_>) -> Result<bool, String> {
        for condition in of["matchConditions"].as_array().into_iter().flatten() {
            match evaluate(condition["expression"].as_str().unwrap_or_default(), context)? {
                CelValue::Bool(true) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn context(&self, parameter: &Value) -> Context<'static, 'static> {
        let call = self.call;
        let resource = &call.resource;
        let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
        let resource = json!({"group": resource.group, "version": resource.version, "resource": resource.plural});
        let request = json!({
            "operation": self.operation(),
            "name": self.object()["metadata"]["name"], "namespace": call.target.namespace,
            "kind": kind, "resource": resource, "subResource": call.target.subresource,
            "requestKind": kind, "requestResource": resource, "requestSubResource": call.target.subresource,
            "userInfo": call.identity.user_info(), "dryRun": self.intent.dry_run,
        });
        let mut context = expression::context();
        let variables = [
            ("object", self.new.unwrap_or(&Value::Null)),
            ("oldObject", self.old.unwrap_or(&Value::Null)),
            ("request", &request),
            ("params", parameter),
            ("namespaceObject", self.namespace),
        ];
        for (name, value) in variables {
            context.add_variable_from_value(name, from_json(value));
        }
        context
    }

    fn refusal(&self, policy: &Value, binding: &Value, problem: &str, reason: &str) -> Failure {
        let object = self.object()["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!(
            "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {problem}",
            name(policy),
            name(binding)
        );
        let failure = Failure::forbidden(&Subject::resource(self.call.resource, object), &why);
        let (code, reason) = match reason {
            "Unauthorized" => (http::StatusCode::UNAUTHORIZED, "Unauthorized"),
            "Forbidden" => (http::StatusCode::FORBIDDEN, "Forbidden"),
            "RequestEntityTooLarge" => (http::StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            _ => (http::StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        };
        Failure { code, reason, ..failure }.because("", why, "")
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The policy's variables, each of which may use those before it.
fn define(policy: &Value, context: &mut Context<'_, '_>) -> Result<(), String> {
    let mut variables = std::collections::HashMap::new();
    context.add_variable_from_value("variables", CelValue::from(variables.clone()));
    for variable in policy["spec"]["variables"].as_array().into_iter().flatten() {
        let value = evaluate(variable["expression"].as_str().unwrap_or_default(), context)?;
        variables.insert(variable["name"].as_str().unwrap_or_default().to_owned(), value);
        context.add_variable_from_value("variables", CelValue::from(variables.clone()));
    }
    Ok(())
}

/// What the client is told: a text, the value of an expression, or the expression that failed.
fn message(validation: &Value, expression: &str, context: &Context<'_, '_>) -> String {
    if let Some(expression) = validation["messageExpression"].as_str()
        && let Ok(CelValue::String(text)) = evaluate(expression, context)
    {
        return text.to_string();
    }
    validation["message"].as_str().map_or_else(|| format!("failed expression: {expression}"), str::to_owned)
}
