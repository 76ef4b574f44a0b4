//! The volumes of a pod: their files, and where its containers see them.
//!
//! What comes from objects (config maps, secrets, the downward API, tokens) is written as Kubernetes writes it: the files lie
//! in a folder named by the time, `..data` links to it and each file is a link through `..data`, so that one rename
//! changes all of them at once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod, Secret,
    ServiceAccount, Volume,
};
use kube::Api;
use kube::api::PostParams;
use serde_json::Value;

use super::environment::{self, Place};
use crate::cache::{Cache, Kind, ObjectKey};
use crate::context::Context;
use crate::runtime::Mount;

/// The files of a volume: their content and permissions.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// The permissions of a file when nobody says otherwise.
const DEFAULT_MODE: i32 = 0o644;

/// Why a volume cannot be had (yet), as Kubernetes says it in `FailedMount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeError {
    pub(super) volume: String,
    pub(super) message: String,
}

/// Where each volume of a pod lies, by its name.
pub(super) type Volumes = BTreeMap<String, PathBuf>;

/// What volumes are made of.
pub(super) struct Maker<'a> {
    pub(super) context: &'a Context,
    pub(super) pod: &'a Pod,
    pub(super) place: &'a Place,
    /// The pod's folder.
    pub(super) folder: &'a Path,
    /// Its folder in memory.
    pub(super) run: &'a Path,
    /// Where persistent volumes of no other origin lie.
    pub(super) persistent: &'a Path,
}

