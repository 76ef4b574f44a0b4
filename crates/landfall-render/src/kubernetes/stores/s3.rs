//! An S3-compatible object store in the cluster: SeaweedFS.
//!
//! One program holds the parts (master, volume server, filer, S3 gateway), so that a plain `StatefulSet` is enough.
//! Each member makes the buckets after its start; a bucket that is there is left as it is.

use crate::json::json;

use super::statefulset::{self, CONFIGURATION, Server, Start, TLS, exec, probe};
use super::{Site, from_secret, images};
use crate::object::Object;

/// The ports of the parts, for members and probes.
const MASTER: u16 = 9333;
const VOLUME: u16 = 8080;
const FILER: u16 = 8888;
const METRICS: u16 = 9327;

/// How SeaweedFS writes the number of further copies: on other servers of the same rack.
fn replication(site: &Site<'_>) -> String {
    let copies = site.store.replication.as_ref().map_or_else(|| site.members().min(2), |replication| replication.value);
    format!("00{}", copies.saturating_sub(1))
}

pub(super) fn statefulset(site: &Site<'_>) -> Vec<Object> {
    let credentials = site.credentials();
    let port = site.access.port;
    let suffix = format!("{}.{}.svc.cluster.local", site.members_service(), site.subject.namespace);
    let tls = if site.access.tls {
        format!(" \\\n  -s3.cert.file={TLS}/tls.crt -s3.key.file={TLS}/tls.key")
    } else {
        String::new()
    };
    let peers = if site.members() > 1 {
        let masters: Vec<String> = site.member_hosts().iter().map(|host| format!("{host}:{MASTER}")).collect();
        format!(" \\\n  -master.peers={}", masters.join(","))
    } else {
        String::new()
    };
    let start = format!(
        "#!/bin/sh\n\
         set -eu\n\
         exec weed server -dir=/data -ip=\"$HOSTNAME.{suffix}\" -ip.bind=0.0.0.0 \\\n\
         \x20 -master.port={MASTER} -master.defaultReplication={} -volume.port={VOLUME} -volume.max=0 \\\n\
         \x20 -filer -filer.port={FILER} -metricsPort={METRICS} -s3 -s3.port={port}{tls}{peers}\n",
        replication(site)
    );
    let commands: String = site.buckets().iter().map(|bucket| format!("s3.bucket.create -name {bucket}\\n")).collect();
    let buckets = format!(
        "#!/bin/sh\n\
         until wget -q -O /dev/null http://127.0.0.1:{FILER}/; do sleep 1; done\n\
         # Says so and does nothing for a bucket that is there.\n\
         printf '{commands}' | weed shell -master=127.0.0.1:{MASTER} -filer=127.0.0.1:{FILER} || true\n"
    );
    let mut files = vec![("start.sh", start)];
    let mut lifecycle = serde_json::Value::Null;
    if !commands.is_empty() {
        files.push(("buckets.sh", buckets));
        // In the background: a container whose hook goes on counts as not started.
        lifecycle =
            json!({ "postStart": exec(&["sh", "-c", &format!("sh {CONFIGURATION}/buckets.sh >/dev/null 2>&1 &")]) });
    }
    let gateway = statefulset::tcp("s3");
    let server = Server {
        image: images::seaweedfs(site.store),
        user: 1000,
        command: vec!["sh".to_owned(), format!("{CONFIGURATION}/start.sh")],
        environment: vec![
            from_secret(super::access::ACCESS_KEY, &credentials.secret, super::access::ACCESS_KEY),
            from_secret(super::access::SECRET_KEY, &credentials.secret, super::access::SECRET_KEY),
        ],
        ports: vec![
            ("s3", port),
            ("master", MASTER),
            ("volume", VOLUME),
            ("filer", FILER),
            ("metrics", METRICS),
            ("master-grpc", MASTER + 10_000),
            ("volume-grpc", VOLUME + 10_000),
            ("filer-grpc", FILER + 10_000),
        ],
        data: "/data",
        keeps_data: site.is_persistent(),
        scratch: vec!["/tmp"],
        files,
        startup: probe(&gateway, 5, 60),
        ready: probe(&gateway, 10, 3),
        live: probe(&gateway, 20, 6),
        lifecycle,
        // Masters elect one of them before any volume is served.
        start: Start::Together,
        grace: 60,
        ..Server::default()
    };
    statefulset::objects(site, server)
}
