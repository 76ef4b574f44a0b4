//! Who sends a request.

use std::collections::BTreeMap;

/// A user, as the transport or a token has shown it; a request carries it as an extension.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: String,
    /// Only users that come from an object have one: service accounts.
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The group that may do everything, whatever the roles say.
    const MASTERS: &'static str = "system:masters";

    /// The user of those who show nothing.
    pub(crate) const ANONYMOUS: &'static str = "system:anonymous";

    pub(crate) fn new(user: &str, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        groups.push("system:authenticated".to_owned());
        Self { user: user.to_owned(), uid: String::new(), groups, extra: BTreeMap::new() }
    }

    /// A component inside the engine.
    pub(crate) fn component(name: &str) -> Self {
        Self::new(name, [Self::MASTERS])
    }

    /// Somebody who has shown nothing.
    pub(crate) fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { user: Self::ANONYMOUS.to_owned(), groups, ..Self::default() }
    }

    pub(crate) fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        let user = format!("system:serviceaccount:{namespace}:{name}");
        Self { uid: uid.to_owned(), ..Self::new(&user, groups) }
    }

    /// A part of the control plane, in this process or beside it: what it writes, users have asked for elsewhere.
    pub(crate) fn is_component(&self) -> bool {
        let kind = self.user.strip_prefix("system:");
        kind.is_some_and(|kind| kind != "anonymous" && !kind.starts_with("serviceaccount:"))
    }

    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == Self::MASTERS)
    }

    /// As `SelfSubjectReview` and tokens show it.
    pub(crate) fn user_info(&self) -> serde_json::Value {
        let mut info = serde_json::json!({"username": self.user});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        info["groups"] = self.groups.clone().into();
        if !self.extra.is_empty() {
            info["extra"] = serde_json::json!(self.extra);
        }
        info
    }
}
