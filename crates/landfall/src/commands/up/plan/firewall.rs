//! The web application firewall: nginx with ModSecurity and its core rules, before the gateway, for the hosts that are declared to have
//! one.
//!
//! The gateway listens on this machine and not in the network of the pods, so its pod is on the network of the machine, too. It ends
//! TLS, as it has to read requests, and speaks to the gateway as its client did: by TLS or without, from the address of that
//! client, so that limits by client are those that they would be without it.
//!
//! A host is behind it as a whole, as a name has one address: with all its paths, also those of services that declare none.
//! Not handled: gRPC, which nginx passes on in another way; such a host comes to the gateway itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use landfall_model::{Architecture, PortProtocol};
use landfall_standin::{Server, find_server};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Plan;
use super::externals::deployment;
use super::unenforced::listed;
use crate::commands::up::running::{Entrances, FirewallEntrance};

/// Made up here, as no architecture names one.
const IMAGE: &str = "landfall/firewall";

/// What its objects are called.
const FIREWALL: &str = "firewall-on-this-machine";

/// Where its pod has its configuration, its certificate, and its data with the rules of the machine.
const CONFIGURATION: &str = "/etc/landfall-firewall";
const CERTIFICATE: &str = "/tls";
const DATA: &str = "/firewall";

/// The header of its own answers: by it a refusal is told from one of a service.
pub(in crate::commands::up) const FIREWALL_HEADER: &str = "x-landfall-firewall";

/// The value of that header where it has refused a request.
pub(in crate::commands::up) const REFUSED: &str = "refused";

/// How the core rules are used: as they come, but for what they would say of methods and media types.
const RULES: &str = r#"SecRuleEngine On
SecAuditEngine Off
SecDefaultAction "phase:1,log,pass"
SecDefaultAction "phase:2,log,pass"

# So much of a body is looked at; the rest passes.
SecRequestBodyAccess On
SecRequestBodyLimit 131072
SecRequestBodyNoFilesLimit 131072
SecRequestBodyLimitAction ProcessPartial
SecResponseBodyAccess Off
SecRule REQUEST_HEADERS:Content-Type "@rx ^application/(?:[a-z.-]+\+)?json" "id:1,phase:1,pass,nolog,t:lowercase,ctl:requestBodyProcessor=JSON"
SecRule REQUEST_HEADERS:Content-Type "@rx ^(?:application|text)/(?:[a-z.-]+\+)?xml" "id:2,phase:1,pass,nolog,t:lowercase,ctl:requestBodyProcessor=XML"

