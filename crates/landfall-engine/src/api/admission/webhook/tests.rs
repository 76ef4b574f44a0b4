//! Webhooks over real TLS: a server in the test answers the reviews.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::api::tests::{send, server};
use crate::network::Dial;

/// A webhook that answers each review with what `answer` makes of its request, and remembers the requests.
struct Hook {
    address: SocketAddr,
    authority: String,
    asked: Arc<Mutex<Vec<Value>>>,
    _serving: JoinSet<()>,
}

impl Hook {
    async fn start(answer: fn(&Value) -> Value) -> Self {
        let names = ["localhost".to_owned(), "hook.default.svc".to_owned()];
        let signed = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("known versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .expect("they belong together");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let remembered = Arc::clone(&asked);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, remembered) = (acceptor.clone(), Arc::clone(&remembered));
                connections.spawn(async move {
                    // A client that does not trust the certificate goes away.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let reply = service_fn(move |request: hyper::Request<Incoming>| {
                        let remembered = Arc::clone(&remembered);
                        async move {
                            let body = request.into_body().collect().await?.to_bytes();
                            let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                            remembered.lock().expect("no panic holds it").push(review["request"].clone());
                            let mut response = answer(&review["request"]);
                            if response.get("uid").is_none() {
                                response["uid"] = review["request"]["uid"].clone();
                            }
                            let answer = json!({
                                "kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response,
                            });
                            Ok::<_, hyper::Error>(hyper::Response::new(Full::new(Bytes::from(answer.to_string()))))
                        }
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    drop(served.serve_connection(TokioIo::new(stream), reply).await);
                });
            }
        });
        Self { address, authority: signed.cert.pem(), asked, _serving: serving }
    }

    /// The configuration of it for config maps, with what `more` says.
    fn configuration(&self, kind: &str, more: &Value) -> Value {
        let mut webhook = json!({
            "name": "hook.example.com",
            "clientConfig": {
                "url": format!("https://localhost:{}/review", self.address.port()),
                "caBundle": BASE64_STANDARD.encode(&self.authority),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
        });
        json_patch::merge(&mut webhook, more);
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": "hook"}, "webhooks": [webhook],
        })
    }

    fn asked(&self) -> Vec<Value> {
        std::mem::take(&mut *self.asked.lock().expect("no panic holds it"))
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

fn config_map(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"a": "1"}})
}

fn refuse_twos(request: &Value) -> Value {
    if request["object"]["data"]["a"] == "2" {
        return json!({"allowed": false, "status": {"message": "no twos", "code": 403, "reason": "Forbidden"}});
    }
    json!({"allowed": true, "warnings": ["seen"]})
}

