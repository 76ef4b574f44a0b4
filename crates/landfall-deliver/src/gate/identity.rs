//! Whether a release is what it says of itself. Whoever may write releases can write down anything; what is carried out is what was
//! signed, and what goes back around the gates is what was there before.

use kube::Client;

use super::{GateState, Standing};
use crate::audit::{Action, AuditLog};
use crate::carry::read;
use crate::cluster::ClusterError;
use crate::release::ReleaseSpec;

/// That a release is refused for what it is.
pub(super) fn refused(why: String) -> GateState {
    GateState {
        gate: "it is what it says".to_owned(),
        standing: Standing::Rejected,
        why,
        bring: None,
        evidence: Vec::new(),
    }
}

/// Why a release that says that it takes another one back must not pass around the gates, if it must not.
pub(super) async fn no_return(
    client: &Client,
    namespace: &str,
    taken: &str,
    spec: &ReleaseSpec,
) -> Result<Option<String>, ClusterError> {
    let other = read(client, namespace, taken).await?;
    let log = AuditLog::read(client, namespace, &spec.architecture).await?;
    Ok(check(taken, other.as_ref().map(|other| &other.spec), &log, spec).err())
}

/// Whether a release takes back what has begun, and brings what was there before, no more.
fn check(taken: &str, other: Option<&ReleaseSpec>, log: &AuditLog, spec: &ReleaseSpec) -> Result<(), String> {
    let says = format!("it says that it takes `{taken}` back, and");
    let Some(other) = other.filter(|other| other.architecture == spec.architecture) else {
        return Err(format!("{says} there is no such release"));
    };
    if let Some(why) = other.contradiction() {
        return Err(format!("{says} that one is not what it says: {why}"));
    }
    if !log.says(Action::Begin, taken, &other.digest) {
        return Err(format!("{says} the audit log does not say that that one ever began"));
    }
    spec.brings_back(other).map_err(|why| format!("{says} {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::release::ServiceRelease;

    fn template(version: u32) -> serde_json::Value {
        json!({ "spec": { "containers": [{ "name": "web", "image": format!("shop/web:{version}") }] } })
    }

    fn release(from: u32, to: u32) -> ReleaseSpec {
        let service = ServiceRelease {
            old_image: format!("shop/web:{from}"),
            new_image: format!("shop/web:{to}"),
            old_template: template(from),
            new_template: template(to),
            ..ServiceRelease::sample("web")
        };
        let mut spec = ReleaseSpec::sample(vec![service]);
        spec.digest = spec.computed_digest();
        spec
    }

    #[test]
    fn only_what_was_there_before_a_release_that_began_goes_around_the_gates() {
        let other = release(1, 2);
        let log = AuditLog::sample(&[(Action::Begin, "shop-1", &other.digest)]);
        let why = |other: Option<&ReleaseSpec>, log: &AuditLog, spec: &ReleaseSpec| {
            check("shop-1", other, log, spec).err().unwrap_or_default()
        };
        insta::assert_snapshot!(why(Some(&other), &log, &release(2, 1)), @"");
        insta::assert_snapshot!(why(Some(&other), &log, &release(2, 3)), @"it says that it takes `shop-1` back, and what it brings to `web` is not what was there before that");
        insta::assert_snapshot!(why(None, &log, &release(2, 1)), @"it says that it takes `shop-1` back, and there is no such release");
        insta::assert_snapshot!(why(Some(&other), &AuditLog::default(), &release(2, 1)), @"it says that it takes `shop-1` back, and the audit log does not say that that one ever began");
        // Nor does one help that was written down for it.
        let mut forged = release(3, 2);
        forged.digest.clone_from(&other.digest);
        assert!(why(Some(&forged), &log, &release(2, 3)).contains("that one is not what it says"));
        assert!(why(Some(&release(3, 2)), &log, &release(2, 3)).contains("does not say that that one ever began"));
    }
}
