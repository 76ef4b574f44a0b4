//! An MQTT broker: Mosquitto, as a plain `StatefulSet`.
//!
//! Not handled: more than one member. Mosquitto does not form clusters; members would be brokers that do not know each
//! other's messages, so one is rendered and a finding says so.

use crate::json::json;

use super::access::{PASSWORD_KEY, USERNAME_KEY};
use super::statefulset::{self, CONFIGURATION, Server, TLS, probe, tcp};
use super::{Site, from_secret, images};
use crate::object::Object;

pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let image = images::mosquitto(site.store);
    let server = Server {
        user: 1883,
        command: vec!["mosquitto".to_owned(), "-c".to_owned(), format!("{CONFIGURATION}/mosquitto.conf")],
        ports: vec![("mqtt", site.access.port)],
        data: "/mosquitto/data",
        keeps_data: site.is_persistent(),
        files: vec![("mosquitto.conf", configuration(site))],
        startup: probe(&tcp("mqtt"), 2, 30),
        ready: probe(&tcp("mqtt"), 10, 3),
        live: probe(&tcp("mqtt"), 20, 3),
        // Mosquitto reads hashed passwords from a file; the Secret has the password itself.
        before: vec![json!({
            "name": "passwords",
            "image": &image,
            "command": ["sh", "-c", "umask 0077; mosquitto_passwd -b -c /run/passwords/passwords \"$USERNAME\" \"$PASSWORD\""],
            "env": [
                from_secret("USERNAME", &credentials.secret, USERNAME_KEY),
                from_secret("PASSWORD", &credentials.secret, PASSWORD_KEY),
            ],
            "volumeMounts": [{ "name": "passwords", "mountPath": "/run/passwords" }],
        })],
        volumes: vec![json!({ "name": "passwords", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } })],
        mounts: vec![json!({ "name": "passwords", "mountPath": "/run/passwords", "readOnly": true })],
        image: image.clone(),
        ..Server::default()
    };
    statefulset::objects(site, server)
}

fn configuration(site: &Site<'_>) -> String {
    let mut lines = vec![
        format!("listener {}", site.access.port),
        "allow_anonymous false".to_owned(),
        "password_file /run/passwords/passwords".to_owned(),
        "log_dest stdout".to_owned(),
    ];
    if site.is_persistent() {
        lines.push("persistence true".to_owned());
        lines.push("persistence_location /mosquitto/data/".to_owned());
        // What came since the last save is lost with the process.
        lines.push("autosave_interval 30".to_owned());
    } else {
        lines.push("persistence false".to_owned());
    }
    if site.access.tls {
        lines.push(format!("cafile {TLS}/ca.crt"));
        lines.push(format!("certfile {TLS}/tls.crt"));
        lines.push(format!("keyfile {TLS}/tls.key"));
    }
    lines.join("\n") + "\n"
}
