//! What lets users make namespaces where a system does not: the settings that forbid it, as far as they can be read.

use std::fs;
use std::path::Path;

/// Settings of the kernel that keep ordinary users from it, with the value that does, and what to do.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("user/max_user_namespaces", "0", "`sysctl -w user.max_user_namespaces=15000`, as root"),
    // Debian's, until 10.
    ("kernel/unprivileged_userns_clone", "0", "`sysctl -w kernel.unprivileged_userns_clone=1`, as root"),
    // Ubuntu's, since 23.10 (<https://discourse.ubuntu.com/t/ubuntu-24-04-lts-noble-numbat-release-notes/39890>).
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, as root",
    ),
];

/// Files by which Docker and Podman say that this is a container.
const CONTAINERS: &[&str] = &[".dockerenv", "run/.containerenv"];

/// What a person can do about it.
pub(crate) fn remedy() -> &'static str {
    remedy_below(Path::new("/"))
}

fn remedy_below(root: &Path) -> &'static str {
    let is = |(setting, value, _): &&(&str, &str, &str)| {
        let text = fs::read_to_string(root.join("proc/sys").join(setting));
        text.is_ok_and(|text| text.trim() == *value)
    };
    if let Some((.., remedy)) = SETTINGS.iter().find(is) {
        return remedy;
    }
    if CONTAINERS.iter().any(|file| root.join(file).exists()) {
        return "start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or `--privileged`";
    }
    "a kernel with user namespaces (`CONFIG_USER_NS`), and no security module that forbids them"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_it_is_named_before_the_container_that_may() {
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        let put = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("it is in a folder")).expect("folders can be made");
            fs::write(path, text).expect("a file can be written");
        };
        let remedy = || remedy_below(root.path());
        assert!(remedy().starts_with("a kernel with user namespaces"));
        put(".dockerenv", "");
        assert!(remedy().contains("seccomp=unconfined"));
        put("proc/sys/user/max_user_namespaces", "63000\n");
        assert!(remedy().contains("seccomp=unconfined"));
        put("proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n");
        assert!(remedy().contains("apparmor_restrict_unprivileged_userns=0"));
        put("proc/sys/user/max_user_namespaces", "0\n");
        assert!(remedy().contains("user.max_user_namespaces=15000"));
    }
}
