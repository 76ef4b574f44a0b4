//! Who applies a Deployment from Git beside releases, and whether that puts back what a release brings.
//!
//! Argo CD says on each object to which application it belongs
//! (<https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/>). Not handled: objects that it marks by a label alone, which
//! others set, too; other controllers.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use landfall_model::{ARGOCD_NAMESPACE, ARGOCD_TRACKING};
use serde_json::Value;

use super::{ClusterError, During as _, MANAGER, if_there, is_status};

/// What speaks against a release of what somebody applies from Git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Objection {
    /// It would be undone while it is under way.
    Refusal(String),
    /// It may be undone later.
    Note(String),
}

/// What an application of Argo CD does to releases of a Deployment, if it belongs to one and that is not nothing.
pub(crate) async fn objection(client: &Client, deployment: &Deployment) -> Result<Option<Objection>, ClusterError> {
    let Some(tracking) = deployment.annotations().get(ARGOCD_TRACKING) else { return Ok(None) };
    let (namespace, name) = application_of(tracking);
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("argoproj.io", "v1alpha1", "Application"));
    let applications = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
    let found = match applications.get(name).await {
        Err(error) if is_status(&error, 403) => {
            let why = "whoever ships may not read it";
            return Ok(Some(Objection::Note(format!(
                "whether the Argo CD application `{name}` puts back what a release brings is not known: {why}"
            ))));
        }
        found => if_there(found).during(|| format!("read the application `{name}`"))?,
    };
    let deployed_in = deployment.namespace().unwrap_or_default();
    Ok(found.and_then(|found| judge(name, &found.data["spec"], &deployed_in, &deployment.name_any())))
}

/// `argocd` and `shop` of `shop:apps/Deployment:shop/web`; one of another namespace is `teams_shop`.
fn application_of(tracking: &str) -> (&str, &str) {
    let name = tracking.split(':').next().unwrap_or_default();
    name.split_once('_').unwrap_or((ARGOCD_NAMESPACE, name))
}

/// What an application with this `spec` does to the pod template of a Deployment that is not the repository's.
fn judge(application: &str, spec: &Value, namespace: &str, deployment: &str) -> Option<Objection> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is = |rule: &Value, field: &str, own: &str| rule[field].as_str().is_none_or(|wanted| wanted == own);
    let matches = |rule: &Value, field: &str, own: &str| rule[field] == own || rule[field] == "*";
    let leaves = |rule: &Value| {
        let pointers = list(&rule["jsonPointers"]);
        let managers = list(&rule["managedFieldsManagers"]);
        matches(rule, "group", "apps")
            && matches(rule, "kind", "Deployment")
            && is(rule, "namespace", namespace)
            && is(rule, "name", deployment)
            && (pointers.iter().any(|pointer| pointer == "/spec/template") || managers.iter().any(|own| own == MANAGER))
    };
    let is_left = list(&spec["ignoreDifferences"]).iter().any(leaves);
    let options = spec.pointer("/syncPolicy/syncOptions").map(list).unwrap_or_default();
    let respected = options.iter().any(|option| option == "RespectIgnoreDifferences=true");
    if is_left && respected {
        return None;
    }
    let mend = "bring Argo CD what `landfall render argocd` writes, which leaves it alone";
    let heals = spec.pointer("/syncPolicy/automated/selfHeal") == Some(&Value::Bool(true));
    Some(if heals && !is_left {
        Objection::Refusal(format!(
            "the Argo CD application `{application}` puts back what a release brings to `{deployment}` while that is under way: {mend}, or switch its `selfHeal` off"
        ))
    } else {
        Objection::Note(format!(
            "the next sync of the Argo CD application `{application}` puts back what a release brings to `{deployment}`: {mend}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_application_is_named_by_what_its_objects_are_marked_with() {
        assert_eq!(application_of("shop:apps/Deployment:shop/web"), ("argocd", "shop"));
        assert_eq!(application_of("teams_shop:apps/Deployment:shop/web"), ("teams", "shop"));
    }

    #[test]
    fn what_is_rendered_leaves_releases_alone_and_what_heals_itself_does_not() {
        let of = |ignored: Value, policy: Value| {
            judge("shop", &json!({ "ignoreDifferences": ignored, "syncPolicy": policy }), "shop", "web")
        };
        let respects =
            || json!({ "automated": { "selfHeal": true }, "syncOptions": ["RespectIgnoreDifferences=true"] });
        let template = || json!([{ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/template"] }]);
        let manager = json!([{ "group": "*", "kind": "*", "managedFieldsManagers": ["landfall-ship"] }]);
        assert_eq!(of(template(), respects()), None);
        assert_eq!(of(manager, respects()), None);

        let other =
            json!([{ "group": "apps", "kind": "Deployment", "name": "stock", "jsonPointers": ["/spec/template"] }]);
        let replicas = json!([{ "group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"] }]);
        for ignored in [Value::Null, other, replicas] {
            assert!(matches!(of(ignored.clone(), respects()), Some(Objection::Refusal(_))), "{ignored}");
        }
        let heals = json!({ "automated": { "selfHeal": true } });
        let later = [(template(), heals), (Value::Null, json!({ "automated": {} })), (Value::Null, Value::Null)];
        for (ignored, policy) in later {
            assert!(matches!(of(ignored, policy.clone()), Some(Objection::Note(_))), "{policy}");
        }
    }
}
