//! The calls of the modules of Google Cloud.

use landfall_model::{EdgeLayer, Engine, Finding, Name, Spanned, Store};

use super::cloud;
use super::hcl::{Value, raw};
use super::machines;
use super::needs::Site;
use super::root::{Root, identifier};

/// Adds everything that the region needs.
pub(super) fn calls(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let prefix = site.prefix();
    let location = Value::from(site.location.as_str());
    if site.has_cluster() {
        root.call(site, "network", "network", vec![("name", prefix.clone().into()), ("location", location.clone())]);
        cluster(root, site, findings);
    }
    for (name, store) in site.stores() {
        self::store(root, site, name, store, findings);
    }
    if site.has_registry() {
        let arguments = vec![("name", prefix.clone().into()), ("location", location.clone()), ("kms_key_id", key())];
        root.call(site, "registry", "registry", arguments);
        root.output("image_url", "Where images are pushed to.", "module.registry.url");
    }
    if site.has_secrets() {
        // The names of secrets have no slashes here.
        let names = site.secrets().into_keys().map(|path| path.replace('/', "-"));
        let arguments = vec![("secrets", Value::texts(names)), ("location", location), ("kms_key_id", key())];
        root.call(site, "secrets", "secrets", arguments);
    }
    for identity in site.identities() {
        let call = identifier("identity", &identity.name);
        let mut arguments = vec![
            ("name", site.short(&identity.name).into()),
            ("project", raw("var.project")),
            ("namespace", identity.namespace.into()),
            ("service_account", identity.account.as_str().into()),
        ];
        if !identity.buckets.is_empty() {
            let buckets =
                identity.buckets.iter().map(|bucket| raw(format!("module.{}.name", identifier("store", bucket))));
            arguments.push(("buckets", Value::List(buckets.collect())));
        }
        if identity.secrets {
            arguments.push(("secret_ids", raw("module.secrets.ids")));
        }
        root.call(site, "identity", &call, arguments);
        let what = format!("The annotation of the service account {}.", identity.account);
        root.output(&call, what, format!("module.{call}.annotation"));
    }
    edge(root, site);
}

fn key() -> Value {
    raw("module.network.kms_key_id")
}

fn cluster(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let platform = &site.architecture.document.platform;
    let version = platform.kubernetes.as_ref().map_or("1.36", |version| version.value.as_str());
    let what = "Who may reach the API server, as CIDR blocks.";
    let addresses = root.variable("api_addresses", "list(string)", what, Some(Value::List(Vec::new())));
    root.call(
        site,
        "cluster",
        "cluster",
        vec![
            ("name", site.prefix().into()),
            ("project", raw("var.project")),
            ("location", site.location.as_str().into()),
            ("zones", Value::texts(&site.zones)),
            ("kubernetes_version", version.into()),
            ("network_id", raw("module.network.network_id")),
            ("subnet_id", raw("module.network.subnet_id")),
            ("kms_key_id", key()),
            ("private_api", platform.private_api.value.into()),
            ("api_addresses", addresses),
            ("pools", machines::pools(site, findings)),
        ],
    );
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
    root.output("cluster_endpoint", "The address of the API server.", "module.cluster.endpoint");
}

