//! Gateways and their routes: which listeners there are, which routes may attach to them, and what each says.
//!
//! Not handled: listeners of type TLS, TCP and UDP, client certificates, `GRPCRoute` and the other kinds of routes, mirrored
//! requests, CORS, and `backendRefs` other than services. What is not handled is said in the status, never ignored.

mod route;

use self::route::Translation;
use super::host::{Depth, Pattern};
use super::report::{GatewayReport, ListenerReport, ParentReport, Verdict};
use super::resources::{Gateway, GatewaySpec, HTTPRoute, HttpRouteSpec, ListenerSpec, ObjectRef, ParentRef};
use super::table::{Attachment, CertificateSource, Draft, Listener, Scheme, View};
use super::{CONTROLLER, tls};
use crate::cache::ObjectKey;
use crate::scheduler::matching::LabelMatcher;

pub(super) use self::route::limit_of;

pub(super) const GROUP: &str = "gateway.networking.k8s.io";

/// One listener, and what is to be said about it.
struct Known<'g> {
    gateway: &'g Gateway,
    key: ObjectKey,
    spec: &'g ListenerSpec,
    host: Pattern,
    scheme: Option<Scheme>,
    conditions: Vec<Verdict>,
    attached: usize,
}

impl Known<'_> {
    fn works(&self) -> bool {
        self.conditions.iter().all(|verdict| verdict.status == (verdict.type_ != "Conflicted"))
    }
}

pub(super) fn build(view: &View<'_>, draft: &mut Draft) {
    let classes = view.world.gateway_classes.iter();
    let ours = classes.filter(|class| class.spec.get().is_some_and(|spec| spec.controller_name == CONTROLLER));
    draft.report.classes = ours.map(|class| ObjectKey::of(&**class)).collect();

    let mut gateways: Vec<(&Gateway, &GatewaySpec)> = view
        .world
        .gateways
        .iter()
        .filter_map(|gateway| Some((&**gateway, gateway.spec.get()?)))
        .filter(|(gateway, spec)| gateway.metadata.deletion_timestamp.is_none() && is_ours(view, spec))
        .collect();
    // Where two want the same port with another protocol, the older one has it.
    gateways.sort_by_key(|(gateway, _)| {
        (gateway.metadata.creation_timestamp.as_ref().map(|time| time.0), ObjectKey::of(*gateway))
    });

    let mut known: Vec<Known<'_>> = Vec::new();
    for (gateway, spec) in &gateways {
        for listener in &spec.listeners {
            let judged = listener_of(view, gateway, listener, draft, &known);
            known.push(judged);
        }
    }
    for route in &view.world.routes {
        if let Some(spec) = route.spec.get()
            && route.metadata.deletion_timestamp.is_none()
        {
            attach(view, draft, &mut known, route, spec);
        }
    }
    for (gateway, _) in gateways {
        let key = ObjectKey::of(gateway);
        let report = report(known.iter().filter(|listener| listener.key == key));
        draft.report.gateways.insert(key, report);
    }
}

/// As for ingresses: a class that names another controller is that controller's.
fn is_ours(view: &View<'_>, spec: &GatewaySpec) -> bool {
    let class =
        view.world.gateway_classes.iter().find(|class| class.metadata.name.as_ref() == Some(&spec.gateway_class_name));
    class.and_then(|class| class.spec.get()).is_none_or(|class| class.controller_name == CONTROLLER)
}

fn listener_of<'g>(
    view: &View<'_>,
    gateway: &'g Gateway,
    spec: &'g ListenerSpec,
    draft: &mut Draft,
    earlier: &[Known<'_>],
) -> Known<'g> {
    let key = ObjectKey::of(gateway);
    let host = Pattern::parse(spec.hostname.as_deref(), Depth::Many);
    let scheme = match spec.protocol.as_str() {
        "HTTP" => Some(Scheme::Http),
        "HTTPS" => Some(Scheme::Https),
        _ => None,
    };
    let taken = draft.listeners.iter().find(|other| other.port == spec.port).map(|other| other.scheme);
    let conflict = if scheme.is_some() && taken.is_some() && taken != scheme {
        Some(("ProtocolConflict", format!("port {} is served with another protocol", spec.port)))
    } else if earlier.iter().any(|other| other.key == key && other.spec.port == spec.port && other.host == host) {
        Some(("HostnameConflict", "another listener of the gateway has this host".to_owned()))
    } else {
        None
    };
    let unsupported = match (scheme, spec.tls.as_ref().and_then(|tls| tls.mode.as_deref())) {
        (None, _) => Some(("UnsupportedProtocol", format!("{} is not served", spec.protocol))),
        (Some(Scheme::Https), Some("Passthrough")) => {
            Some(("UnsupportedProtocol", "TLS is terminated here".to_owned()))
        }
        _ => None,
    };
    let certificates = match scheme {
        Some(Scheme::Https) => certificates(view, &key, spec),
        _ => Ok(CertificateSource::Own),
    };
    let kinds = &spec.allowed_routes.kinds;
    let foreign = kinds.iter().any(|kind| kind.group.as_deref().unwrap_or(GROUP) != GROUP || kind.kind != "HTTPRoute");
    let unresolved = match &certificates {
        Err(objection) => Some(objection.clone()),
        Ok(_) if foreign => Some(("InvalidRouteKinds", "only HTTPRoute is served".to_owned())),
        Ok(_) => None,
    };
    let works = conflict.is_none() && unsupported.is_none() && certificates.is_ok();
    if let (true, Some(scheme), Ok(source)) = (works, scheme, &certificates) {
        let certificates = if scheme == Scheme::Https { vec![(host.clone(), source.clone())] } else { Vec::new() };
        draft.listeners.push(Listener {
            port: spec.port,
            scheme,
            gateway: Some(key.clone()),
            host: host.clone(),
            certificates,
        });
    }
    let mut conditions = vec![Verdict::unless("Accepted", unsupported)];
    conditions.push(match conflict {
        Some((reason, message)) => Verdict { type_: "Conflicted", status: true, reason, message },
        None => Verdict::no("Conflicted", "NoConflicts", ""),
    });
    conditions.push(Verdict::unless("ResolvedRefs", unresolved));
    let programmed = (!works).then(|| ("Invalid", "the listener is not served".to_owned()));
    conditions.push(Verdict::unless("Programmed", programmed));
    Known { gateway, key, spec, host, scheme, conditions, attached: 0 }
}

