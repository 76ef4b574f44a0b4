//! The API server: a router over the store and the scheme.
//!
//! A request is resolved to a resource, a name and a verb; its sender is identified and authorized; then one of the
//! verbs' modules answers it. Only this module and those below it touch the store.

mod admission;
mod authentication;
mod bootstrap;
mod cause;
mod custom;
mod decode;
mod delete;
mod discovery;
mod endpoint;
mod eviction;
mod expiry;
mod failure;
mod identity;
pub(crate) mod machine;
mod metrics;
mod negotiate;
pub(crate) mod node_agent;
mod own_service;
mod proxy;
mod rbac;
mod read;
mod request;
mod review;
mod streams;
mod subresource;
mod token;
mod view;
mod watch;
mod write;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, header};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admission::services::Allocator;
pub(crate) use self::admission::services::Ranges;
use self::failure::Failure;
pub(crate) use self::identity::Identity;
use self::machine::Machine;
use self::negotiate::Accepted;
use self::node_agent::{MetricsSource, NodeAgent};
use self::request::{Query, Target, Verb};
pub(crate) use self::token::SigningKey;
use self::view::{Included, View};
use crate::clock::Clock;
use crate::event::Lost;
use crate::network::Dialer;
use crate::scheme::{CUSTOM_METRICS, Part, Resource, Scheme};
use crate::store::{Collection, Key, Record, Store};

#[cfg(test)]
pub(crate) mod tests;

/// What an API server is made of.
pub(crate) struct Config {
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    /// Ends every watch and stream.
    pub(crate) stop: CancellationToken,
    /// Signs the tokens of service accounts. They are good as long as the key is the same.
    pub(crate) signing_key: SigningKey,
    /// Tokens that are good for ever, with whose they are.
    pub(crate) static_tokens: HashMap<String, Identity>,
    /// Addresses and node ports of services.
    pub(crate) ranges: Ranges,
    /// The kinds that are served besides custom ones.
    pub(crate) builtin: Scheme,
}