impl Maker<'_> {
    /// Makes all volumes, or brings those that come from objects up to date.
    pub(super) async fn make(&self) -> Result<Volumes, VolumeError> {
        let mut volumes = Volumes::new();
        for volume in self.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let path = self.volume(volume).await.map_err(|message| VolumeError {
                volume: volume.name.clone(),
                message: format!("MountVolume.SetUp failed for volume \"{}\" : {message}", volume.name),
            })?;
            volumes.insert(volume.name.clone(), path);
        }
        Ok(volumes)
    }

    async fn volume(&self, volume: &Volume) -> Result<PathBuf, String> {
        if let Some(host) = &volume.host_path {
            return host_path(&host.path, host.type_.as_deref().unwrap_or_default());
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            return self.claim(&claim.claim_name).await;
        }
        if volume.ephemeral.is_some() {
            let name = self.pod.metadata.name.as_deref().unwrap_or_default();
            return self.claim(&format!("{name}-{}", volume.name)).await;
        }
        let is_on_disk = volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref() != Some("Memory"));
        let own = if is_on_disk { self.folder } else { self.run }.join("volumes").join(&volume.name);
        fs::create_dir_all(&own).map_err(|error| error.to_string())?;
        // Not handled: `sizeLimit` of an emptyDir, which shares its file system with others, and huge pages.
        if volume.empty_dir.is_some() {
            fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).map_err(|error| error.to_string())?;
            return Ok(own);
        }
        let mut files = Files::new();
        if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let found = self.config_map(&source.name, source.optional).await?;
            select(found, source.items.as_deref(), mode, &mut files)?;
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let found = self.secret(source.secret_name.as_deref().unwrap_or_default(), source.optional).await?;
            select(found, source.items.as_deref(), mode, &mut files)?;
        } else if let Some(source) = &volume.downward_api {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            self.downward(source.items.as_deref().unwrap_or_default(), mode, &mut files)?;
        } else if let Some(projected) = &volume.projected {
            let mode = projected.default_mode.unwrap_or(DEFAULT_MODE);
            for source in projected.sources.iter().flatten() {
                if let Some(source) = &source.config_map {
                    let found = self.config_map(&source.name, source.optional).await?;
                    select(found, source.items.as_deref(), mode, &mut files)?;
                } else if let Some(source) = &source.secret {
                    let found = self.secret(&source.name, source.optional).await?;
                    select(found, source.items.as_deref(), mode, &mut files)?;
                } else if let Some(source) = &source.downward_api {
                    self.downward(source.items.as_deref().unwrap_or_default(), mode, &mut files)?;
                } else if let Some(source) = &source.service_account_token {
                    let file = own.join(&source.path);
                    let seconds = source.expiration_seconds.unwrap_or(3600);
                    let known = fs::read(&file).ok().filter(|token| still_good(token, seconds, Timestamp::now()));
                    let token = match known {
                        Some(token) => token,
                        None => self.token(source.audience.clone(), seconds).await?.into_bytes(),
                    };
                    files.insert(source.path.clone(), (token, 0o600));
                } else {
                    // Not handled: `clusterTrustBundle` and `podCertificate` sources.
                    return Err("this projected source is not supported".to_owned());
                }
            }
        } else {
            // Not handled: volumes of cloud providers, CSI, NFS, image volumes.
            return Err("this kind of volume is not supported".to_owned());
        }
        write_atomically(&own, &files).map_err(|error| error.to_string())?;
        Ok(own)
    }

    async fn config_map(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let found: Option<ConfigMap> =
            find(self.context, &self.context.caches.config_maps, self.namespace(), name).await;
        match found {
            Some(map) => {
                let texts = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
                let bytes = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
                Ok(texts.chain(bytes).collect())
            }
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    async fn secret(&self, name: &str, optional: Option<bool>) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let found: Option<Secret> = find(self.context, &self.context.caches.secrets, self.namespace(), name).await;
        match found {
            Some(secret) => Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()),
            None if optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32, files: &mut Files) -> Result<(), String> {
        for item in items {
            let text = if let Some(field) = &item.field_ref {
                environment::field(self.pod, field, self.place)?
            } else if let Some(resource) = &item.resource_field_ref {
                let containers = &self.pod.spec.as_ref().ok_or("the pod has no spec")?.containers;
                let first = containers.first().ok_or("the pod has no container")?;
                environment::resource(self.pod, first, resource, self.place)?
            } else {
                continue;
            };
            files.insert(item.path.clone(), (text.into_bytes(), bits(item.mode.unwrap_or(mode))));
        }
        Ok(())
    }

    /// A token of the pod's service account that is good for as long as the pod is there.
    async fn token(&self, audience: Option<String>, seconds: i64) -> Result<String, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.context.client.clone(), self.namespace());
        let account = self.pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(audience.into_iter().collect()),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: self.pod.metadata.name.clone(),
                    uid: self.pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(seconds),
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
        answer.status.and_then(|status| status.token).ok_or_else(|| "the token request was not answered".to_owned())
    }

    async fn claim(&self, name: &str) -> Result<PathBuf, String> {
        let caches = &self.context.caches;
        let claim: Option<PersistentVolumeClaim> =
            find(self.context, &caches.persistent_volume_claims, self.namespace(), name).await;
        let claim = claim.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|_| bound);
        let volume = volume.ok_or_else(|| format!("PVC is not bound: {name}"))?;
        let key = ObjectKey::new("", &volume);
        let found: Option<PersistentVolume> = match caches.persistent_volumes.get(&key) {
            Some(volume) => Some((*volume).clone()),
            None => Api::<PersistentVolume>::all(self.context.client.clone()).get_opt(&volume).await.ok().flatten(),
        };
        let found = found.ok_or_else(|| format!("persistentvolume \"{volume}\" not found"))?;
        let path = path_of(&found).unwrap_or_else(|| self.persistent.join(&volume));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }
}

/// Where a volume says that its data lies. None: what another provisioner would have made elsewhere lies in a folder of
/// ours.
pub(super) fn path_of(volume: &PersistentVolume) -> Option<PathBuf> {
    let spec = volume.spec.as_ref()?;
    let host = spec.host_path.as_ref().map(|host| &host.path);
    host.or_else(|| spec.local.as_ref().map(|local| &local.path)).map(PathBuf::from)
}

