//! References between objects: which of them lead nowhere.
//!
//! Not handled: the routes of ingress controllers with kinds of their own, such as Traefik's `IngressRoute`.

use std::collections::{BTreeMap, BTreeSet};

use super::field::{Field, Malformed};
use super::index::Index;
use super::object::{Object, ObjectKey};
use super::problem::Problem;
use super::selector::Selector;
use super::service::{Service, TargetPort};
use super::workload::{Port, Workload, WorkloadId, template_path};

/// A `ConfigMap` that every namespace has.
const CLUSTER_CERTIFICATES: &str = "kube-root-ca.crt";

/// Annotations by which cert-manager makes the TLS Secret of an Ingress or Gateway.
const ISSUER_ANNOTATIONS: [&str; 2] = ["cert-manager.io/issuer", "cert-manager.io/cluster-issuer"];

/// What can be referred to.
pub(super) struct Present<'a> {
    /// Objects of the set, objects that controllers make from them, and objects that the caller knows of.
    pub(super) keys: BTreeSet<ObjectKey>,
    pub(super) services: &'a BTreeMap<ObjectKey, (Service, Vec<WorkloadId>)>,
    /// The keys in Secrets and `ConfigMap`s of the set.
    contents: BTreeMap<ObjectKey, BTreeSet<&'a str>>,
}

