//! The calls of the modules of Amazon Web Services.

use landfall_model::{EdgeLayer, Engine, Finding, Name, Spanned, Store};

use super::cloud;
use super::hcl::{Value, raw};
use super::machines;
use super::needs::Site;
use super::root::{Root, identifier};

/// Adds everything that the region needs.
pub(super) fn calls(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let prefix = site.prefix();
    if site.has_cluster() {
        root.call(
            site,
            "network",
            "network",
            vec![("name", prefix.clone().into()), ("zones", Value::texts(&site.zones))],
        );
        cluster(root, site, findings);
    } else {
        let arguments =
            vec![("name", format!("{prefix}-{}", site.key.value).into()), ("region", site.location.as_str().into())];
        root.call(site, "copy_key", "key", arguments);
    }
    for (name, store) in site.stores() {
        self::store(root, site, name, store, findings);
    }
    if site.has_registry() {
        let arguments = vec![("names", Value::texts(site.images())), ("kms_key_arn", key(site))];
        root.call(site, "registry", "registry", arguments);
        root.output("image_urls", "Where images are pushed to, by name.", "module.registry.urls");
    }
    if site.has_secrets() {
        let secrets = site.secrets().into_iter().map(|(path, what)| (path, Value::from(what)));
        let arguments = vec![("secrets", Value::object(secrets)), ("kms_key_arn", key(site))];
        root.call(site, "secrets", "secrets", arguments);
    }
    for identity in site.identities() {
        let call = identifier("identity", &identity.name);
        let mut arguments = vec![
            ("name", format!("{prefix}-{}", identity.name).into()),
            ("oidc_provider_arn", raw("module.cluster.oidc_provider_arn")),
            ("oidc_issuer", raw("module.cluster.oidc_issuer")),
            ("namespace", identity.namespace.into()),
            ("service_account", identity.account.as_str().into()),
            ("kms_key_arn", key(site)),
        ];
        if !identity.buckets.is_empty() {
            let buckets =
                identity.buckets.iter().map(|bucket| raw(format!("module.{}.arn", identifier("store", bucket))));
            arguments.push(("bucket_arns", Value::List(buckets.collect())));
        }
        if identity.secrets {
            arguments.push(("secret_arns", raw("module.secrets.arns")));
        }
        root.call(site, "identity", &call, arguments);
        let what = format!("The annotation of the service account {}.", identity.account);
        root.output(&call, what, format!("module.{call}.annotation"));
    }
    edge(root, site);
}

/// The key of the region.
fn key(site: &Site<'_>) -> Value {
    raw(if site.has_cluster() { "module.network.kms_key_arn" } else { "module.key.arn" })
}

fn cluster(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let platform = &site.architecture.document.platform;
    let version = platform.kubernetes.as_ref().map_or("1.36", |version| version.value.as_str());
    let private = platform.private_api.value;
    let mut arguments = vec![
        ("name", site.prefix().into()),
        ("kubernetes_version", version.into()),
        ("subnet_ids", raw("module.network.private_subnet_ids")),
        ("subnet_ids_by_zone", raw("module.network.private_subnet_ids_by_zone")),
        ("kms_key_arn", raw("module.network.kms_key_arn")),
        ("private_api", private.into()),
        ("pools", machines::pools(site, findings)),
    ];
    if !private {
        let what = "Who may reach the API server from outside the network, as CIDR blocks.";
        let addresses = root.variable("api_addresses", "list(string)", what, Some(Value::List(Vec::new())));
        arguments.push(("api_addresses", addresses));
    }
    root.call(site, "cluster", "cluster", arguments);
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
    root.output("cluster_endpoint", "The address of the API server.", "module.cluster.endpoint");
}

