//! The names of a cluster as hosts files, for pods that share the network of the machine: a DNS server of their own would have to
//! listen on port 53 of an address, which an ordinary user's engine may not.
//!
//! Each pod has a file of its own in a folder of its own, which its containers see: a file that takes the place of another is then
//! seen at once, and never half of one. A hosts file knows no search list (hosts(5)), so that every short form is written that
//! the search list of the pod's namespace allows.
//!
//! Not handled: what a hosts file cannot say. There are no `SRV` and `TXT` records, no names for all addresses (`a-b-c-d.NAMESPACE.pod`),
//! and a name of an `ExternalName` outside of the cluster is not there.

use std::collections::btree_map::Entry;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::names::{self, ALIASES, Answer, Directory, Question, ZONE};
use super::{News, RETRY, SETTLE};
use crate::context::Context;

/// The name of the file in the folder of a pod.
const FILE: &str = "hosts";

/// The hosts files of the pods of an engine; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct HostsFiles {
    folder: PathBuf,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    pods: BTreeMap<String, Reader>,
    /// What follows the lines of a pod itself, by namespace. Empty until the objects are read.
    names: BTreeMap<String, String>,
}

/// A pod that reads such a file.
#[derive(Debug)]
struct Reader {
    namespace: String,
    /// The lines of the pod itself.
    own: String,
    written: String,
}

/// Services and their endpoints, as of now.
struct View<'a, D> {
    directory: &'a D,
    services: &'a [Arc<Service>],
    slices: &'a [Arc<EndpointSlice>],
}