impl<'a> Present<'a> {
    pub(super) fn new(
        objects: &[Object<'a>],
        known: &BTreeSet<ObjectKey>,
        services: &'a BTreeMap<ObjectKey, (Service, Vec<WorkloadId>)>,
    ) -> Self {
        let mut keys = known.clone();
        keys.extend(services.keys().cloned());
        let mut contents = BTreeMap::new();
        for object in objects {
            keys.insert(object.key.clone());
            // What cannot be read is reported where the object itself is checked, or belongs to another's schema.
            keys.extend(produced(object).unwrap_or_default());
            if let Ok(Some(content)) = content(object) {
                contents.insert(object.key.clone(), content);
            }
        }
        Present { keys, services, contents }
    }

    fn has(&self, key: &ObjectKey) -> bool {
        let everywhere = match key.kind.as_str() {
            "ConfigMap" => key.name == CLUSTER_CERTIFICATES,
            "ServiceAccount" => key.name == "default",
            _ => false,
        };
        everywhere || self.keys.contains(key)
    }
}

/// Checks every reference of one object.
pub(super) fn check(
    object: &Object<'_>,
    present: &Present<'_>,
    index: &mut Index<'_>,
    workloads: &[Workload],
    problems: &mut Vec<Problem>,
) {
    let mut references = References { object, present, problems };
    let checked = match (object.group, object.key.kind.as_str()) {
        ("", "Service") => {
            references.service(workloads);
            Ok(())
        }
        ("networking.k8s.io", "Ingress") => references.ingress(),
        ("gateway.networking.k8s.io", "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute") => {
            references.route()
        }
        ("autoscaling", "HorizontalPodAutoscaler") | ("keda.sh", "ScaledObject") => references.scale_target(),
        ("policy", "PodDisruptionBudget") => references.budget(index),
        _ => match template_path(object) {
            Some(path) => object.root.at(path).and_then(|template| references.pod(&template.member("spec")?)),
            None => Ok(()),
        },
    };
    if let Err(malformed) = checked {
        let problem = Problem::Malformed { object: object.key.clone(), malformed };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

struct References<'a, 'o> {
    object: &'a Object<'o>,
    present: &'a Present<'a>,
    problems: &'a mut Vec<Problem>,
}

impl References<'_, '_> {
    fn service(&mut self, workloads: &[Workload]) {
        let Some((service, behind)) = self.present.services.get(&self.object.key) else { return };
        if service.selector.is_empty() {
            return;
        }
        if behind.is_empty() {
            self.problems.push(Problem::ServiceSelectsNothing { service: service.key.clone() });
            return;
        }
        for port in &service.ports {
            let declares = |id: &WorkloadId| {
                let workload = &workloads[id.0 as usize];
                port.on(workload).is_some_and(|port| workload.ports.iter().any(|declared| declared.port == port))
            };
            if !behind.iter().any(declares) {
                self.problems.push(Problem::TargetPortUndeclared {
                    service: service.key.clone(),
                    port: match &port.target {
                        TargetPort::Number(number) => number.to_string(),
                        TargetPort::Named(name) => name.clone(),
                    },
                    protocol: port.port.protocol,
                });
            }
        }
    }

    fn ingress(&mut self) -> Result<(), Malformed> {
        let spec = self.object.root.member("spec")?;
        self.ingress_backend(&spec.member("defaultBackend")?)?;
        for rule in spec.member("rules")?.items()? {
            for path in rule.at(&["http", "paths"])?.items()? {
                self.ingress_backend(&path.member("backend")?)?;
            }
        }
        for entry in spec.member("tls")?.items()? {
            self.named(&entry.member("secretName")?, "Secret")?;
        }
        Ok(())
    }

    fn ingress_backend(&mut self, backend: &Field<'_>) -> Result<(), Malformed> {
        let service = backend.member("service")?;
        if service.is_absent() {
            return Ok(());
        }
        let name = service.member("name")?;
        let key = self.object.neighbour("Service", name.required_text()?);
        let (port_name, port_number) = (service.at(&["port", "name"])?, service.at(&["port", "number"])?);
        match (port_name.text()?, port_number.port()?) {
            (Some(wanted), _) => {
                self.backend(&key, &name, wanted, |name, _| name == Some(wanted));
            }
            (None, Some(wanted)) => {
                self.backend(&key, &name, &wanted.to_string(), |_, port| port.number == wanted);
            }
            (None, None) => return Err(service.member("port")?.malformed("must have a `name` or a `number`")),
        }
        Ok(())
    }

    fn route(&mut self) -> Result<(), Malformed> {
        for rule in self.object.root.at(&["spec", "rules"])?.items()? {
            for backend in rule.member("backendRefs")?.items()? {
                let group = backend.member("group")?.text()?.unwrap_or_default();
                let kind = backend.member("kind")?.text()?.unwrap_or("Service");
                if (group, kind) != ("", "Service") {
                    continue;
                }
                let name = backend.member("name")?;
                let namespace = backend.member("namespace")?.text()?.unwrap_or(&self.object.key.namespace);
                let key = ObjectKey::new("Service", namespace, name.required_text()?);
                let port = backend.member("port")?;
                let wanted = port.port()?.ok_or_else(|| port.malformed("is required for a Service"))?;
                self.backend(&key, &name, &wanted.to_string(), |_, port| port.number == wanted);
            }
        }
        Ok(())
    }

    fn backend(
        &mut self,
        service: &ObjectKey,
        name: &Field<'_>,
        port: &str,
        is_wanted: impl Fn(Option<&str>, Port) -> bool,
    ) {
        let route = self.object.key.clone();
        match self.present.services.get(service) {
            Some((found, _)) if found.ports.iter().any(|port| is_wanted(port.name.as_deref(), port.port)) => {}
            Some(_) => self.problems.push(Problem::BackendPortMissing {
                route,
                path: name.path(),
                service: service.clone(),
                port: port.to_owned(),
            }),
            // A Service that could not be read has its own problem.
            None => self.require(service.clone(), name),
        }
    }

    fn scale_target(&mut self) -> Result<(), Malformed> {
        let target = self.object.root.at(&["spec", "scaleTargetRef"])?;
        let name = target.member("name")?;
        // KEDA scales Deployments unless told otherwise; the autoscaler of Kubernetes requires a kind.
        let kind = target.member("kind")?.text()?.unwrap_or("Deployment");
        self.require(self.object.neighbour(kind, name.required_text()?), &name);
        Ok(())
    }

    fn budget(&mut self, index: &mut Index<'_>) -> Result<(), Malformed> {
        let selector = self.object.root.at(&["spec", "selector"])?;
        // An empty selector is the whole namespace, an absent one is nothing.
        let selects =
            !selector.is_absent() && !index.select(&self.object.key.namespace, &Selector::parse(&selector)?).is_empty();
        if !selects {
            self.problems.push(Problem::BudgetSelectsNothing { budget: self.object.key.clone() });
        }
        Ok(())
    }

    fn pod(&mut self, spec: &Field<'_>) -> Result<(), Malformed> {
        for containers in ["initContainers", "containers"] {
            for container in spec.member(containers)?.items()? {
                for variable in container.member("env")?.items()? {
                    let source = variable.member("valueFrom")?;
                    self.keyed(&source.member("secretKeyRef")?, "Secret")?;
                    self.keyed(&source.member("configMapKeyRef")?, "ConfigMap")?;
                }
                for source in container.member("envFrom")?.items()? {
                    self.optional(&source.member("secretRef")?, "name", "Secret")?;
                    self.optional(&source.member("configMapRef")?, "name", "ConfigMap")?;
                }
            }
        }
        for volume in spec.member("volumes")?.items()? {
            self.optional(&volume.member("secret")?, "secretName", "Secret")?;
            self.optional(&volume.member("configMap")?, "name", "ConfigMap")?;
            self.optional(&volume.member("persistentVolumeClaim")?, "claimName", "PersistentVolumeClaim")?;
            for source in volume.at(&["projected", "sources"])?.items()? {
                self.optional(&source.member("secret")?, "name", "Secret")?;
                self.optional(&source.member("configMap")?, "name", "ConfigMap")?;
            }
        }
        for secret in spec.member("imagePullSecrets")?.items()? {
            self.named(&secret.member("name")?, "Secret")?;
        }
        self.named(&spec.member("serviceAccountName")?, "ServiceAccount")
    }

    /// A reference to one key.
    fn keyed(&mut self, reference: &Field<'_>, kind: &str) -> Result<(), Malformed> {
        if !self.optional(reference, "name", kind)? {
            return Ok(());
        }
        self.content_key(reference, reference.member("name")?.required_text()?, kind)
    }

    fn content_key(&mut self, reference: &Field<'_>, name: &str, kind: &str) -> Result<(), Malformed> {
        let object = self.object.neighbour(kind, name);
        let field = reference.member("key")?;
        let key = field.required_text()?;
        if self.present.contents.get(&object).is_some_and(|keys| !keys.contains(key)) {
            self.problems.push(Problem::MissingKey {
                by: self.object.key.clone(),
                path: field.path(),
                object,
                key: key.to_owned(),
            });
        }
        Ok(())
    }

    /// A reference that may be absent, or present and `optional`. Whether it has to be met.
    fn optional(&mut self, reference: &Field<'_>, name: &str, kind: &str) -> Result<bool, Malformed> {
        if reference.is_absent() || reference.member("optional")?.boolean()? == Some(true) {
            return Ok(false);
        }
        let name = reference.member(name)?;
        self.require(self.object.neighbour(kind, name.required_text()?), &name);
        for item in reference.member("items")?.items()? {
            self.content_key(&item, name.required_text()?, kind)?;
        }
        Ok(true)
    }

    fn named(&mut self, name: &Field<'_>, kind: &str) -> Result<(), Malformed> {
        if let Some(text) = name.text()? {
            self.require(self.object.neighbour(kind, text), name);
        }
        Ok(())
    }

    fn require(&mut self, object: ObjectKey, name: &Field<'_>) {
        if !self.present.has(&object) {
            self.problems.push(Problem::Missing { by: self.object.key.clone(), path: name.path(), object });
        }
    }
}

/// The Secrets that a controller makes because of the object.
fn produced(object: &Object<'_>) -> Result<Vec<ObjectKey>, Malformed> {
    let spec = || object.root.member("spec");
    let secret = |name: &str| object.neighbour("Secret", name);
    let own = object.key.name.as_str();
    Ok(match (object.group, object.key.kind.as_str()) {
        ("external-secrets.io", "ExternalSecret") => {
            vec![secret(spec()?.at(&["target", "name"])?.text()?.unwrap_or(own))]
        }
        ("bitnami.com", "SealedSecret") => {
            vec![secret(spec()?.at(&["template", "metadata", "name"])?.text()?.unwrap_or(own))]
        }
        ("cert-manager.io", "Certificate") => vec![secret(spec()?.member("secretName")?.required_text()?)],
        ("networking.k8s.io", "Ingress") if has_issuer(object)? => {
            let entries = spec()?.member("tls")?.items()?;
            let names = entries.iter().map(|entry| entry.member("secretName")?.text());
            names.filter_map(Result::transpose).map(|name| name.map(secret)).collect::<Result<_, _>>()?
        }
        _ => Vec::new(),
    })
}

fn has_issuer(object: &Object<'_>) -> Result<bool, Malformed> {
    let annotations = object.root.at(&["metadata", "annotations"])?;
    let members = annotations.members()?;
    Ok(members.iter().any(|(name, _)| ISSUER_ANNOTATIONS.contains(name)))
}

/// The keys that a Secret or `ConfigMap` of the set holds.
fn content<'a>(object: &Object<'a>) -> Result<Option<BTreeSet<&'a str>>, Malformed> {
    let fields = match (object.group, object.key.kind.as_str()) {
        ("", "Secret") => ["data", "stringData"],
        ("", "ConfigMap") => ["data", "binaryData"],
        _ => return Ok(None),
    };
    let mut keys = BTreeSet::new();
    for field in fields {
        keys.extend(object.root.member(field)?.members()?.into_iter().map(|(name, _)| name));
    }
    Ok(Some(keys))
}