# The rules refuse to work before somebody says for which of their versions this was written.
SecAction "id:3,phase:1,pass,nolog,setvar:tx.crs_setup_version=330"
# Their lowest level of paranoia, by the names that it has had.
SecAction "id:4,phase:1,pass,nolog,setvar:tx.paranoia_level=1,setvar:tx.blocking_paranoia_level=1"
# Which methods a service takes is its own business, and so are media types (rule 920420).
SecAction "id:5,phase:1,pass,nolog,setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE'"
Include /firewall/core-rules/*.conf
SecRuleRemoveById 920420
"#;

/// The firewall of a platform.
pub(in crate::commands::up) struct FirewallPlan {
    /// The namespace of its pod.
    pub(in crate::commands::up) namespace: String,
    /// What runs here, such as `nginx 1.22.1 with ModSecurity and its core rules 3.3.4`.
    pub(in crate::commands::up) server: String,
    /// The hosts that are behind it, each with the services that are exposed there.
    pub(in crate::commands::up) hosts: BTreeMap<String, BTreeMap<String, Guarded>>,
    /// The hosts that are declared to be and are not.
    pub(in crate::commands::up) passed_over: BTreeSet<String>,
}

/// How a service is exposed that is behind the firewall.
#[derive(Debug)]
pub(in crate::commands::up) struct Guarded {
    pub(in crate::commands::up) path: String,
    pub(in crate::commands::up) tls: bool,
}

impl Plan {
    /// The firewall, where the architecture declares one and this machine has it.
    pub(super) fn add_firewall(&mut self, architecture: &Architecture, program: &Path) {
        let declared: BTreeSet<&str> = architecture.behind_firewall().map(|(name, ..)| name.as_str()).collect();
        if declared.is_empty() {
            return;
        }
        let Some(found) = find_server(Server::Modsecurity) else {
            let (services, remedy) = (listed(declared), Server::Modsecurity.remedy());
            self.left_out.push(format!(
                "no nginx with ModSecurity and its core rules on this machine: the firewall in front of {services} is not enforced, and the gateway lets every request through; try: {remedy}"
            ));
            return;
        };
        let (hosts, passed_over) = hosts(architecture);
        if !passed_over.is_empty() {
            let hosts = listed(passed_over.iter().map(String::as_str));
            self.left_out.push(format!(
                "not handled yet: the firewall in front of {hosts}, where a service speaks gRPC: the gateway lets every request through"
            ));
        }
        if hosts.is_empty() {
            return;
        }
        self.server(IMAGE.to_owned(), program, Server::Modsecurity, &found);
        let namespace = self.outside.clone();
        self.ensure_namespace(&namespace);
        self.firewall = Some(FirewallPlan { namespace, server: found.version, hosts, passed_over });
    }

    /// Puts the firewall between those who come in at `own` and the gateway, which listens there since the engine has started.
    pub(in crate::commands::up) fn open_firewall(&mut self, gateway: &Entrances, own: &FirewallEntrance) {
        if let Some(firewall) = &self.firewall {
            self.additions.extend(objects(firewall, gateway, own));
        }
    }
}

/// The hosts with a service that is behind a firewall, and those of them that it cannot stand before here.
fn hosts(architecture: &Architecture) -> (BTreeMap<String, BTreeMap<String, Guarded>>, BTreeSet<String>) {
    let behind: BTreeSet<&str> = architecture.behind_firewall().map(|(.., expose)| expose.host.as_str()).collect();
    let (mut hosts, mut passed_over) = (BTreeMap::<_, BTreeMap<_, _>>::new(), BTreeSet::new());
    for (name, service, expose) in architecture.exposed().filter(|(.., expose)| behind.contains(expose.host.as_str())) {
        let port = service.port_named(expose.port.as_ref().map(|port| &port.value));
        if port.is_some_and(|(_, port)| port.protocol.value == PortProtocol::Grpc) {
            passed_over.insert(expose.host.value.clone());
        }
        let guarded = Guarded { path: expose.path.value.clone(), tls: expose.tls.is_some() };
        hosts.entry(expose.host.value.clone()).or_default().insert(name.to_string(), guarded);
    }
    hosts.retain(|host, _| !passed_over.contains(host));
    (hosts, passed_over)
}

/// Its pod, its configuration and its certificate.
fn objects(firewall: &FirewallPlan, gateway: &Entrances, own: &FirewallEntrance) -> Vec<Value> {
    let labels = json!({ "app.kubernetes.io/name": FIREWALL });
    let metadata = json!({ "name": FIREWALL, "namespace": firewall.namespace, "labels": labels });
    let hosts: Vec<&String> = firewall.hosts.keys().collect();
    // Whoever signs certificates makes none anew for other names.
    let mut certified = metadata.clone();
    certified["name"] = format!("{FIREWALL}-{}", digest(&format!("{hosts:?}"))).into();
    let text = configuration(gateway, own);
    let container = json!({
        "name": "firewall",
        "image": IMAGE,
        "env": [
            { "name": "FIREWALL_CONFIG", "value": format!("{CONFIGURATION}/nginx.conf") },
            { "name": "FIREWALL_DATA", "value": DATA },
        ],
        "readinessProbe": { "tcpSocket": { "port": own.http.port() }, "periodSeconds": 1 },
        "volumeMounts": [
            { "name": "configuration", "mountPath": CONFIGURATION },
            { "name": "tls", "mountPath": CERTIFICATE },
            { "name": "data", "mountPath": DATA },
        ],
    });
    let volumes = json!([
        { "name": "configuration", "configMap": { "name": FIREWALL } },
        { "name": "tls", "secret": { "secretName": certified["name"] } },
        { "name": "data", "emptyDir": {} },
    ]);
    let mut firewall = deployment(&metadata, &labels, container, &volumes);
    // Its addresses are there once.
    firewall["spec"]["strategy"] = json!({ "type": "Recreate" });
    let template = &mut firewall["spec"]["template"];
    template["spec"]["hostNetwork"] = true.into();
    // It reads its configuration when it starts, so that another one takes another pod.
    template["metadata"]["annotations"] = json!({ "landfall.dev/configuration": digest(&format!("{text}{RULES}")) });
    vec![
        json!({
            "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": certified,
            "spec": {
                "secretName": certified["name"], "dnsNames": hosts,
                "issuerRef": { "kind": "ClusterIssuer", "name": "landfall" },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": { "nginx.conf": text, "modsecurity.conf": RULES },
        }),
        firewall,
    ]
}

fn digest(text: &str) -> String {
    let mut digest = format!("{:x}", Sha256::digest(text));
    digest.truncate(16);
    digest
}

/// What nginx does with a request: the rules look at it, and it goes on to the gateway as it came.
fn configuration(gateway: &Entrances, own: &FirewallEntrance) -> String {
    let (http, https, own_http, own_https) = (gateway.http, gateway.https, own.http, own.https);
    format!(
        r#"# Why a request was refused is told here.
error_log stderr error;
pid nginx.pid;
worker_processes 2;

events {{
    worker_connections 1024;
}}

http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;

    upstream gateway-http {{
        server {http} max_fails=0;
    }}
    upstream gateway-https {{
        server {https} max_fails=0;
    }}
    map $http_upgrade $hop {{
        "" close;
        default upgrade;
    }}
    # Refused, and nobody behind was asked.
    map "$status:$upstream_status" $refused {{
        "403:" {REFUSED};
    }}

    server {{
        listen {own_http};
        listen {own_https} ssl http2;
        ssl_certificate {CERTIFICATE}/tls.crt;
        ssl_certificate_key {CERTIFICATE}/tls.key;

        modsecurity on;
        modsecurity_rules_file {CONFIGURATION}/modsecurity.conf;
        proxy_hide_header {FIREWALL_HEADER};
        add_header {FIREWALL_HEADER} $refused always;

        # How large and how late something may be, and which headers it may have, the gateway says.
        client_max_body_size 0;
        large_client_header_buffers 8 32k;
        proxy_buffers 8 32k;
        proxy_buffer_size 32k;
        underscores_in_headers on;
        proxy_read_timeout 1h;
        proxy_send_timeout 1h;
        proxy_buffering off;

        # The gateway is asked as the client has asked, from where the client is.
        proxy_bind $remote_addr;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $hop;
        proxy_ssl_server_name on;
        proxy_ssl_name $host;
        proxy_ssl_verify on;
        # What a session was found to be at its first handshake it stays, also when the gateway had no certificate yet.
        proxy_ssl_session_reuse off;
        proxy_ssl_trusted_certificate {CERTIFICATE}/ca.crt;

        location / {{
            proxy_pass $scheme://gateway-$scheme;
        }}
    }}
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::commands::up::architecture_of;

    fn told(services: &str) -> String {
        let architecture = architecture_of(&format!("landfall: v1\nname: shop\n{services}"));
        let (hosts, passed_over) = hosts(&architecture);
        let hosts = hosts.iter().map(|(host, services)| {
            let services = services.iter().map(|(name, guarded)| format!("{name} at {}", guarded.path));
            format!("{host}: {}", services.collect::<Vec<_>>().join(", "))
        });
        let hosts: Vec<_> = hosts.chain(passed_over.iter().map(|host| format!("not {host}"))).collect();
        hosts.join("\n")
    }

    #[test]
    fn a_host_is_behind_the_firewall_as_a_whole_when_one_of_its_services_is() {
        let shop = "
services:
  web: { port: 8080, expose: { host: shop.example, waf: true } }
  admin: { port: 8080, expose: { host: shop.example, path: /admin } }
  open: { port: 8080, expose: { host: open.example } }
";
        insta::assert_snapshot!(told(shop), @"shop.example: admin at /admin, web at /");
        let all = format!("platform: {{ edge: [waf] }}\n{shop}");
        insta::assert_snapshot!(told(&all), @"
        open.example: open at /
        shop.example: admin at /admin, web at /
        ");
    }

    #[test]
    fn a_host_with_a_service_that_speaks_grpc_is_not_behind_it() {
        let shop = "
services:
  web: { port: 8080, expose: { host: shop.example, waf: true } }
  rpc: { ports: { rpc: { port: 9090, protocol: grpc } }, expose: { host: shop.example, path: /rpc } }
";
        insta::assert_snapshot!(told(shop), @"not shop.example");
    }

    fn listening() -> (Entrances, FirewallEntrance) {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let gateway = Entrances { http: at(8080), https: at(8443), firewall: None };
        (gateway, FirewallEntrance { http: at(4080), https: at(4443), hosts: BTreeSet::new() })
    }

    #[test]
    fn another_address_of_the_gateway_takes_another_pod() {
        let firewall = FirewallPlan {
            namespace: "shop-externals".to_owned(),
            server: String::new(),
            hosts: [("shop.example".to_owned(), BTreeMap::new())].into(),
            passed_over: BTreeSet::new(),
        };
        let (mut gateway, own) = listening();
        let mut pod = |port| {
            gateway.http.set_port(port);
            let objects = objects(&firewall, &gateway, &own);
            objects[2]["spec"]["template"].clone()
        };
        assert_eq!(pod(8080), pod(8080));
        assert_ne!(pod(8080), pod(8081));
        assert_eq!(pod(8080)["spec"]["hostNetwork"], true);
    }

    #[test]
    fn requests_are_looked_at_and_go_on_to_the_gateway_as_they_came() {
        let (gateway, own) = listening();
        insta::assert_snapshot!(configuration(&gateway, &own), @r#"
        # Why a request was refused is told here.
        error_log stderr error;
        pid nginx.pid;
        worker_processes 2;

        events {
            worker_connections 1024;
        }

        http {
            access_log off;
            client_body_temp_path body;
            proxy_temp_path proxy;
            fastcgi_temp_path fastcgi;
            scgi_temp_path scgi;
            uwsgi_temp_path uwsgi;

            upstream gateway-http {
                server 127.0.0.1:8080 max_fails=0;
            }
            upstream gateway-https {
                server 127.0.0.1:8443 max_fails=0;
            }
            map $http_upgrade $hop {
                "" close;
                default upgrade;
            }
            # Refused, and nobody behind was asked.
            map "$status:$upstream_status" $refused {
                "403:" refused;
            }

            server {
                listen 127.0.0.1:4080;
                listen 127.0.0.1:4443 ssl http2;
                ssl_certificate /tls/tls.crt;
                ssl_certificate_key /tls/tls.key;

                modsecurity on;
                modsecurity_rules_file /etc/landfall-firewall/modsecurity.conf;
                proxy_hide_header x-landfall-firewall;
                add_header x-landfall-firewall $refused always;

                # How large and how late something may be, and which headers it may have, the gateway says.
                client_max_body_size 0;
                large_client_header_buffers 8 32k;
                proxy_buffers 8 32k;
                proxy_buffer_size 32k;
                underscores_in_headers on;
                proxy_read_timeout 1h;
                proxy_send_timeout 1h;
                proxy_buffering off;

                # The gateway is asked as the client has asked, from where the client is.
                proxy_bind $remote_addr;
                proxy_http_version 1.1;
                proxy_set_header Host $http_host;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $hop;
                proxy_ssl_server_name on;
                proxy_ssl_name $host;
                proxy_ssl_verify on;
                # What a session was found to be at its first handshake it stays, also when the gateway had no certificate yet.
                proxy_ssl_session_reuse off;
                proxy_ssl_trusted_certificate /tls/ca.crt;

                location / {
                    proxy_pass $scheme://gateway-$scheme;
                }
            }
        }
        "#);
    }
}