#[tokio::test]
async fn a_validating_webhook_sees_each_write_and_may_refuse_it() {
    let (server, hook) = (server().await, Hook::start(refuse_twos).await);
    let configuration = hook.configuration("ValidatingWebhookConfiguration", &json!({}));
    let (code, answer) = send(&server, "POST", VALIDATING, configuration).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let path = format!("{MAPS}/one");
    let (code, answer) = send(&server, "PATCH", &path, json!({"data": {"a": "2"}})).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(answer["message"], "admission webhook \"hook.example.com\" denied the request: no twos");
    assert_eq!(answer["reason"], "Forbidden");
    let (code, _) = send(&server, "DELETE", &path, Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let asked = hook.asked();
    let told: Vec<_> = asked
        .iter()
        .map(|request| (request["operation"].as_str(), request["name"].as_str(), request["options"]["kind"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (Some("CREATE"), Some("one"), Some("CreateOptions")),
            (Some("UPDATE"), Some("one"), Some("PatchOptions")),
            (Some("DELETE"), Some("one"), Some("DeleteOptions")),
        ]
    );
    assert_eq!(asked[0]["oldObject"], Value::Null);
    assert_eq!(asked[1]["oldObject"]["data"]["a"], "1");
    assert_eq!(asked[2]["object"], Value::Null);
    assert_eq!(asked[0]["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(asked[0]["userInfo"]["username"], "test");
}

#[tokio::test]
async fn a_mutating_webhook_changes_the_object_before_it_is_stored() {
    fn label(_: &Value) -> Value {
        let patch = json!([{"op": "add", "path": "/metadata/labels/hooked", "value": "yes"}]);
        json!({"allowed": true, "patchType": "JSONPatch", "patch": BASE64_STANDARD.encode(patch.to_string())})
    }
    let (server, hook) = (server().await, Hook::start(label).await);
    let configuration = hook.configuration("MutatingWebhookConfiguration", &json!({}));
    send(&server, "POST", MUTATING, configuration).await;
    let (_, created) = send(&server, "POST", MAPS, config_map("one", &json!({"app": "a"}))).await;
    assert_eq!(created["metadata"]["labels"], json!({"app": "a", "hooked": "yes"}));
    let (code, answer) = send(&server, "DELETE", &format!("{MAPS}/one"), Value::Null).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        answer["message"],
        "Internal error occurred: admission webhook \"hook.example.com\" attempted to modify the object, which is not \
         supported for this operation"
    );
}

#[tokio::test]
async fn selectors_and_conditions_say_which_writes_a_webhook_sees() {
    let (server, hook) = (server().await, Hook::start(refuse_twos).await);
    let more = json!({
        "objectSelector": {"matchLabels": {"app": "a"}},
        "matchConditions": [{"name": "named", "expression": "object.metadata.name != 'left-out'"}],
    });
    send(&server, "POST", VALIDATING, hook.configuration("ValidatingWebhookConfiguration", &more)).await;
    for (name, labels) in [("seen", json!({"app": "a"})), ("left-out", json!({"app": "a"})), ("other", json!({}))] {
        let (code, answer) = send(&server, "POST", MAPS, config_map(name, &labels)).await;
        assert_eq!(code, StatusCode::CREATED, "{answer}");
    }
    let names: Vec<_> = hook.asked().iter().map(|request| request["name"].clone()).collect();
    assert_eq!(names, ["seen"]);
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_stops_writes_unless_it_may_be_passed_over() {
    fn foreign(_: &Value) -> Value {
        json!({"uid": "another", "allowed": true})
    }
    let (server, hook) = (server().await, Hook::start(foreign).await);
    send(&server, "POST", VALIDATING, hook.configuration("ValidatingWebhookConfiguration", &json!({}))).await;
    let (code, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    let message = answer["message"].as_str().expect("a message");
    let prefix = "Internal error occurred: failed calling webhook \"hook.example.com\": received invalid webhook \
                  response: expected response.uid=";
    assert!(message.starts_with(prefix), "{message}");
    let path = format!("{VALIDATING}/hook");
    let mut ignoring = hook.configuration("ValidatingWebhookConfiguration", &json!({"failurePolicy": "Ignore"}));
    let (_, live) = send(&server, "GET", &path, Value::Null).await;
    ignoring["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    let (code, answer) = send(&server, "PUT", &path, ignoring).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let (code, _) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn a_webhook_with_a_certificate_of_somebody_else_is_not_believed() {
    let (server, hook) = (server().await, Hook::start(refuse_twos).await);
    let other = Hook::start(refuse_twos).await;
    let bundle = json!({"clientConfig": {"caBundle": BASE64_STANDARD.encode(&other.authority)}});
    send(&server, "POST", VALIDATING, hook.configuration("ValidatingWebhookConfiguration", &bundle)).await;
    let (code, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains("failed to call webhook: Post \"https://localhost:"), "{message}");
    assert!(message.contains("tls: "), "{message}");
}

#[tokio::test]
async fn a_webhook_is_told_that_a_write_is_only_tried() {
    let (server, hook) = (server().await, Hook::start(refuse_twos).await);
    send(&server, "POST", VALIDATING, hook.configuration("ValidatingWebhookConfiguration", &json!({}))).await;
    send(&server, "POST", &format!("{MAPS}?dryRun=All"), config_map("one", &json!({}))).await;
    send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"]});
    send(&server, "DELETE", &format!("{MAPS}/one"), options).await;
    let tried: Vec<_> = hook.asked().iter().map(|request| request["dryRun"].clone()).collect();
    assert_eq!(tried, [true, false, true]);
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_as_kubernetes_refuses_it() {
    let server = server().await;
    let webhook = json!({"name": "short.name", "clientConfig": {"url": "http://localhost/"}, "sideEffects": "Some",
        "timeoutSeconds": 31, "admissionReviewVersions": ["v2"], "rules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["pods"], "operations": ["*", "READ"]}]});
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "hook"}, "webhooks": [webhook]});
    let (code, answer) = send(&server, "POST", VALIDATING, configuration).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let causes = answer["details"]["causes"].as_array().expect("causes");
    let fields: Vec<_> = causes.iter().filter_map(|cause| cause["field"].as_str()).collect();
    assert_eq!(
        fields,
        [
            "webhooks[0].name",
            "webhooks[0].rules[0].operations",
            "webhooks[0].rules[0].operations[1]",
            "webhooks[0].sideEffects",
            "webhooks[0].timeoutSeconds",
            "webhooks[0].clientConfig.url",
            "webhooks[0].admissionReviewVersions",
        ]
    );
}

/// Everything is at one address.
struct Everywhere(SocketAddr);

impl Dial for Everywhere {
    fn dial(&self, _: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(self.0))
    }
}

#[tokio::test]
async fn a_webhook_of_the_cluster_is_reached_at_a_ready_endpoint_of_its_service() {
    let (server, hook) = (server().await, Hook::start(refuse_twos).await);
    server.set_dialer(Arc::new(Everywhere(hook.address)));
    let client = json!({"clientConfig": {"url": null, "service": {"namespace": "default", "name": "hook"}}});
    let configuration = hook.configuration("ValidatingWebhookConfiguration", &client);
    let (code, answer) = send(&server, "POST", VALIDATING, configuration).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (_, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(
        answer["message"],
        "Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: Post \
         \"https://hook.default.svc:443/?timeout=5s\": service \"hook\" not found"
    );
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}});
    send(&server, "POST", "/api/v1/namespaces/default/services", service).await;
    let (_, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(message.ends_with("no endpoints available for service \"hook\""), "{message}");
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "https", "port": 8443, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": true}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let (code, answer) = send(&server, "POST", slices, slice).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, answer) = send(&server, "POST", MAPS, config_map("one", &json!({}))).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}