impl Config {
    /// A server that nobody has set up, on a store of its own in memory.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self {
            store: Store::open(None).expect("nothing is opened in memory"),
            clock: Clock::wall(),
            stop: CancellationToken::new(),
            signing_key: SigningKey::random(),
            static_tokens: HashMap::new(),
            ranges: Ranges::default(),
            builtin: Scheme::builtin(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to create the objects that every cluster has")]
pub(crate) struct StartError(#[source] Failure);

/// An API server; cheap to clone.
#[derive(Clone)]
pub(crate) struct Server {
    state: Arc<State>,
}

/// What the requests share.
pub(crate) struct State {
    store: Store,
    clock: Clock,
    builtin: Scheme,
    scheme: ArcSwap<Scheme>,
    grants: ArcSwap<rbac::Grants>,
    /// How often roles and bindings have changed.
    rights_changed: AtomicU64,
    services: Allocator,
    ranges: Ranges,
    signing_key: SigningKey,
    static_tokens: HashMap<String, Identity>,
    stop: CancellationToken,
    agent: OnceLock<Arc<dyn NodeAgent>>,
    metrics: OnceLock<Arc<dyn MetricsSource>>,
    machine: OnceLock<Arc<dyn Machine>>,
    /// The way to the webhooks that run in pods.
    dialer: OnceLock<Dialer>,
    gateway: OnceLock<Figures>,
    lost_events: OnceLock<Lost>,
    /// The connections that have been taken over: `stop` ends them.
    streams: TaskTracker,
    requests: metrics::Requests,
}

impl State {
    /// To be called after each commit, before it is answered: what follows from objects of the kind is brought up to
    /// date. Answers what the client is shown.
    async fn settled(self: &Arc<Self>, resource: &Resource, record: Arc<Record>) -> Result<Arc<Record>, Failure> {
        if resource.group == "rbac.authorization.k8s.io" {
            self.rights_changed.fetch_add(1, Ordering::Release);
        } else if resource.collection == custom::definitions().as_str() {
            custom::follow(self, record.key()).await?;
        } else if resource.custom && self.store.get(record.key()).is_none() {
            // It may have been the last one of a kind that goes.
            custom::finish(self, &Key::new(&custom::definitions(), "", &resource.collection)).await?;
        }
        Ok(record)
    }

    fn grants(&self) -> Arc<rbac::Grants> {
        let changed = self.rights_changed.load(Ordering::Acquire);
        let known = self.grants.load_full();
        if known.as_of >= changed {
            return known;
        }
        let compiled = Arc::new(rbac::Grants::compile(&self.store, changed));
        self.grants.store(Arc::clone(&compiled));
        compiled
    }
}

impl Server {
    /// Opens the server on what is stored, and creates what every cluster has.
    pub(crate) async fn start(config: Config) -> Result<Self, StartError> {
        let Config { store, clock, stop, signing_key, static_tokens, ranges, builtin } = config;
        let state = Arc::new(State {
            services: Allocator::restore(&store),
            store,
            clock,
            scheme: ArcSwap::from_pointee(builtin.clone()),
            builtin,
            grants: ArcSwap::default(),
            rights_changed: AtomicU64::new(1),
            ranges,
            signing_key,
            static_tokens,
            stop,
            agent: OnceLock::new(),
            metrics: OnceLock::new(),
            machine: OnceLock::new(),
            dialer: OnceLock::new(),
            gateway: OnceLock::new(),
            lost_events: OnceLock::new(),
            streams: TaskTracker::new(),
            requests: metrics::Requests::default(),
        });
        state.scheme.store(Arc::new(custom::scheme(&state)));
        bootstrap::ensure(&state).await.map_err(StartError)?;
        Ok(Self { state })
    }

    /// Answers requests whose transport says who they come from by an [`Identity`] extension, or that carry a token.
    pub(crate) fn router(&self) -> Router {
        let state = Arc::clone(&self.state);
        Router::new().fallback(move |request: Request<Body>| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(serve(&state, request).await) }
        })
    }

    /// A client inside the engine, without a socket.
    pub(crate) fn client(&self, component: &str) -> kube::Client {
        let router = self.router().layer(axum::Extension(Identity::component(component)));
        kube::Client::new(router, "default")
    }

    /// Serves logs, commands and ports of pods from now on. The first one stays.
    pub(crate) fn set_agent(&self, agent: Arc<dyn NodeAgent>) {
        // A second agent would be a second truth about the same pods.
        drop(self.state.agent.set(agent));
    }

    /// Waits, after the server was told to stop, for the connections that were taken over from it.
    pub(crate) async fn finished(&self) {
        self.state.streams.close();
        self.state.streams.wait().await;
    }

    /// Serves `metrics.k8s.io` and `custom.metrics.k8s.io` from now on. The first one stays.
    pub(crate) fn set_metrics(&self, metrics: Arc<dyn MetricsSource>) {
        drop(self.state.metrics.set(metrics));
    }

    /// Reaches webhooks in pods this way from now on, and not over the machine's own network. The first one stays.
    pub(crate) fn set_dialer(&self, dialer: Dialer) {
        drop(self.state.dialer.set(dialer));
    }

    /// Takes faults, times and images for this machine from now on. The first one stays.
    pub(crate) fn set_machine(&self, machine: Arc<dyn Machine>) {
        drop(self.state.machine.set(machine));
    }

    /// Says what the gateway has counted, in Prometheus' text format.
    pub(crate) fn set_gateway(&self, figures: Figures) {
        drop(self.state.gateway.set(figures));
    }

    /// Says how many events the components of the engine have lost.
    pub(crate) fn set_lost(&self, lost: Lost) {
        drop(self.state.lost_events.set(lost));
    }
}

/// Says what has been counted.
pub(crate) type Figures = Arc<dyn Fn() -> String + Send + Sync>;

/// One request, resolved.
pub(crate) struct Call<'a> {
    state: &'a Arc<State>,
    scheme: &'a Scheme,
    resource: &'a Arc<Resource>,
    target: &'a Target,
    query: &'a Query,
    headers: &'a HeaderMap,
    identity: &'a Identity,
    accepted: Accepted,
}

impl<'a> Call<'a> {
    fn collection(&self) -> Collection {
        Collection::from(self.resource.collection.as_str())
    }

    fn key_of(&self, namespace: &str, name: &str) -> Key {
        Key { collection: self.collection(), namespace: namespace.into(), name: name.into() }
    }

    fn key(&self) -> Key {
        self.key_of(&self.target.namespace, &self.target.name)
    }

    /// Which part of the object the request writes.
    fn part(&self) -> Part {
        match self.target.subresource.as_str() {
            "" => Part::Main,
            "status" => Part::Status,
            _ => Part::Other,
        }
    }

    fn now(&self) -> String {
        time_text(self.state.clock.now())
    }

    fn can(&self, verb: &str) -> bool {
        self.resource.verbs.iter().any(|known| known == verb)
    }

    fn view(&self) -> Result<View<'a>, Failure> {
        Ok(View {
            scheme: self.scheme,
            resource: self.resource,
            accepted: self.accepted,
            included: Included::parse(self.query.text("includeObject"))?,
            now: self.state.clock.now(),
        })
    }
}

