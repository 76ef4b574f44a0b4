//! A web application firewall: nginx with ModSecurity and its core rules, with the configuration that its pod brings, as the account
//! of web servers.
//!
//! Where its module and the rules are only this machine knows: the module is loaded here, and the configuration finds the rules behind
//! a link in the folder of data.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Account, Found, exec, find_libraries_of, first_of, setting, told};
use crate::Failure;

const PROGRAMS: &[&str] = &["/usr/sbin/nginx", "/usr/local/sbin/nginx"];

const MODULES: &[&str] = &["/usr/lib/nginx/modules/ngx_http_modsecurity_module.so"];

/// The first of the rules; the others are beside it.
const RULES: &[&str] = &["/usr/share/modsecurity-crs/rules/REQUEST-901-INITIALIZATION.conf"];

/// The link to the folder of the rules: a configuration that includes many files takes no blanks in their path.
const LINK: &str = "core-rules";

/// What it loads beside its program.
struct Parts {
    module: PathBuf,
    rules: PathBuf,
}

impl Parts {
    fn find() -> Option<Self> {
        Some(Self { module: first_of(MODULES)?, rules: first_of(RULES)? })
    }
}

/// All three or nothing.
pub(super) fn find() -> Option<Found> {
    let (path, parts) = (first_of(PROGRAMS)?, Parts::find()?);
    // `nginx version: nginx/1.22.1`, where errors are told.
    let told = super::program_command(&path).arg("-v").output().ok()?;
    let nginx = version_after("nginx/", &String::from_utf8_lossy(&told.stderr))?;
    let rules = version_after("ver.", &fs::read_to_string(&parts.rules).ok()?)?;
    Some(Found { path, version: format!("nginx {nginx} with ModSecurity and its core rules {rules}") })
}

/// `nginx` with `FIREWALL_CONFIG` and `FIREWALL_DATA`, whose folder becomes its account's own.
pub(super) fn become_server(found: &Found) -> Result<(), Failure> {
    let (configuration, data) = (setting("FIREWALL_CONFIG")?, setting("FIREWALL_DATA")?);
    let parts = Parts::find().ok_or("the module of ModSecurity, or its core rules, are gone")?;
    let rules = parts.rules.parent().unwrap_or(Path::new("/"));
    let (account, data) = (Account::of("www-data")?, Path::new(&data));
    account.own(data)?;
    let link = data.join(LINK);
    // A container that starts again finds that of the last one.
    if link.is_symlink() {
        fs::remove_file(&link).map_err(|error| told("remove", &link, &error))?;
    }
    symlink(rules, &link).map_err(|error| told("make", &link, &error))?;
    let mut server = account.command(&found.path);
    find_libraries_of(&mut server, &parts.module);
    server
        .args(["-e", "stderr", "-p"])
        .arg(data)
        .args(["-c", &configuration, "-g"])
        .arg(format!("daemon off; load_module \"{}\";", parts.module.display()))
        .current_dir(data);
    Err(exec(server))
}

/// The version that a text has after these characters.
fn version_after(before: &str, text: &str) -> Option<String> {
    let (_, after) = text.split_once(before)?;
    let version: String = after.chars().take_while(|one| one.is_ascii_digit() || *one == '.').collect();
    let version = version.trim_end_matches('.');
    (!version.is_empty()).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_program_and_the_rules_say() {
        assert_eq!(version_after("nginx/", "nginx version: nginx/1.22.1\n").as_deref(), Some("1.22.1"));
        assert_eq!(version_after("nginx/", "nginx version: nginx/1.26.3 (Ubuntu)\n").as_deref(), Some("1.26.3"));
        let rules = "# ----\n# OWASP ModSecurity Core Rule Set ver.3.3.4\n# Copyright (c) 2006-2020\n";
        assert_eq!(version_after("ver.", rules).as_deref(), Some("3.3.4"));
        assert_eq!(version_after("ver.", "# rules of one's own\n"), None);
    }
}