/// From the cache or, as the pod may be newer than what the cache has seen, from the server.
pub(super) async fn find<K>(context: &Context, cache: &Cache<K>, namespace: &str, name: &str) -> Option<K>
where
    K: Kind + kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
{
    match cache.get(&ObjectKey::new(namespace, name)) {
        Some(object) => Some((*object).clone()),
        None => Api::<K>::namespaced(context.client.clone(), namespace).get_opt(name).await.ok().flatten(),
    }
}

/// What a container mounts, and from where. `expand` resolves `subPathExpr`.
pub(super) fn mounts(
    container: &Container,
    volumes: &Volumes,
    expand: impl Fn(&str) -> String,
) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.get(&mount.name).ok_or_else(|| format!("volume \"{}\" not found", mount.name))?;
        let below = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => Some(path.clone()),
            (_, Some(path)) if !path.is_empty() => Some(expand(path)),
            _ => None,
        };
        let source = match below {
            None => volume.clone(),
            Some(below) => sub_path(volume, Path::new(&below))?,
        };
        let target = Path::new("/").join(&mount.mount_path);
        mounts.push(Mount { source, target, read_only: mount.read_only == Some(true) });
    }
    Ok(mounts)
}

/// A path inside a volume, made as a folder when it is not there. It must not lead out of it.
fn sub_path(volume: &Path, below: &Path) -> Result<PathBuf, String> {
    if below.is_absolute() || below.components().any(|part| part == Component::ParentDir) {
        return Err(format!("failed to prepare subPath for volumeMount: {} leads out of the volume", below.display()));
    }
    let path = volume.join(below);
    if !path.exists() {
        fs::create_dir_all(&path).map_err(|error| format!("failed to create subPath directory: {error}"))?;
    }
    let (root, real) = (volume.canonicalize(), path.canonicalize());
    match (root, real) {
        (Ok(root), Ok(real)) if real.starts_with(&root) => Ok(real),
        _ => Err(format!("failed to prepare subPath for volumeMount: {} leads out of the volume", below.display())),
    }
}

fn host_path(path: &str, type_: &str) -> Result<PathBuf, String> {
    let found = PathBuf::from(path);
    let wrong = |what: &str| Err(format!("hostPath type check failed: {path} is not a {what}"));
    match type_ {
        "DirectoryOrCreate" => fs::create_dir_all(&found).map_err(|error| error.to_string())?,
        "FileOrCreate" if !found.exists() => fs::write(&found, "").map_err(|error| error.to_string())?,
        "Directory" if !found.is_dir() => return wrong("directory"),
        "File" | "FileOrCreate" if !found.is_file() => return wrong("file"),
        // As container runtimes do with a path that is not there and of which nothing was said.
        "" if !found.exists() => fs::create_dir_all(&found).map_err(|error| error.to_string())?,
        _ => {}
    }
    Ok(found)
}

/// Whether a token has more than a fifth of its time left (the kubelet renews at 80 %), which is `seconds` at most. What does not
/// say when it began and when it ends is to be renewed. All of it is by the clock of the machine.
fn still_good(token: &[u8], seconds: i64, now: Timestamp) -> bool {
    life(token).is_some_and(|(begun, ends)| now.as_second() < begun.saturating_add(seconds.min(ends - begun) / 5 * 4))
}

/// When a token began, and when it ends (RFC 7519, `iat` and `exp`).
fn life(token: &[u8]) -> Option<(i64, i64)> {
    let claims = str::from_utf8(token).ok()?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some((claims["iat"].as_i64()?, claims["exp"].as_i64()?))
}