/// As Kubernetes writes times.
pub(crate) fn time_text(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn serve(state: &Arc<State>, request: Request<Body>) -> Response {
    answer(state, request).await.unwrap_or_else(Failure::into_response)
}

async fn answer(state: &Arc<State>, request: Request<Body>) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    if let Some(response) = discovery::open_to_all(state, &parts) {
        return Ok(response);
    }
    let identity = authentication::identify(state, &parts)?;
    let query = Query::parse(&parts.uri);
    let scheme = state.scheme.load_full();
    let Some(target) = Target::parse(&parts.method, &parts.uri, &query) else {
        let verb = parts.method.as_str().to_ascii_lowercase();
        let attributes = rbac::Attributes { verb: &verb, path: parts.uri.path(), ..rbac::Attributes::default() };
        rbac::authorize(state, &identity, &attributes)?;
        if machine::is_about(parts.uri.path()) {
            return machine::answer(state, &parts, body).await;
        }
        return discovery::answer(state, &scheme, &parts);
    };
    let attributes = rbac::Attributes::of(&target, &query);
    let Some(resource) = scheme.resource(&target.group, &target.version, &target.plural) else {
        rbac::authorize(state, &identity, &attributes)?;
        if target.group == CUSTOM_METRICS && discovery::serves(&scheme, &target.group, &target.version) {
            return Err(metrics::custom::of_others(&target));
        }
        if scheme.resources().any(|known| known.group == target.group && !known.custom) {
            return Err(Failure::no_such_resource());
        }
        return Ok(discovery::no_such_page());
    };
    rbac::authorize(state, &identity, &attributes)?;
    let call = Call {
        state,
        scheme: &scheme,
        resource,
        target: &target,
        query: &query,
        headers: &parts.headers,
        identity: &identity,
        accepted: negotiate::negotiate(&parts.headers)?,
    };
    let answered = dispatch(&call, &parts, body).await;
    let code = answered.as_ref().map_or_else(|failure| failure.code, Response::status);
    state.requests.count(target.verb.name(), &resource.qualified(), code);
    match &resource.deprecation {
        None => answered,
        Some(deprecation) => {
            let mut response = answered.unwrap_or_else(Failure::into_response);
            Warnings::first(deprecation, response.headers_mut());
            Ok(response)
        }
    }
}

async fn dispatch(call: &Call<'_>, parts: &Parts, body: Body) -> Result<Response, Failure> {
    let (resource, target) = (call.resource, call.target);
    if !resource.namespaced && !target.namespace.is_empty() {
        if resource.custom {
            return Ok(discovery::no_such_page());
        }
        return Err(Failure::no_such_resource());
    }
    if resource.namespaced
        && target.namespace.is_empty()
        && !matches!(target.verb, Verb::List | Verb::Watch | Verb::Create)
    {
        return Err(Failure::method_not_allowed());
    }
    if resource.group == CUSTOM_METRICS {
        return metrics::custom::answer(call).await;
    }
    let allowed = if target.subresource.is_empty() {
        call.can(target.verb.name())
    } else {
        let name = if proxy::is_proxied(call) { proxy::NAME } else { target.subresource.as_str() };
        let sub = resource.subresource(name).ok_or_else(Failure::no_such_resource)?;
        sub.verbs.iter().any(|verb| verb == target.verb.name())
    };
    if !allowed {
        return Err(Failure::method_not_allowed());
    }
    if resource.group == "metrics.k8s.io" {
        return metrics::answer(call);
    }
    if proxy::is_proxied(call) {
        return proxy::serve(call, parts, body).await;
    }
    if streams::is_stream(call) {
        return streams::serve(call, parts).await;
    }
    match target.verb {
        Verb::Get if target.subresource.is_empty() => read::get(call),
        Verb::Get => subresource::get(call),
        Verb::List => read::list(call),
        Verb::Watch => watch::watch(call),
        Verb::Create | Verb::Update | Verb::Patch | Verb::Delete | Verb::DeleteCollection => {
            let body = decode::body(call.headers, body).await?;
            let mut warnings = Warnings::default();
            let answered = match target.verb {
                Verb::Create if review::is_review(call) => review::answer(call, &body, &mut warnings),
                Verb::Create => write::create(call, &body, &mut warnings).await,
                Verb::Update => write::update(call, &body, &mut warnings).await,
                Verb::Patch => write::patch(call, &body, &mut warnings).await,
                Verb::Delete => delete::delete(call, &body, &mut warnings).await,
                _ => delete::delete_collection(call, &body, &mut warnings).await,
            };
            // Who is refused is warned too.
            let mut response = answered.unwrap_or_else(Failure::into_response);
            warnings.write(response.headers_mut());
            Ok(response)
        }
    }
}

/// What the client should know beside the answer.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Vec<String>);

impl Warnings {
    pub(crate) fn add(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.0.contains(&text) {
            self.0.push(text);
        }
    }

    fn write(&self, headers: &mut HeaderMap) {
        for value in self.0.iter().filter_map(|text| Self::header(text)) {
            headers.append(header::WARNING, value);
        }
    }

    /// A text with characters that no header can carry is left out.
    fn header(text: &str) -> Option<HeaderValue> {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        HeaderValue::from_str(&format!("299 - \"{quoted}\"")).ok()
    }

    /// Puts a warning before those that an answer has already.
    fn first(text: &str, headers: &mut HeaderMap) {
        let Some(value) = Self::header(text) else { return };
        let others: Vec<_> = headers.get_all(header::WARNING).iter().cloned().collect();
        headers.insert(header::WARNING, value);
        for other in others {
            headers.append(header::WARNING, other);
        }
    }
}