impl HostsFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, known: Arc::default() }
    }

    /// A number of this engine's own, as others may be at work on this machine.
    pub(super) fn number(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        self.folder.hash(&mut hasher);
        u32::try_from(hasher.finish() & u64::from(u32::MAX)).expect("it has 32 bits")
    }

    /// Writes the file of a pod, with these lines of its own first, and keeps it current from now on. Returns its folder.
    pub(super) fn introduce(&self, uid: &str, namespace: &str, own: &str) -> io::Result<PathBuf> {
        let folder = self.folder.join(uid);
        let mut known = self.lock();
        let written = text(own, known.names.get(namespace));
        fs::create_dir_all(&folder)?;
        replace(&folder, &written)?;
        let reader = Reader { namespace: namespace.to_owned(), own: own.to_owned(), written };
        known.pods.insert(uid.to_owned(), reader);
        Ok(folder)
    }

    /// The pod has ended.
    pub(super) fn forget(&self, uid: &str) {
        // Under the lock, so that the file is not written once more meanwhile.
        let mut known = self.lock();
        known.pods.remove(uid);
        match fs::remove_dir_all(self.folder.join(uid)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn!(uid, %error, "a hosts file was left behind"),
            _ => {}
        }
    }

    /// Removes the files of pods that are none of these: they were deleted while no engine was there.
    pub(super) fn retain(&self, uids: &BTreeSet<String>) {
        let folders = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let uid = |entry: fs::DirEntry| entry.file_name().into_string().ok();
        folders.filter_map(uid).filter(|uid| !uids.contains(uid)).for_each(|uid| self.forget(&uid));
    }

    /// Keeps the files current until cancelled.
    pub(super) async fn run(self, context: Context, cancel: CancellationToken) {
        let mut news = News::default();
        news.of(&context.caches.services);
        news.of(&context.caches.endpoint_slices);
        news.of(&context.caches.namespaces);
        let caches = context.caches;
        loop {
            let (services, slices) = (caches.services.list(), caches.endpoint_slices.list());
            let view = View { directory: &caches, services: &services, slices: &slices };
            let namespaces = caches.namespaces.list();
            let namespaces = namespaces.iter().filter_map(|namespace| namespace.metadata.name.clone());
            let names = namespaces.map(|namespace| (namespace.clone(), lines(&view, &namespace))).collect();
            let wait = match self.tell(names) {
                Ok(()) => Duration::MAX,
                Err(error) => {
                    warn!(%error, "failed to write the hosts file of a pod");
                    RETRY
                }
            };
            // Nothing is lost when an arm is dropped: the channel keeps that there was a change.
            tokio::select! {
                () = cancel.cancelled() => return,
                () = news.next() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Writes the files in which something changes. What fails does not keep the others from theirs; the last error is told.
    fn tell(&self, names: BTreeMap<String, String>) -> io::Result<()> {
        let mut known = self.lock();
        let Known { pods, names: last } = &mut *known;
        *last = names;
        let mut told = Ok(());
        for (uid, reader) in pods {
            let wanted = text(&reader.own, last.get(&reader.namespace));
            if wanted != reader.written {
                match replace(&self.folder.join(uid), &wanted) {
                    Ok(()) => reader.written = wanted,
                    Err(error) => told = Err(error),
                }
            }
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(own: &str, names: Option<&String>) -> String {
    format!("{own}{}", names.map_or("", String::as_str))
}

/// Puts a file with this text in the place of the one that is there.
fn replace(folder: &Path, text: &str) -> io::Result<()> {
    let new = folder.join("new");
    fs::write(&new, text)?;
    fs::rename(new, folder.join(FILE))
}

/// What the pods of a namespace read of the names of the cluster. Pure.
fn lines(view: &View<'_, impl Directory>, namespace: &str) -> String {
    let mut by_name = BTreeMap::<String, Vec<Ipv4Addr>>::new();
    // As with a search list, the nearer name hides the one further away.
    let (near, far): (Vec<_>, Vec<_>) = records(view).into_iter().partition(|record| record.namespace == namespace);
    for record in &near {
        insert(&mut by_name, record.name.clone(), record);
    }
    for record in near.iter().chain(&far) {
        let short = format!("{}.{}", record.name, record.namespace);
        for name in [short.clone(), format!("{short}.svc"), format!("{short}.svc.{ZONE}")] {
            insert(&mut by_name, name, record);
        }
    }
    for service in view.services {
        for host in names::published_as(service) {
            if let Answer::Addresses(addresses) = names::resolve(view.directory, &host, Question::Address) {
                by_name.entry(host).or_insert(addresses);
            }
        }
    }
    let mut by_address = BTreeMap::<Ipv4Addr, BTreeSet<String>>::new();
    for (name, addresses) in by_name {
        for address in addresses {
            by_address.entry(address).or_default().insert(name.clone());
        }
    }
    let mut text = String::new();
    for (address, names) in by_address {
        let names: Vec<String> = names.into_iter().collect();
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// A name within a namespace: `web`, or `store-0.store`.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    name: String,
    namespace: String,
    addresses: Vec<Ipv4Addr>,
}

fn insert(by_name: &mut BTreeMap<String, Vec<Ipv4Addr>>, name: String, record: &Record) {
    if let Entry::Vacant(vacant) = by_name.entry(name) {
        vacant.insert(record.addresses.clone());
    }
}

/// The services, and the pods of headless ones that have a name.
fn records(view: &View<'_, impl Directory>) -> Vec<Record> {
    let mut names = BTreeSet::new();
    for service in view.services {
        if let (Some(name), Some(namespace)) = (&service.metadata.name, &service.metadata.namespace) {
            names.insert((name.clone(), namespace.clone()));
        }
    }
    for slice in view.slices {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        let (Some(service), Some(namespace)) = (service, &slice.metadata.namespace) else { continue };
        for hostname in slice.endpoints.iter().flatten().filter_map(|endpoint| endpoint.hostname.as_ref()) {
            names.insert((format!("{hostname}.{service}"), namespace.clone()));
        }
    }
    let found = names.into_iter().filter_map(|(name, namespace)| {
        let addresses = addresses(view.directory, format!("{name}.{namespace}.svc.{ZONE}"))?;
        Some(Record { name, namespace, addresses })
    });
    found.collect()
}

/// What a name leads to, by way of others if need be.
fn addresses(directory: &impl Directory, mut name: String) -> Option<Vec<Ipv4Addr>> {
    for _ in 0..ALIASES {
        match names::resolve(directory, &name, Question::Address) {
            Answer::Addresses(addresses) => return Some(addresses),
            Answer::Alias(target) => name = target,
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::names::tests::cluster;

    fn read(namespace: &str) -> String {
        let cluster = cluster();
        let view = View { directory: &cluster, services: &cluster.services, slices: &cluster.slices };
        lines(&view, namespace)
    }

    #[test]
    fn a_pod_reads_every_form_of_a_name_that_its_search_list_allows() {
        // Who is not ready is not there, and neither is who has no address.
        assert_eq!(
            read("shop"),
            "10.96.0.5\tweb web.shop web.shop.svc web.shop.svc.cluster.local\n\
             10.96.0.9\tapi.carrier.example carrier carrier.example carrier.shop carrier.shop.svc carrier.shop.svc.cluster.local\n\
             10.244.0.7\tstore store-0.store store-0.store.shop store-0.store.shop.svc store-0.store.shop.svc.cluster.local \
             store.shop store.shop.svc store.shop.svc.cluster.local\n\
             10.244.0.8\tstore store.shop store.shop.svc store.shop.svc.cluster.local\n"
        );
    }

    #[test]
    fn a_pod_elsewhere_reads_no_name_without_its_namespace() {
        assert_eq!(read("bank").lines().next(), Some("10.96.0.5\tweb.shop web.shop.svc web.shop.svc.cluster.local"),);
    }

    #[test]
    fn a_file_is_replaced_when_names_change_and_goes_with_its_pod() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let files = HostsFiles::new(folder.path().to_owned());
        let of_pod = files.introduce("uid", "shop", "127.64.0.1\tweb-0\n").expect("it can be written");
        let read = || fs::read_to_string(of_pod.join(FILE)).expect("it is there");
        assert_eq!(read(), "127.64.0.1\tweb-0\n");
        let names = |text: &str| BTreeMap::from([("shop".to_owned(), text.to_owned())]);
        // Whoever has it open reads the old one to its end.
        let open = fs::File::open(of_pod.join(FILE)).expect("it is there");
        files.tell(names("127.32.0.5\tstock\n")).expect("it can be written");
        assert_eq!(read(), "127.64.0.1\tweb-0\n127.32.0.5\tstock\n");
        assert_eq!(io::read_to_string(open).expect("it can be read"), "127.64.0.1\tweb-0\n");

        files.retain(&BTreeSet::from(["another".to_owned()]));
        assert!(!of_pod.exists());
        files.tell(names("")).expect("nobody reads any");
        assert!(!of_pod.exists());
    }
}
