//! The calls of the modules of Amazon Web Services.

use landfall_model::{EdgeLayer, Engine, Finding, Name, Spanned, Store};

use super::hcl::{Value, raw};
use super::machines;
use super::managed::{Argument, Managed, buckets, identify, kubernetes_version, names};
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
    for managed in Managed::all(site) {
        store(root, &managed, findings);
    }
    names(root, site, Vec::new());
    storage_class(site, findings);
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
        let mut arguments = vec![
            ("name", format!("{prefix}-{}", identity.name).into()),
            ("oidc_provider_arn", raw("module.cluster.oidc_provider_arn")),
            ("oidc_issuer", raw("module.cluster.oidc_issuer")),
            ("namespace", identity.namespace.as_str().into()),
            ("service_account", identity.account.as_str().into()),
            ("kms_key_arn", key(site)),
        ];
        arguments.extend(buckets(&identity, "arn").map(|buckets| ("bucket_arns", buckets)));
        if identity.secrets {
            arguments.push(("secret_arns", raw("module.secrets.arns")));
        }
        identify(root, site, &identity, arguments);
    }
    edge(root, site);
}

/// The key of the region.
fn key(site: &Site<'_>) -> Value {
    raw(if site.has_cluster() { "module.network.kms_key_arn" } else { "module.key.arn" })
}

fn cluster(root: &mut Root, site: &Site<'_>, findings: &mut Vec<Finding>) {
    let document = &site.architecture.document;
    let private = document.platform.private_api.value;
    let what = "The IAM roles that administrate the cluster.";
    let administrators = root.variable("administrator_arns", "set(string)", what, None);
    let mut arguments = vec![
        ("name", site.prefix().into()),
        kubernetes_version(site),
        ("subnet_ids", raw("module.network.private_subnet_ids")),
        ("subnet_ids_by_zone", raw("module.network.private_subnet_ids_by_zone")),
        ("kms_key_arn", raw("module.network.kms_key_arn")),
        ("private_api", private.into()),
        ("administrator_arns", administrators),
        ("pools", machines::pools(site, findings)),
    ];
    if !private {
        let what = "Who may reach the API server from outside the network, as CIDR blocks.";
        let addresses = root.variable("api_addresses", "list(string)", what, Some(Value::List(Vec::new())));
        arguments.push(("api_addresses", addresses));
    }
    if let Some(identity) = &document.security.identity {
        let what = "How the provider of identities knows the cluster.";
        let client = root.variable("identity_client_id", "string", what, Some("kubernetes".into()));
        let fields = [
            ("issuer_url", identity.issuer.value.as_str().into()),
            ("client_id", client),
            ("groups_claim", identity.groups.value.as_str().into()),
        ];
        arguments.push(("identity", Value::object(fields)));
    }
    root.call(site, "cluster", "cluster", arguments);
    root.output("cluster_name", "The name of the cluster.", "module.cluster.name");
    root.output("cluster_endpoint", "The address of the API server.", "module.cluster.endpoint");
}

