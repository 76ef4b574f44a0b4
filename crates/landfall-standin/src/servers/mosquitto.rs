//! Mosquitto with the rendered configuration, as an account that may read what it names.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::{Account, Found, exec, first_of, setting};
use crate::Failure;

/// The options that name a file which the server reads: <https://mosquitto.org/man/mosquitto-conf-5.html>.
const FILES: &[&str] = &["password_file", "acl_file", "cafile", "certfile", "keyfile"];

pub(super) fn find() -> Option<Found> {
    let path = first_of(&["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"])?;
    // `mosquitto version 2.0.11`, in a help text that some versions end with a failure.
    let help = super::program_command(&path).arg("-h").output().ok()?;
    let text = String::from_utf8(help.stdout).ok()?;
    let version = text.lines().next()?.strip_prefix("mosquitto version ")?.trim().to_owned();
    Some(Found { path, version: format!("Mosquitto {version}") })
}

/// `mosquitto -c FILE`. As root it would give up its rights by itself, after which it could read neither the passwords nor
/// the key that the pod brings: so its account gets copies.
pub(super) fn become_server(found: &Found, arguments: &[&str]) -> Result<(), Failure> {
    let ["-c", file] = arguments else { return Err("it is started by `mosquitto -c FILE`".into()) };
    let account = Account::of("mosquitto")?;
    let rendered = fs::read_to_string(file).map_err(|error| super::told("read", Path::new(file), &error))?;
    let kept = rendered.lines().find_map(|line| line.strip_prefix("persistence_location "));
    if let Some(data) = kept {
        account.own(Path::new(data.trim()))?;
    }
    let own = crate::scratch().join(format!("mosquitto-{}-{}", setting("HOSTNAME")?, std::process::id()));
    account.folder(&own)?;
    let (configuration, copies) = moved(&rendered, &own, crate::address::shared());
    for (from, to) in copies {
        account.file(&to, &fs::read(&from).map_err(|error| super::told("read", &from, &error))?)?;
    }
    let target = own.join("mosquitto.conf");
    account.file(&target, configuration.as_bytes())?;
    let mut server = account.command(&found.path);
    server.arg("-c").arg(&target).current_dir(&own);
    Err(exec(server))
}

/// The configuration with every file that it names in the folder `own`, and which file to copy where. It listens at `address`, if the
/// others are those of its neighbours.
fn moved(rendered: &str, own: &Path, address: Option<Ipv4Addr>) -> (String, Vec<(PathBuf, PathBuf)>) {
    let (mut text, mut copies) = (String::new(), Vec::new());
    for line in rendered.lines() {
        match line.split_once(' ').filter(|(option, _)| FILES.contains(option)) {
            Some((option, file)) => {
                let copy = own.join(option);
                text += &format!("{option} {}\n", copy.display());
                copies.push((PathBuf::from(file.trim()), copy));
            }
            None => match (line.split_whitespace().collect::<Vec<_>>().as_slice(), address) {
                (["listener", port], Some(address)) => text += &format!("listener {port} {address}\n"),
                _ => text += &format!("{line}\n"),
            },
        }
    }
    (text, copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_a_file_is_moved() {
        let rendered =
            "listener 8883\npassword_file /run/passwords/passwords\nkeyfile /tls/tls.key\npersistence true\n";
        let (text, copies) = moved(rendered, Path::new("/own"), None);
        assert_eq!(text, "listener 8883\npassword_file /own/password_file\nkeyfile /own/keyfile\npersistence true\n");
        assert_eq!(copies[0], ("/run/passwords/passwords".into(), "/own/password_file".into()));
        assert_eq!(copies.len(), 2);
        let (text, _) = moved(rendered, Path::new("/own"), Some(Ipv4Addr::new(127, 64, 0, 7)));
        assert_eq!(text.lines().next(), Some("listener 8883 127.64.0.7"));
    }
}
