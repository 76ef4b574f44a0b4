//! The objects that the gateway watches beside those that all components share.

use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::resources::{Certificate, Gateway, GatewayClass, HTTPRoute, Middleware, ReferenceGrant};
use super::table::World;
use crate::cache::{Cache, Kind, ObjectKey};
use crate::context::{Caches, Context};
use crate::network::News;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) ingress_classes: Cache<IngressClass>,
    pub(super) gateway_classes: Cache<GatewayClass>,
    pub(super) gateways: Cache<Gateway>,
    pub(super) routes: Cache<HTTPRoute>,
    grants: Cache<ReferenceGrant>,
    middlewares: Cache<Middleware>,
    certificates: Cache<Certificate>,
}

impl Sources {
    /// Fills the caches, in tasks of their own. Custom resources are watched as soon as they are defined.
    pub(super) fn start(context: &Context, cancel: &CancellationToken, tasks: &mut JoinSet<()>) -> (Self, News) {
        let sources = Self {
            ingress_classes: Cache::new(),
            gateway_classes: Cache::new(),
            gateways: Cache::new(),
            routes: Cache::new(),
            grants: Cache::new(),
            middlewares: Cache::new(),
            certificates: Cache::new(),
        };
        let mut news = News::default();
        news.of(&context.caches.ingresses);
        news.of(&context.caches.services);
        news.of(&context.caches.endpoint_slices);
        news.of(&context.caches.secrets);
        news.of(&context.caches.namespaces);

        let definitions = Cache::<CustomResourceDefinition>::new();
        let (all, client, token) = (definitions.clone(), context.client.clone(), cancel.clone());
        tasks.spawn(async move { all.fill(client, token).await });
        let (classes, client, token) = (sources.ingress_classes.clone(), context.client.clone(), cancel.clone());
        news.of(&classes);
        tasks.spawn(async move { classes.fill(client, token).await });

        let mut follower =
            Follower { client: &context.client, definitions: &definitions, cancel, tasks, news: &mut news };
        follower.follow(&sources.gateway_classes);
        follower.follow(&sources.gateways);
        follower.follow(&sources.routes);
        follower.follow(&sources.grants);
        follower.follow(&sources.middlewares);
        follower.follow(&sources.certificates);
        (sources, news)
    }

    /// Everything as it is now.
    pub(super) fn world(&self, caches: &Caches) -> World {
        World {
            ingresses: caches.ingresses.list(),
            ingress_classes: self.ingress_classes.list(),
            gateway_classes: self.gateway_classes.list(),
            gateways: self.gateways.list(),
            routes: self.routes.list(),
            grants: self.grants.list(),
            middlewares: self.middlewares.list(),
            certificates: self.certificates.list(),
            namespaces: caches.namespaces.list(),
            services: caches.services.list(),
            slices: caches.endpoint_slices.list(),
            secrets: caches.secrets.list(),
        }
    }
}

struct Follower<'a> {
    client: &'a Client,
    definitions: &'a Cache<CustomResourceDefinition>,
    cancel: &'a CancellationToken,
    tasks: &'a mut JoinSet<()>,
    news: &'a mut News,
}

impl Follower<'_> {
    fn follow<K: Kind + Serialize>(&mut self, cache: &Cache<K>) {
        self.news.of(cache);
        let (client, definitions) = (self.client.clone(), self.definitions.clone());
        self.tasks.spawn(follow(cache.clone(), client, definitions, self.cancel.clone()));
    }
}

/// Fills a cache while its kind is defined.
async fn follow<K: Kind + Serialize>(
    cache: Cache<K>,
    client: Client,
    definitions: Cache<CustomResourceDefinition>,
    cancel: CancellationToken,
) {
    let key = ObjectKey::new("", &format!("{}.{}", K::plural(&()), K::group(&())));
    let mut changes = definitions.subscribe();
    let mut watching: Option<(CancellationToken, JoinSet<()>)> = None;
    loop {
        let served = definitions.get(&key).is_some_and(|definition| serves(&definition, &K::version(&())));
        match (&watching, served) {
            (None, true) => {
                let token = cancel.child_token();
                let (cache, client, own) = (cache.clone(), client.clone(), token.clone());
                let mut task = JoinSet::new();
                task.spawn(async move { cache.fill(client, own).await });
                watching = Some((token, task));
            }
            // Its objects have been deleted before it, and the watch has seen that.
            (Some((token, _)), false) => {
                token.cancel();
                watching = None;
            }
            _ => {}
        }
        // A change that is missed is seen when the definition is asked for anew.
        tokio::select! {
            () = cancel.cancelled() => break,
            change = changes.recv() => {
                if matches!(change, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                    break;
                }
            }
        }
    }
    if let Some((_, mut task)) = watching {
        task.shutdown().await;
    }
}

fn serves(definition: &CustomResourceDefinition, version: &str) -> bool {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut established = conditions.filter(|condition| condition.type_ == "Established");
    established.any(|condition| condition.status == "True")
        && definition.spec.versions.iter().any(|served| served.name == version && served.served)
}
