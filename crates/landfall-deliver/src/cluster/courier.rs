//! Sends what is written down in a release, beside everything else: whoever is slow to answer keeps no release from going on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{During as _, if_there};
use crate::notify::{Means, Message, Notice, append, pause, post};

/// How an attempt went: what was answered, or why it failed.
pub(crate) type Outcome = Result<String, String>;

/// Notices on their way. Those that are when it is dropped are sent once more by whoever comes next.
pub(crate) struct Courier {
    way: Way,
    under_way: JoinSet<(String, Outcome)>,
    /// What is known of notices that were tried, by their ids.
    tried: BTreeMap<String, Tried>,
    arrived: Vec<(String, Outcome)>,
}

enum Tried {
    UnderWay,
    /// Not to be tried again before.
    Rests(Instant),
}

#[derive(Clone)]
struct Way {
    client: Client,
    namespace: String,
    folder: PathBuf,
}

impl Courier {
    /// One for the notices of releases in a namespace; files are meant from `folder` on.
    pub(crate) fn new(client: Client, namespace: &str, folder: PathBuf) -> Self {
        let way = Way { client, namespace: namespace.to_owned(), folder };
        Self { way, under_way: JoinSet::new(), tried: BTreeMap::new(), arrived: Vec::new() }
    }

    /// Begins an attempt for each notice that is to be sent and does not rest.
    pub(crate) fn send(&mut self, notices: &[Notice]) {
        let now = Instant::now();
        for notice in notices.iter().filter(|notice| notice.is_open()) {
            let id = notice.message.id.clone();
            let may_go = match self.tried.get(&id) {
                None => true,
                Some(Tried::UnderWay) => false,
                Some(Tried::Rests(until)) => now >= *until,
            };
            if may_go {
                self.tried.insert(id.clone(), Tried::UnderWay);
                let (way, by, message) = (self.way.clone(), notice.by.clone(), notice.message.clone());
                self.under_way.spawn(async move { (id, way.attempt(by, message).await) });
            }
        }
    }

    /// The attempts that have ended; they are told again until [`Courier::forget`].
    pub(crate) fn arrived(&mut self) -> &[(String, Outcome)] {
        while let Some(ended) = self.under_way.try_join_next() {
            self.arrived.push(ended.expect("an attempt does not panic"));
        }
        &self.arrived
    }

    /// What has arrived is written down, as these notices say.
    pub(crate) fn forget(&mut self, notices: &[Notice]) {
        for (id, _) in std::mem::take(&mut self.arrived) {
            let attempts = notices.iter().find(|notice| notice.message.id == id).map_or(0, |notice| notice.attempts);
            self.tried.insert(id, Tried::Rests(Instant::now() + pause(attempts)));
        }
    }
}

impl Way {
    async fn attempt(&self, by: Means, message: Message) -> Outcome {
        match by {
            Means::Webhook(url) => post(&url, &message).await,
            Means::SecretWebhook { secret, key } => post(&self.address(&secret, &key).await?, &message).await,
            Means::File(file) => {
                let file = self.folder.join(file);
                let written = tokio::task::spawn_blocking(move || append(&file, &message)).await;
                written.unwrap_or_else(|error| Err(error.to_string()))
            }
        }
    }

    /// The URL that a Secret holds.
    async fn address(&self, secret: &str, key: &str) -> Result<String, String> {
        let found = Api::<Secret>::namespaced(self.client.clone(), &self.namespace).get(secret).await;
        let found = if_there(found).during(|| format!("read the Secret `{secret}`"));
        let found = found.map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })?;
        let value = found.and_then(|found| found.data?.remove(key));
        let value = value.ok_or_else(|| format!("there is no key `{key}` in a Secret `{secret}`"))?;
        String::from_utf8(value.0).map_err(|_| format!("the key `{key}` of the Secret `{secret}` is no text"))
    }
}