/// The keys that a volume shows, each under its path.
fn select(
    mut found: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    match items {
        None | Some([]) => files.extend(found.into_iter().map(|(key, value)| (key, (value, bits(mode))))),
        Some(items) => {
            for item in items {
                let value = found
                    .remove(&item.key)
                    .ok_or_else(|| format!("references non-existent config key: {}", item.key))?;
                files.insert(item.path.clone(), (value, bits(item.mode.unwrap_or(mode))));
            }
        }
    }
    Ok(())
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

/// Shows `files` in `folder`, all at once. Nothing is touched when they are there already.
fn write_atomically(folder: &Path, files: &Files) -> io::Result<()> {
    let data = folder.join("..data");
    let same = files.iter().all(|(path, (content, _))| fs::read(data.join(path)).is_ok_and(|read| read == *content));
    let listed = fs::read_dir(&data).map(Iterator::count).ok();
    let top: std::collections::BTreeSet<_> =
        files.keys().filter_map(|path| Path::new(path).components().next()).collect();
    if same && listed == Some(top.len()) {
        return Ok(());
    }
    let name = format!("..{}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let new = folder.join(&name);
    for (path, (content, mode)) in files {
        if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(io::Error::other(format!("{path} leads out of the volume")));
        }
        let file = new.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&new))?;
        fs::write(&file, content)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
    }
    fs::create_dir_all(&new)?;
    let old = fs::read_link(&data).ok();
    let link = folder.join("..data_tmp");
    let _ = fs::remove_file(&link);
    symlink(&name, &link)?;
    fs::rename(&link, &data)?;
    for entry in &top {
        let shown = folder.join(entry);
        if fs::symlink_metadata(&shown).is_err() {
            symlink(Path::new("..data").join(entry), &shown)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with("..");
        if !hidden && fs::metadata(entry.path()).is_err() {
            fs::remove_file(entry.path())?;
        }
    }
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(contents: &[(&str, &str)]) -> Files {
        contents.iter().map(|(path, text)| ((*path).to_owned(), (text.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn an_update_changes_all_files_at_once_and_removes_what_has_gone() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        write_atomically(folder.path(), &files(&[("a", "1"), ("b/c", "2")])).expect("it can be written");
        let first = fs::read_link(folder.path().join("..data")).expect("it is a link");
        assert_eq!(fs::read_to_string(folder.path().join("b/c")).expect("it is there"), "2");

        write_atomically(folder.path(), &files(&[("a", "1"), ("b/c", "2")])).expect("it can be written");
        assert_eq!(fs::read_link(folder.path().join("..data")).expect("it is a link"), first);

        write_atomically(folder.path(), &files(&[("a", "3")])).expect("it can be written");
        assert_eq!(fs::read_to_string(folder.path().join("a")).expect("it is there"), "3");
        assert!(!folder.path().join("b").exists());
        assert!(!folder.path().join(first).exists());
    }

    #[test]
    fn a_token_is_renewed_when_a_fifth_of_its_time_is_left() {
        let token = |claims: &str| format!("head.{}.signature", URL_SAFE_NO_PAD.encode(claims));
        let good =
            |token: &str, now: i64| still_good(token.as_bytes(), 3600, Timestamp::from_second(now).expect("a time"));
        let hour = token(r#"{"iat": 1000, "exp": 4600}"#);
        assert!(good(&hour, 1000) && good(&hour, 3879));
        assert!(!good(&hour, 3880) && !good(&hour, 9999));
        let year = token(r#"{"iat": 1000, "exp": 31537000}"#);
        assert!(good(&year, 3879) && !good(&year, 3880), "it is good for longer than was asked for");
        assert!(!good(&token(r#"{"exp": 4600}"#), 1000), "nobody knows how old it is");
        assert!(!good("", 1000) && !good("no token", 1000));
    }

    #[test]
    fn no_path_leads_out_of_a_volume() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        symlink("/etc", folder.path().join("out")).expect("a link can be made");
        assert!(sub_path(folder.path(), Path::new("../a")).is_err());
        assert!(sub_path(folder.path(), Path::new("/etc")).is_err());
        assert!(sub_path(folder.path(), Path::new("out/ssl")).is_err());
        assert!(sub_path(folder.path(), Path::new("in/side")).is_ok_and(|path| path.is_dir()));
        assert!(write_atomically(folder.path(), &files(&[("../a", "1")])).is_err());
    }
}