fn store(root: &mut Root, managed: &Managed<'_>, findings: &mut Vec<Finding>) {
    let site = managed.site;
    let engine = managed.engine();
    let mut arguments: Vec<Argument> = vec![("name", managed.own_name.as_str().into())];
    if engine == Engine::S3 {
        arguments.push(("kms_key_arn", key(site)));
        arguments.extend(managed.keep_days());
        arguments.extend(copies(root, managed, "copies"));
        managed.place(root, "bucket", arguments);
        return;
    }
    if !managed.has_module() {
        findings.push(managed.unknown());
        return;
    }
    let Some(instance) = managed.instance(findings) else { return };
    let store = managed.store;
    let members = managed.members();
    match engine {
        Engine::Postgres => {
            arguments.extend(managed.relational());
            arguments.push(managed.backup_days(0, 35));
        }
        Engine::Mongodb => {
            arguments.extend([("members", members.into()), managed.require_tls(), managed.backup_days(1, 35)]);
        }
        Engine::Redis => {
            let shards = store.shards.as_ref().map_or(1, |shards| shards.value.max(1));
            arguments.push(managed.version());
            arguments.push(("shards", shards.into()));
            arguments.push(("replicas", (members / shards).saturating_sub(1).into()));
            arguments.extend([managed.require_tls(), managed.backup_days(0, 35)]);
        }
        Engine::Kafka => {
            let (replication, in_sync) = managed.replication(members.min(3));
            arguments.push(managed.version());
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
            arguments.push(("replication", replication.into()));
            arguments.push(("in_sync", in_sync.into()));
            arguments.push(managed.require_tls());
            let what =
                "The secrets of the clients of Kafka: their names begin with AmazonMSK_; empty until they are there.";
            let secrets = root.variable("kafka_secret_arns", "set(string)", what, Some(Value::List(Vec::new())));
            arguments.push(("client_secret_arns", secrets));
            topics(managed.name, store, findings);
        }
        Engine::Rabbitmq => {
            let what = "The password of the broker's owner; by TF_VAR_owner_password, never in a file.";
            arguments.push(managed.version());
            arguments.push(("members", members.into()));
            arguments.push(("owner_password", root.variable("owner_password", "string", what, None)));
        }
        Engine::Elasticsearch => {
            arguments.push(("size", machines::volume(store).into()));
            arguments.push(("members", members.into()));
        }
        Engine::S3 | Engine::Mqtt => {}
    }
    arguments.push(instance);
    arguments.push(("network_id", raw("module.network.network_id")));
    arguments.push(("subnet_ids", raw("module.network.data_subnet_ids")));
    arguments.push(("client_security_group_id", raw("module.cluster.security_group_id")));
    arguments.push(("kms_key_arn", raw("module.network.kms_key_arn")));
    if engine == Engine::Postgres {
        arguments.extend(copies(root, managed, "copy_regions"));
    }
    managed.place(root, engine.as_str(), arguments);
}

/// The regions with a copy, each with a key of its own.
fn copies(root: &mut Root, managed: &Managed<'_>, argument: &'static str) -> Option<Argument> {
    let mut regions = Vec::new();
    for (copy, location) in managed.copies() {
        let key = identifier("key", &format!("{}_{copy}", managed.name.value));
        let arguments = vec![("name", managed.own_name.as_str().into()), ("region", location.into())];
        root.call(managed.site, "copy_key", &key, arguments);
        regions.push((location, raw(format!("module.{key}.arn"))));
    }
    (!regions.is_empty()).then(|| (argument, Value::object(regions)))
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
    let cdn = site.has_edge(EdgeLayer::Cdn);
    let mut arguments = vec![
        ("name", site.prefix().into()),
        ("hosts", Value::texts(hosts)),
        ("zone", zone),
        ("cdn", cdn.into()),
        ("waf", site.has_edge(EdgeLayer::Waf).into()),
        ("network_id", raw("module.network.network_id")),
        ("public_subnet_ids", raw("module.network.public_subnet_ids")),
        ("node_security_group_id", raw("module.cluster.security_group_id")),
        ("autoscaling_groups", raw("module.cluster.autoscaling_groups")),
    ];
    if cdn {
        let what = "The name of the load balancer of the cluster's ingress; empty until it is there.";
        arguments.push(("origin", root.variable("origin", "string", what, Some("".into()))));
    } else {
        let what = "The port of every node on which the cluster's ingress takes HTTPS.";
        arguments.push(("node_port", root.variable("ingress_node_port", "number", what, Some(30443_u32.into()))));
    }
    root.call(site, "edge", "edge", arguments);
    root.output("certificate_arn", "The certificate of the names.", "module.edge.certificate_arn");
    root.output("edge_address", "The name of what users reach.", "module.edge.address");
}

/// The class of volumes that the file names. The driver is there; the class is an object, which no module makes.
fn storage_class(site: &Site<'_>, findings: &mut Vec<Finding>) {
    let document = &site.architecture.document;
    let in_cluster = document.stores.values().any(|store| !store.provider.value.is_managed());
    let Some(class) = document.platform.storage.class.as_ref().filter(|_| site.has_cluster() && in_cluster) else {
        return;
    };
    let encrypted = document.platform.storage.encrypted.value;
    findings.push(
        Finding::note("not-rendered", class.span, format!("nothing makes the storage class `{}` on aws", class.value))
            .on("platform.storage")
            .because("a new EKS cluster has the driver of its volumes, and no class of that name")
            .help(format!("apply one: provisioner `ebs.csi.aws.com`, `type: gp3`, `encrypted: \"{encrypted}\"`")),
    );
}
