//! The environment of a container, its command line, and the fields of its pod that it may ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};

use crate::scheme::quantity::Quantity;

/// What a container's environment is made of, besides the pod.
pub(super) trait Sources {
    fn config_map(&self, name: &str) -> Option<&ConfigMap>;
    fn secret(&self, name: &str) -> Option<&Secret>;
}

/// Where a pod is on the network, and what its node has.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) pod_ip: String,
    pub(super) host_ip: String,
    /// Allocatable, in thousandths of a core and bytes: what a container without a limit may use.
    pub(super) node_cpu: i128,
    pub(super) node_memory: i128,
}

/// The variables of a container. An error is what Kubernetes says in `CreateContainerConfigError`.
pub(super) fn variables(
    pod: &Pod,
    container: &Container,
    services: BTreeMap<String, String>,
    sources: &dyn Sources,
    place: &Place,
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let missing = |kind: &str, name: &str| format!("{kind} \"{name}\" not found");
    let mut own = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_map(&reference.name) {
                Some(map) => own.extend(data(map).into_iter().map(|(key, value)| (format!("{prefix}{key}"), value))),
                None if reference.optional == Some(true) => {}
                None => return Err(missing("configmap", &reference.name)),
            }
        } else if let Some(reference) = &from.secret_ref {
            match sources.secret(&reference.name) {
                Some(secret) => {
                    own.extend(secret_data(secret).into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
                }
                None if reference.optional == Some(true) => {}
                None => return Err(missing("secret", &reference.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                expand(value, |name| own.get(name).or_else(|| services.get(name)).cloned())
            }
            (_, Some(from)) => {
                if let Some(field) = &from.field_ref {
                    self::field(pod, field, place)?
                } else if let Some(resource) = &from.resource_field_ref {
                    self::resource(pod, container, resource, place)?
                } else if let Some(key) = &from.config_map_key_ref {
                    let optional = key.optional == Some(true);
                    match sources.config_map(&key.name) {
                        None if optional => continue,
                        None => return Err(missing("configmap", &key.name)),
                        Some(map) => match data(map).remove(&key.key) {
                            Some(value) => value,
                            None if optional => continue,
                            None => {
                                return Err(format!(
                                    "couldn't find key {} in ConfigMap {namespace}/{}",
                                    key.key, key.name
                                ));
                            }
                        },
                    }
                } else if let Some(key) = &from.secret_key_ref {
                    let optional = key.optional == Some(true);
                    match sources.secret(&key.name) {
                        None if optional => continue,
                        None => return Err(missing("secret", &key.name)),
                        Some(secret) => match secret_data(secret).remove(&key.key) {
                            Some(value) => value,
                            None if optional => continue,
                            None => {
                                return Err(format!(
                                    "couldn't find key {} in Secret {namespace}/{}",
                                    key.key, key.name
                                ));
                            }
                        },
                    }
                } else {
                    // Not handled: `fileKeyRef` (KEP-3721).
                    return Err(format!("the source of variable {} is not supported", variable.name));
                }
            }
            _ => String::new(),
        };
        own.insert(variable.name.clone(), value);
    }
    let mut all = services;
    all.extend(own);
    Ok(all)
}

/// `$(NAME)` becomes the value; `$$(NAME)` stays as `$(NAME)`; an unknown name stays as it is.
pub(super) fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some(inner) = rest.strip_prefix('(')
            && let Some(end) = inner.find(')')
        {
            let name = &inner[..end];
            expanded.push_str(&value(name).unwrap_or_else(|| format!("$({name})")));
            rest = &inner[end + 1..];
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The variables that name services, as Docker's links did. The service `kubernetes` is named in every namespace.
pub(super) fn service_variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { continue };
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let master = of == "default" && name == "kubernetes";
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None")) else { continue };
        if !(master || links && of == namespace) {
            continue;
        }
        let Some(first) = spec.ports.as_ref().and_then(|ports| ports.first()) else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let mut set = |suffix: String, value: String| variables.insert(format!("{prefix}{suffix}"), value);
        let url = |port: i32, protocol: &str| format!("{}://{ip}:{port}", protocol.to_lowercase());
        let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        set("_SERVICE_HOST".to_owned(), ip.to_owned());
        set("_SERVICE_PORT".to_owned(), first.port.to_string());
        set("_PORT".to_owned(), url(first.port, &protocol(&first.protocol)));
        for port in spec.ports.iter().flatten() {
            let protocol = protocol(&port.protocol);
            if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                set(format!("_SERVICE_PORT_{}", name.to_uppercase().replace('-', "_")), port.port.to_string());
            }
            let stem = format!("_PORT_{}_{protocol}", port.port);
            set(stem.clone(), url(port.port, &protocol));
            set(format!("{stem}_PROTO"), protocol.to_lowercase());
            set(format!("{stem}_PORT"), port.port.to_string());
            set(format!("{stem}_ADDR"), ip.to_owned());
        }
    }
    variables
}