fn store(root: &mut Root, site: &Site<'_>, name: &Spanned<Name>, store: &Store, findings: &mut Vec<Finding>) {
    let engine = store.engine.value;
    let call = identifier("store", name.value.as_str());
    let own_name = format!("{}-{}", site.prefix(), name.value);
    if engine == Engine::S3 {
        bucket(root, site, name, store, findings);
        return;
    }
    if !super::modules::exists(site.cloud, engine.as_str()) || !site.has_cluster() {
        findings.push(machines::unknown(site, name.value.as_str(), store));
        return;
    }
    let version = cloud::version(site.cloud, engine, store.version.as_ref().map(|version| version.value.as_str()));
    let members = store.members.value;
    let (cpu, memory) = machines::size(store);
    let memory = memory.get().div_ceil(1 << 30);
    let mut arguments: Vec<(&str, Value)> =
        vec![("name", own_name.into()), ("location", site.location.as_str().into())];
    let tls = site.architecture.encrypts_in_transit(store);
    match engine {
        Engine::Postgres => {
            let Some(instance) = machines::instance(site, name.value.as_str(), store, findings) else { return };
            arguments.push(("engine_version", version.into()));
            arguments.push(("instance_class", instance.into()));
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
            arguments.push(("zones", Value::texts(&site.zones)));
            arguments.push(("network_id", raw("module.network.network_id")));
            arguments.push(("require_tls", tls.into()));
            arguments.push(("backup_days", machines::backup_days(store, 365).max(1).into()));
            let copy = site.copies(name, store).into_iter().find_map(|copy| site.locations.get(copy.as_str()));
            arguments.push(("backup_location", copy.unwrap_or(&site.location).as_str().into()));
        }
        Engine::Redis => {
            arguments.push(("engine_version", version.into()));
            arguments.push(("size", memory.into()));
            arguments.push(("replicas", members.saturating_sub(1).min(5).into()));
            arguments.push(("network_id", raw("module.network.network_id")));
            arguments.push(("require_tls", tls.into()));
        }
        Engine::Kafka => {
            let cores = (cpu.millicores() * u64::from(members)).div_ceil(1000).max(3);
            // The provider takes from 1 to 8 GiB for each core.
            let memory = (memory * u64::from(members)).clamp(cores, cores * 8);
            let replication = store.replication.as_ref().map_or(3, |replication| replication.value);
            let in_sync = store.in_sync.as_ref().map_or(replication.saturating_sub(1).max(1), |in_sync| in_sync.value);
            let topics = store.topics.iter().map(|(topic, settings)| {
                let value = Value::object([
                    ("partitions", settings.partitions.as_ref().map_or(1, |partitions| partitions.value).into()),
                    ("replication", settings.replication.as_ref().map_or(replication, |own| own.value).into()),
                    ("in_sync", Value::from(in_sync)),
                ]);
                (topic.value.as_str(), value)
            });
            arguments.push(("cpu", cores.into()));
            arguments.push(("memory", memory.into()));
            arguments.push(("subnet_id", raw("module.network.subnet_id")));
            arguments.push(("topics", Value::object(topics)));
        }
        Engine::Mongodb | Engine::Rabbitmq | Engine::S3 | Engine::Mqtt | Engine::Elasticsearch => {}
    }
    arguments.push(("kms_key_id", key()));
    root.call(site, engine.as_str(), &call, arguments);
    root.output(&call, format!("Where clients reach {}.", name.value), format!("module.{call}.address"));
}

/// A bucket, in one region or in two: the provider keeps the copy of two regions of one continent, or of India.
fn bucket(root: &mut Root, site: &Site<'_>, name: &Spanned<Name>, store: &Store, findings: &mut Vec<Finding>) {
    let call = identifier("store", name.value.as_str());
    let copies: Vec<&String> =
        site.copies(name, store).into_iter().filter_map(|copy| site.locations.get(copy.as_str())).collect();
    let group = |location: &str| match location.split('-').next() {
        Some("europe") => Some("EU"),
        Some("us") => Some("US"),
        _ if location.starts_with("asia-south1") || location.starts_with("asia-south2") => Some("IN"),
        _ => None,
    };
    let mut arguments = vec![("name", Value::from(format!("{}-{}", site.prefix(), name.value)))];
    match copies.as_slice() {
        [copy] if group(copy).is_some() && group(copy) == group(&site.location) => {
            arguments.push(("location", group(copy).unwrap_or_default().into()));
            arguments.push(("copy_regions", Value::texts([&site.location, *copy])));
        }
        copies => {
            arguments.push(("location", site.location.as_str().into()));
            if !copies.is_empty() {
                let what = format!("no Terraform makes the copies of `{}` on gcp", name.value);
                findings.push(
                    Finding::note("not-rendered", name.span, what)
                        .on(format!("store.{}", name.value))
                        .because("a bucket spans two regions of Europe, of the United States or of India at most"),
                );
            }
            if site.has_cluster() {
                arguments.push(("kms_key_id", key()));
            }
        }
    }
    let days = site.keep_days(name);
    if days > 0 {
        arguments.push(("keep_days", days.into()));
    }
    root.call(site, "bucket", &call, arguments);
    root.output(&call, format!("The bucket {}.", name.value), format!("module.{call}.name"));
}

fn edge(root: &mut Root, site: &Site<'_>) {
    let hosts = site.edge_hosts();
    if hosts.is_empty() {
        return;
    }
    let zone = root.variable("dns_zone", "string", "The managed DNS zone that the names of the platform are in.", None);
    let what = "The network endpoint groups of the cluster's ingress, one for each zone; empty until it is there.";
    let groups = root.variable("network_endpoint_groups", "list(string)", what, Some(Value::List(Vec::new())));
    root.call(
        site,
        "edge",
        "edge",
        vec![
            ("name", site.prefix().into()),
            ("hosts", Value::texts(hosts)),
            ("zone", zone),
            ("cdn", site.has_edge(EdgeLayer::Cdn).into()),
            ("waf", site.has_edge(EdgeLayer::Waf).into()),
            ("network_endpoint_groups", groups),
        ],
    );
    root.output("edge_address", "The address of the edge.", "module.edge.address");
}
