//! The custom resources that the gateway reads: of the Gateway API (<https://gateway-api.sigs.k8s.io/reference/spec/>), and
//! the few of Traefik and cert-manager that say what no portable object says.
//!
//! Their definitions may be permissive, so a `spec` is taken as it is and understood apart: one object that nobody
//! understands must not hide the others, as it would if it failed the watch.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// A part of an object that is understood, or not.
#[derive(Debug, Clone)]
pub(crate) enum Told<T> {
    Understood(T),
    Garbled,
}

impl<T> Told<T> {
    pub(crate) fn get(&self) -> Option<&T> {
        match self {
            Self::Understood(value) => Some(value),
            Self::Garbled => None,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Told<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(serde_json::from_value(value).map_or(Self::Garbled, Self::Understood))
    }
}

/// Caches ask for it; the gateway never sends an object back, it patches.
impl<T> Serialize for Told<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// Declares a custom resource by its group, version, plural name and spec.
macro_rules! custom_resources {
    ($($(#[$doc:meta])* $kind:ident($spec:ty) = $group:literal, $version:literal, $plural:literal, $scope:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        pub(crate) struct $kind {
            pub(crate) metadata: ObjectMeta,
            pub(crate) spec: Told<$spec>,
            #[serde(default)]
            pub(crate) status: Value,
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($kind).into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )*};
}

type Namespaced = k8s_openapi::NamespaceResourceScope;
type ClusterWide = k8s_openapi::ClusterResourceScope;

custom_resources! {
    GatewayClass(GatewayClassSpec) = "gateway.networking.k8s.io", "v1", "gatewayclasses", ClusterWide;
    Gateway(GatewaySpec) = "gateway.networking.k8s.io", "v1", "gateways", Namespaced;
    HTTPRoute(HttpRouteSpec) = "gateway.networking.k8s.io", "v1", "httproutes", Namespaced;
    ReferenceGrant(ReferenceGrantSpec) = "gateway.networking.k8s.io", "v1beta1", "referencegrants", Namespaced;
    /// Of Traefik: the rate limits.
    Middleware(MiddlewareSpec) = "traefik.io", "v1alpha1", "middlewares", Namespaced;
    /// Of cert-manager: which Secrets somebody promises to fill.
    Certificate(CertificateSpec) = "cert-manager.io", "v1", "certificates", Namespaced;
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayClassSpec {
    pub(crate) controller_name: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: String,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerSpec {
    pub(crate) name: String,
    pub(crate) hostname: Option<String>,
    pub(crate) port: u16,
    pub(crate) protocol: String,
    pub(crate) tls: Option<ListenerTls>,
    #[serde(default)]
    pub(crate) allowed_routes: AllowedRoutes,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerTls {
    pub(crate) mode: Option<String>,
    #[serde(default)]
    pub(crate) certificate_refs: Vec<ObjectRef>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct AllowedRoutes {
    #[serde(default)]
    pub(crate) namespaces: RouteNamespaces,
    #[serde(default)]
    pub(crate) kinds: Vec<RouteKind>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RouteNamespaces {
    /// `Same` when it is not said.
    pub(crate) from: Option<String>,
    pub(crate) selector: Option<LabelSelector>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RouteKind {
    pub(crate) group: Option<String>,
    pub(crate) kind: String,
}

/// A reference to an object; group and kind have defaults by the place.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HttpRouteSpec {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) rules: Vec<RouteRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentRef {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteRule {
    #[serde(default)]
    pub(crate) matches: Vec<RouteMatch>,
    #[serde(default)]
    pub(crate) filters: Vec<RouteFilter>,
    #[serde(default)]
    pub(crate) backend_refs: Vec<BackendRef>,
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Timeouts {
    pub(crate) request: Option<String>,
    pub(crate) backend_request: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteMatch {
    pub(crate) path: Option<ValueMatch>,
    #[serde(default)]
    pub(crate) headers: Vec<NamedMatch>,
    #[serde(default)]
    pub(crate) query_params: Vec<NamedMatch>,
    pub(crate) method: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ValueMatch {
    #[serde(rename = "type")]
    pub(crate) type_: Option<String>,
    pub(crate) value: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NamedMatch {
    #[serde(rename = "type")]
    pub(crate) type_: Option<String>,
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteFilter {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) request_header_modifier: Option<HeaderModifier>,
    pub(crate) response_header_modifier: Option<HeaderModifier>,
    pub(crate) request_redirect: Option<Redirect>,
    pub(crate) url_rewrite: Option<UrlRewrite>,
    pub(crate) extension_ref: Option<ObjectRef>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct HeaderModifier {
    #[serde(default)]
    pub(crate) set: Vec<NamedValue>,
    #[serde(default)]
    pub(crate) add: Vec<NamedValue>,
    #[serde(default)]
    pub(crate) remove: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NamedValue {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<PathModifier>,
    pub(crate) port: Option<u16>,
    pub(crate) status_code: Option<u16>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct UrlRewrite {
    pub(crate) hostname: Option<String>,
    pub(crate) path: Option<PathModifier>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PathModifier {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) replace_full_path: Option<String>,
    pub(crate) replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendRef {
    pub(crate) group: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) port: Option<u16>,
    /// 1 when it is not said.
    pub(crate) weight: Option<u32>,
    #[serde(default)]
    pub(crate) filters: Vec<RouteFilter>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ReferenceGrantSpec {
    #[serde(default)]
    pub(crate) from: Vec<GrantFrom>,
    #[serde(default)]
    pub(crate) to: Vec<GrantTo>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GrantFrom {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GrantTo {
    pub(crate) group: String,
    pub(crate) kind: String,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MiddlewareSpec {
    pub(crate) rate_limit: Option<RateLimitSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitSpec {
    pub(crate) average: Option<u64>,
    pub(crate) burst: Option<u64>,
    /// A Go duration, or whole seconds; a second when it is not said.
    pub(crate) period: Option<Value>,
    pub(crate) source_criterion: Option<SourceCriterion>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceCriterion {
    pub(crate) request_header_name: Option<String>,
    pub(crate) request_host: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateSpec {
    pub(crate) secret_name: String,
}
