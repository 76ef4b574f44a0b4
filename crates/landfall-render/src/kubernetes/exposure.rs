//! How services are reached from outside: by the Gateway API or by `Ingress`, as the platform declares.
//!
//! The certificate of a service is in the Secret `<service>-tls` of its namespace. An `Ingress` asks cert-manager for it
//! by an annotation; for a `Gateway` a `Certificate` is rendered.
//!
//! ingress-nginx refuses bodies of more than 1 MiB unless an annotation allows more, so that larger payloads of flows are
//! annotated. Not handled: controllers of the Gateway API with such a limit, as no object of that API raises it (NGINX Gateway
//! Fabric has one of its own, `ClientSettingsPolicy`). Traefik, Envoy, Istio and Cilium have none.
//!
//! Not handled: a firewall and the check of credentials. No object of either API asks for them, so what is declared is
//! an annotation of the route for whoever enforces it, and a note where nothing in front of the cluster can.

mod gateway;
mod ingress;

use crate::json::json;
use landfall_model::{
    Access, Architecture, EdgeLayer, Element, Expose, Finding, Flow, IngressApi, Name, Rate, Service, Spanned,
};
use serde_json::{Map, Value};

pub(super) use gateway::Gateways;

use super::metadata::Subject;
use super::ports;
use crate::object::Object;

/// An exposed service.
#[derive(Clone, Copy)]
struct Exposed<'a> {
    subject: &'a Subject<'a>,
    service: &'a Service,
    expose: &'a Expose,
}

impl Exposed<'_> {
    /// The port of its Kubernetes Service.
    fn port(&self) -> Option<u16> {
        let wanted = self.expose.port.as_ref().map(|port| port.as_str());
        let ports = ports::served(self.service);
        ports.iter().find(|port| wanted.is_none_or(|name| name == port.name)).map(|port| port.service)
    }

    /// What the route says to whoever enforces it.
    fn annotations(&self) -> Map<String, Value> {
        let mut annotations = Map::new();
        if self.expose.waf.value {
            annotations.insert("landfall.dev/waf".to_owned(), json!("required"));
        }
        if self.expose.access.value == Access::Authenticated {
            annotations.insert("landfall.dev/access".to_owned(), json!("authenticated"));
        }
        annotations
    }
}

/// The Secret with the certificate of a service; see [`super::certificates`].
fn tls_secret(service: &str) -> String {
    format!("{service}-tls")
}

/// The route of a service, if it is exposed.
pub(super) fn objects(
    architecture: &Architecture,
    gateways: &Gateways<'_>,
    subject: &Subject<'_>,
    name: &Spanned<Name>,
    service: &Service,
    findings: &mut Vec<Finding>,
) -> Vec<Object> {
    let Some(expose) = &service.expose else { return Vec::new() };
    let exposed = Exposed { subject, service, expose };
    let Some(port) = exposed.port() else {
        findings.push(
            Finding::error("no-port", expose.host.span, format!("`{name}` is exposed but serves no port"))
                .on(format!("service.{name}"))
                .help(format!("give it one: `services.{name}.port: 8080`")),
        );
        return Vec::new();
    };
    unsayable(architecture, name, expose, findings);
    let limit = RateLimiter::of(architecture, expose);
    let mut objects = match architecture.document.platform.ingress.api.value {
        IngressApi::Gateway => gateway::routes(gateways, exposed, port, limit),
        IngressApi::Ingress => vec![ingress::ingress(architecture, exposed, port, limit)],
    };
    if let Some(RateLimiter::Traefik(rate)) = limit {
        objects.push(middleware(subject, rate));
    }
    objects
}

/// The gateways of each namespace that exposes something; none when routes are `Ingress` objects.
pub(super) fn gateways(
    architecture: &Architecture,
    gateways: &Gateways<'_>,
    findings: &mut Vec<Finding>,
) -> Vec<Object> {
    match architecture.document.platform.ingress.api.value {
        IngressApi::Gateway => {
            gateway::unsayable(architecture, findings);
            gateway::objects(architecture, gateways)
        }
        IngressApi::Ingress => Vec::new(),
    }
}