fn store(root: &mut Root, site: &Site<'_>, name: &Spanned<Name>, store: &Store, findings: &mut Vec<Finding>) {
    let engine = store.engine.value;
    let call = identifier("store", name.value.as_str());
    let own_name = format!("{}-{}", site.prefix(), name.value);
    if engine == Engine::S3 {
        let mut arguments = vec![("name", own_name.into()), ("kms_key_arn", key(site))];
        let days = site.keep_days(name);
        if days > 0 {
            arguments.push(("keep_days", days.into()));
        }
        copies(root, site, name, store, "copies", &mut arguments);
        root.call(site, "bucket", &call, arguments);
        root.output(&call, format!("The bucket {}.", name.value), format!("module.{call}.name"));
        return;
    }
    if !super::modules::exists(site.cloud, engine.as_str()) {
        findings.push(machines::unknown(site, name.value.as_str(), store));
        return;
    }
    let Some(instance) = machines::instance(site, name.value.as_str(), store, findings) else { return };
    if !site.has_cluster() {
        findings.push(machines::unknown(site, name.value.as_str(), store));
        return;
    }
    let version = cloud::version(site.cloud, engine, store.version.as_ref().map(|version| version.value.as_str()));
    let tls = site.architecture.encrypts_in_transit(store);
    let members = store.members.value;
    let mut arguments: Vec<(&str, Value)> = vec![("name", own_name.into())];
    match engine {
        Engine::Postgres => {
            arguments.push(("engine_version", version.into()));
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
            arguments.push(("zones", Value::texts(&site.zones)));
            arguments.push(("require_tls", tls.into()));
            arguments.push(("backup_days", machines::backup_days(store, 35).into()));
        }
        Engine::Mongodb => {
            arguments.push(("members", members.into()));
            arguments.push(("require_tls", tls.into()));
            arguments.push(("backup_days", machines::backup_days(store, 35).max(1).into()));
        }
        Engine::Redis => {
            let shards = store.shards.as_ref().map_or(1, |shards| shards.value.max(1));
            arguments.push(("engine_version", version.into()));
            arguments.push(("shards", shards.into()));
            arguments.push(("replicas", (members / shards).saturating_sub(1).into()));
            arguments.push(("require_tls", tls.into()));
            arguments.push(("backup_days", machines::backup_days(store, 35).into()));
        }
        Engine::Kafka => {
            let replication = store.replication.as_ref().map_or(members.min(3), |replication| replication.value);
            let in_sync = store.in_sync.as_ref().map_or(replication.saturating_sub(1).max(1), |in_sync| in_sync.value);
            arguments.push(("engine_version", version.into()));
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
            arguments.push(("replication", replication.into()));
            arguments.push(("in_sync", in_sync.into()));
            arguments.push(("require_tls", tls.into()));
            topics(name, store, findings);
        }
        Engine::Rabbitmq => {
            let what = "The password of the broker's owner; by TF_VAR_owner_password, never in a file.";
            arguments.push(("engine_version", version.into()));
            arguments.push(("members", members.into()));
            arguments.push(("owner_password", root.variable("owner_password", "string", what, None)));
        }
        Engine::Elasticsearch => {
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
        }
        Engine::S3 | Engine::Mqtt => {}
    }
    arguments.push(("instance_class", instance.into()));
    arguments.push(("network_id", raw("module.network.network_id")));
    arguments.push(("subnet_ids", raw("module.network.data_subnet_ids")));
    arguments.push(("client_security_group_id", raw("module.cluster.security_group_id")));
    arguments.push(("kms_key_arn", raw("module.network.kms_key_arn")));
    if engine == Engine::Postgres {
        copies(root, site, name, store, "copy_regions", &mut arguments);
    }
    root.call(site, engine.as_str(), &call, arguments);
    root.output(&call, format!("Where clients reach {}.", name.value), format!("module.{call}.address"));
}

/// The regions with a copy, each with a key of its own.
fn copies(
    root: &mut Root,
    site: &Site<'_>,
    name: &Spanned<Name>,
    store: &Store,
    argument: &'static str,
    arguments: &mut Vec<(&str, Value)>,
) {
    let mut regions = Vec::new();
    for copy in site.copies(name, store) {
        let Some(location) = site.locations.get(copy.as_str()) else { continue };
        let key = identifier("key", &format!("{}_{copy}", name.value));
        let prefix = format!("{}-{}", site.prefix(), name.value);
        root.call(site, "copy_key", &key, vec![("name", prefix.into()), ("region", location.as_str().into())]);
        regions.push((location.clone(), raw(format!("module.{key}.arn"))));
    }
    if !regions.is_empty() {
        arguments.push((argument, Value::object(regions)));
    }
}

/// Topics are made by clients of the brokers, which no provider of Amazon's is.
fn topics(name: &Spanned<Name>, store: &Store, findings: &mut Vec<Finding>) {
    if let Some(topic) = store.topics.keys().next() {
        let what = format!("no Terraform makes the topics of `{}` on aws", name.value);
        findings.push(
            Finding::note("not-rendered", topic.span, what)
                .on(format!("store.{}", name.value))
                .help("make them with Kafka's own tool, which reaches the brokers from inside the network"),
        );
    }
}

fn edge(root: &mut Root, site: &Site<'_>) {
    let hosts = site.edge_hosts();
    if hosts.is_empty() {
        return;
    }
    let zone = root.variable("dns_zone", "string", "The DNS zone that the names of the platform are in.", None);
    let what = "The name of the load balancer of the cluster's ingress; empty until it is there.";
    let origin = root.variable("origin", "string", what, Some("".into()));
    root.call(
        site,
        "edge",
        "edge",
        vec![
            ("name", site.prefix().into()),
            ("hosts", Value::texts(hosts)),
            ("zone", zone),
            ("origin", origin),
            ("cdn", site.has_edge(EdgeLayer::Cdn).into()),
            ("waf", site.has_edge(EdgeLayer::Waf).into()),
        ],
    );
    root.output("certificate_arn", "The certificate of the names.", "module.edge.certificate_arn");
    root.output("firewall_arn", "The firewall.", "module.edge.firewall_arn");
}