/// A field of the pod, as `fieldRef` names it.
pub(super) fn field(pod: &Pod, field: &ObjectFieldSelector, place: &Place) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(text(map.and_then(|map| map.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" | "status.hostIPs" => place.host_ip.clone(),
        "status.podIP" | "status.podIPs" => place.pod_ip.clone(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"`, sorted, as a file of the downward API has them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// A limit or request of a container, in units of the divisor, rounded up.
pub(super) fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    place: &Place,
) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let of = match selector.container_name.as_deref() {
        None | Some("") => Some(container),
        Some(name) => {
            let all =
                spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
            all.into_iter().find(|container| container.name == name)
        }
    };
    let of =
        of.ok_or_else(|| format!("container {} not found", selector.container_name.clone().unwrap_or_default()))?;
    let (list, name) =
        selector.resource.split_once('.').ok_or_else(|| format!("unsupported resource: {}", selector.resource))?;
    let resources = of.resources.as_ref();
    let quantity = match list {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(format!("unsupported resource: {}", selector.resource)),
    }
    .and_then(|list| list.get(name));
    let millis = match quantity.and_then(|quantity| Quantity::parse(&quantity.0)).map(Quantity::millis) {
        Some(millis) => millis,
        None if list == "limits" && name == "cpu" => place.node_cpu,
        None if list == "limits" && name == "memory" => place.node_memory * 1000,
        None => 0,
    };
    let divisor = selector.divisor.as_ref().and_then(|divisor| Quantity::parse(&divisor.0)).map(Quantity::millis);
    let divisor = divisor.filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok(((millis + divisor - 1) / divisor).to_string())
}

fn data(map: &ConfigMap) -> BTreeMap<String, String> {
    map.data.clone().unwrap_or_default()
}

fn secret_data(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Objects(Vec<ConfigMap>);

    impl Sources for Objects {
        fn config_map(&self, name: &str) -> Option<&ConfigMap> {
            self.0.iter().find(|map| map.metadata.name.as_deref() == Some(name))
        }

        fn secret(&self, _name: &str) -> Option<&Secret> {
            None
        }
    }

    fn check(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "app": "web" } },
            "spec": { "nodeName": "node-1", "containers": [container] },
        }))
        .expect("a pod");
        let map = serde_json::from_value(json!({ "metadata": { "name": "m" }, "data": { "k": "v" } })).expect("a map");
        let place =
            Place { pod_ip: "10.0.0.1".into(), host_ip: "10.9.9.9".into(), node_cpu: 4000, node_memory: 1 << 30 };
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        variables(&pod, container, BTreeMap::from([("S".into(), "s".into())]), &Objects(vec![map]), &place)
    }

    #[test]
    fn references_see_earlier_variables_and_services() {
        let env = check(json!({ "name": "c", "env": [
            { "name": "A", "value": "1" },
            { "name": "B", "value": "$(A)-$(S)-$(LATER)-$$(A)-$" },
            { "name": "LATER", "value": "x" },
        ] }))
        .expect("it is complete");
        assert_eq!(env["B"], "1-s-$(LATER)-$(A)-$");
    }

    #[test]
    fn every_kind_of_source_is_read() {
        let env = check(json!({ "name": "c",
            "resources": { "limits": { "cpu": "1500m" } },
            "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "m" } }],
            "env": [
                { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
                { "name": "KEY", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "k" } } },
                { "name": "NONE", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k", "optional": true } } },
            ] }))
        .expect("it is complete");
        let expected = [
            ("CPU", "2"),
            ("IP", "10.0.0.1"),
            ("KEY", "v"),
            ("LABEL", "web"),
            ("MEM", "1024"),
            ("NODE", "node-1"),
            ("P_k", "v"),
            ("S", "s"),
        ];
        assert_eq!(env, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn what_is_missing_is_named_as_kubernetes_names_it() {
        let of = |source| {
            check(json!({ "name": "c", "env": [{ "name": "A", "valueFrom": source }] }))
                .expect_err("its source is missing")
        };
        assert_eq!(of(json!({ "secretKeyRef": { "name": "s", "key": "k" } })), "secret \"s\" not found");
        assert_eq!(
            of(json!({ "configMapKeyRef": { "name": "m", "key": "x" } })),
            "couldn't find key x in ConfigMap n/m"
        );
    }
}