/// Who limits the rate of requests.
#[derive(Debug, Clone, Copy)]
enum RateLimiter {
    /// A `Middleware` of Traefik.
    Traefik(Rate),
    /// Annotations of ingress-nginx.
    Nginx(Rate),
}

impl RateLimiter {
    fn of(architecture: &Architecture, expose: &Expose) -> Option<Self> {
        let ingress = &architecture.document.platform.ingress;
        let rate = expose.rate_limit.as_ref()?.value;
        match (ingress.class.as_str(), ingress.api.value) {
            ("traefik", _) => Some(Self::Traefik(rate)),
            ("nginx", IngressApi::Ingress) => Some(Self::Nginx(rate)),
            _ => None,
        }
    }
}

/// The most bytes that ingress-nginx lets a body have by itself (`proxy-body-size: 1m`).
const NGINX_BODY: u64 = 1024 * 1024;

/// How large bodies of requests to a service get, in whole MiB, where that is more than ingress-nginx lets through: the largest
/// payload that a flow brings there from outside, and a tenth of it for what it is wrapped in, such as a form.
fn body_mebibytes(architecture: &Architecture, service: &str) -> Option<u64> {
    let is_outside = |name: &str| matches!(architecture.element(name), Some(Element::Client | Element::External(_)));
    let enters =
        |flow: &&Flow| flow.steps.iter().any(|step| step.to.as_str() == service && is_outside(step.from.as_str()));
    let sizes = architecture.document.flows.values().filter(enters).filter_map(|flow| flow.payload.size.as_ref());
    let largest = sizes.map(|size| size.get()).max()?;
    let body = largest.saturating_add(largest.div_ceil(10));
    (body > NGINX_BODY).then(|| body.div_ceil(NGINX_BODY))
}

/// The name of the object that limits the rate of a service.
fn limiter(service: &str) -> String {
    format!("{service}-rate-limit")
}

/// Each client, by its address, may make so many requests in the period; as many may come at once.
fn middleware(subject: &Subject<'_>, rate: Rate) -> Object {
    let (count, period) = count_and_period(rate);
    let value = json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": subject.metadata(&limiter(subject.name)),
        "spec": { "rateLimit": { "average": count, "period": period, "burst": count.max(1) } },
    });
    subject.object("ratelimit", value)
}

/// `100/m` as 100 and `1m`.
fn count_and_period(rate: Rate) -> (u64, &'static str) {
    let (count, unit) = rate.count_and_unit();
    let period = match unit {
        "s" => "1s",
        "m" => "1m",
        "h" => "1h",
        _ => "24h",
    };
    (count, period)
}

/// What is declared of the exposure and no object says.
fn unsayable(architecture: &Architecture, name: &Spanned<Name>, expose: &Expose, findings: &mut Vec<Finding>) {
    let platform = &architecture.document.platform;
    if expose.waf.value && !platform.edge.iter().any(|layer| layer.value == EdgeLayer::Waf) {
        findings.push(
            Finding::note("not-rendered", expose.waf.span, format!("nothing rendered is the firewall of `{name}`"))
                .on(format!("service.{name}"))
                .because("neither the Gateway API nor Ingress has an object for one; the route is annotated")
                .help("put one in front of the cluster and declare it: `platform.edge: [waf]`"),
        );
    }
    if let Some(rate) = &expose.rate_limit
        && RateLimiter::of(architecture, expose).is_none()
    {
        let class = &platform.ingress.class;
        findings.push(
            Finding::warning("not-rendered", rate.span, format!("the rate limit of `{name}` is not rendered"))
                .on(format!("service.{name}"))
                .because(format!("there is no portable object for it, and none is known for the class `{class}`"))
                .also(class.span, "the class")
                .help("use the class `traefik`, or give the limit by `objects`"),
        );
    }
}