/// The certificate of a listener. Where cert-manager has promised the Secret and is not here to keep the promise, the
/// engine's own authority signs one.
///
/// Not handled: more than one certificate for a listener; the first one counts.
fn certificates(
    view: &View<'_>,
    gateway: &ObjectKey,
    spec: &ListenerSpec,
) -> Result<CertificateSource, (&'static str, String)> {
    let invalid = |message: String| ("InvalidCertificateRef", message);
    let Some(reference) = spec.tls.as_ref().and_then(|tls| tls.certificate_refs.first()) else {
        return Err(invalid("a listener with HTTPS needs a certificate".to_owned()));
    };
    if reference.group.as_deref().unwrap_or_default() != "" || reference.kind.as_deref().unwrap_or("Secret") != "Secret"
    {
        return Err(invalid(format!("`{}` is not a Secret", reference.name)));
    }
    let key = ObjectKey::new(reference.namespace.as_deref().unwrap_or(&gateway.namespace), &reference.name);
    if !granted(view, ("Gateway", &gateway.namespace), ("", "Secret"), &key) {
        return Err(("RefNotPermitted", format!("no ReferenceGrant lets it use the Secret {key}")));
    }
    match view.secret(&key).map(tls::key_of) {
        Some(Ok(_)) => Ok(CertificateSource::Secret(key)),
        Some(Err(reason)) => Err(invalid(format!("the Secret {key} has no usable certificate: {reason}"))),
        None if view.promised(&key) || promised_by_annotation(view, gateway) => Ok(CertificateSource::Own),
        None => Err(invalid(format!("there is no Secret {key}"))),
    }
}

/// cert-manager also makes the certificates of gateways with its annotation
/// (<https://cert-manager.io/docs/usage/gateway/>).
fn promised_by_annotation(view: &View<'_>, gateway: &ObjectKey) -> bool {
    let gateway = view.world.gateways.iter().find(|candidate| ObjectKey::of(&***candidate) == *gateway);
    let annotations = gateway.and_then(|gateway| gateway.metadata.annotations.as_ref());
    annotations.is_some_and(|annotations| {
        annotations.contains_key("cert-manager.io/issuer") || annotations.contains_key("cert-manager.io/cluster-issuer")
    })
}

/// Whether an object of `from` (kind, namespace) may refer to `to`: in its own namespace, or by a `ReferenceGrant` there.
fn granted(view: &View<'_>, from: (&str, &str), to: (&str, &str), object: &ObjectKey) -> bool {
    *object.namespace == *from.1
        || view.world.grants.iter().any(|grant| {
            grant.metadata.namespace.as_deref() == Some(&object.namespace)
                && grant.spec.get().is_some_and(|spec| {
                    let by = |grant: &super::resources::GrantFrom| {
                        grant.group == GROUP && grant.kind == from.0 && grant.namespace == from.1
                    };
                    let of = |grant: &super::resources::GrantTo| {
                        grant.group == to.0
                            && grant.kind == to.1
                            && grant.name.as_deref().is_none_or(|name| *name == *object.name)
                    };
                    spec.from.iter().any(by) && spec.to.iter().any(of)
                })
        })
}

fn attach(view: &View<'_>, draft: &mut Draft, known: &mut [Known<'_>], route: &HTTPRoute, spec: &HttpRouteSpec) {
    let key = ObjectKey::of(route);
    let mut translation = None;
    let mut reports = Vec::new();
    let mut counted = Vec::new();
    for parent in &spec.parent_refs {
        if parent.group.as_deref().unwrap_or(GROUP) != GROUP || parent.kind.as_deref().unwrap_or("Gateway") != "Gateway"
        {
            continue;
        }
        let gateway = ObjectKey::new(parent.namespace.as_deref().unwrap_or(&key.namespace), &parent.name);
        if !known.iter().any(|listener| listener.key == gateway) {
            // Somebody else's gateway, or none yet: who has it says so.
            continue;
        }
        let translation = translation.get_or_insert_with(|| Translation::of(view, &key, route, spec));
        let (accepted, found) = places(view, known, parent, &gateway, &key, spec);
        let objection = accepted.err().or_else(|| translation.objection.clone());
        if objection.is_none() {
            for (place, hosts) in found {
                let listener = &known[place];
                if !counted.contains(&place) {
                    counted.push(place);
                    draft.attachments.push(Attachment {
                        port: listener.spec.port,
                        gateway: Some(listener.key.clone()),
                        listener: listener.host.clone(),
                        hosts,
                        rules: translation.rules.clone(),
                    });
                }
            }
        }
        let conditions = vec![
            Verdict::unless("Accepted", objection),
            Verdict::unless("ResolvedRefs", translation.unresolved.clone()),
        ];
        reports.push(ParentReport { parent: parent.clone(), conditions });
    }
    for place in counted {
        known[place].attached += 1;
    }
    if !reports.is_empty() {
        draft.report.routes.insert(key, reports);
    }
}

type Objection = (&'static str, String);

/// A listener, by its number, and the hosts that it and the route have in common.
type Place = (usize, Vec<Pattern>);

/// The listeners that a route attaches to through one of its parents, with the hosts that both have.
fn places(
    view: &View<'_>,
    known: &[Known<'_>],
    parent: &ParentRef,
    gateway: &ObjectKey,
    route: &ObjectKey,
    spec: &HttpRouteSpec,
) -> (Result<(), Objection>, Vec<Place>) {
    let named: Vec<usize> = (0..known.len())
        .filter(|place| {
            let listener = &known[*place];
            listener.key == *gateway
                && parent.section_name.as_ref().is_none_or(|name| *name == listener.spec.name)
                && parent.port.is_none_or(|port| port == listener.spec.port)
        })
        .collect();
    if named.is_empty() {
        return (Err(("NoMatchingParent", "the gateway has no such listener".to_owned())), Vec::new());
    }
    let allowed: Vec<usize> = named.into_iter().filter(|place| allows(view, &known[*place], route)).collect();
    if allowed.is_empty() {
        return (Err(("NotAllowedByListeners", "no listener allows the route".to_owned())), Vec::new());
    }
    let hosts: Vec<Pattern> = spec.hostnames.iter().map(|host| Pattern::parse(Some(host), Depth::Many)).collect();
    let hosts = if hosts.is_empty() { vec![Pattern::Any] } else { hosts };
    let found = allowed.into_iter().filter_map(|place| {
        let listener = &known[place];
        let common: Vec<Pattern> = hosts.iter().filter_map(|host| listener.host.intersect(host)).collect();
        (!common.is_empty()).then_some((place, common))
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return (Err(("NoMatchingListenerHostname", "no listener has a host of the route".to_owned())), Vec::new());
    }
    (Ok(()), found.into_iter().filter(|(place, _)| known[*place].works()).collect())
}

fn allows(view: &View<'_>, listener: &Known<'_>, route: &ObjectKey) -> bool {
    let kinds = &listener.spec.allowed_routes.kinds;
    let namespaces = &listener.spec.allowed_routes.namespaces;
    let by_kind = kinds.is_empty()
        || kinds.iter().any(|kind| kind.group.as_deref().unwrap_or(GROUP) == GROUP && kind.kind == "HTTPRoute");
    by_kind
        && match namespaces.from.as_deref().unwrap_or("Same") {
            "All" => true,
            "Selector" => {
                let labels =
                    view.world.namespaces.iter().find(|n| n.metadata.name.as_deref() == Some(&route.namespace));
                let labels = labels.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
                LabelMatcher::read(namespaces.selector.as_ref()).matches(&labels)
            }
            _ => listener.gateway.metadata.namespace.as_deref() == Some(&route.namespace),
        }
}

fn report<'k>(listeners: impl Iterator<Item = &'k Known<'k>> + Clone) -> GatewayReport {
    let served = listeners.clone().any(Known::works);
    let valid = listeners.clone().all(Known::works);
    let accepted = if valid {
        Verdict::yes("Accepted")
    } else {
        let message = "some listeners are not valid".to_owned();
        Verdict { type_: "Accepted", status: served, reason: "ListenersNotValid", message }
    };
    let programmed = (!served).then(|| ("Invalid", "no listener is served".to_owned()));
    let listeners = listeners.map(|listener| ListenerReport {
        name: listener.spec.name.clone(),
        attached: listener.attached,
        supported: listener.scheme.is_some(),
        conditions: listener.conditions.clone(),
    });
    GatewayReport {
        conditions: vec![accepted, Verdict::unless("Programmed", programmed)],
        listeners: listeners.collect(),
    }
}

/// Whether a reference is to an object of Traefik that limits rates.
fn is_middleware(reference: &ObjectRef) -> bool {
    reference.group.as_deref() == Some("traefik.io") && reference.kind.as_deref() == Some("Middleware")
}
