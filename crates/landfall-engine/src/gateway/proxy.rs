//! One request: which rule, which endpoint, what is changed on the way in and out, what is done when it fails.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::backend::{Backend, Protocol};
use super::fault::Faults;
use super::registry::{Registry, Series};
use super::rule::{Action, Rule, Work};
use super::table::{RouteTable, Scheme};
use super::upstream::{Limited, RequestBody, ResponseBody, Upgraded, Upstreams};
use super::{host, rule};

/// How many endpoints are tried for one request.
const ATTEMPTS: usize = 3;

/// How often, and how far apart, the table is asked for another endpoint when those it knew are gone.
const LOOKS: usize = 6;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What only concerns the two ends of one connection (RFC 9110, section 7.6.1).
static HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What all threads share.
pub(super) struct Shared {
    pub(super) table: ArcSwap<RouteTable>,
    pub(super) registry: Arc<Registry>,
    pub(super) faults: Faults,
    /// Requests that no rule is for.
    pub(super) unrouted: Arc<Series>,
}

/// One of the threads that serve requests.
pub(super) struct Proxy {
    pub(super) shared: Arc<Shared>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) tasks: TaskTracker,
}

/// Where a request came in.
#[derive(Debug, Clone)]
pub(super) struct Door {
    /// As declared, not as bound.
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    pub(super) peer: SocketAddr,
    /// The peer as endpoints are told of it: written once for all requests of a connection.
    forwarded_for: HeaderValue,
}

impl Door {
    pub(super) fn new(port: u16, scheme: Scheme, peer: SocketAddr) -> Self {
        let forwarded_for = HeaderValue::try_from(peer.ip().to_string()).expect("an address is text");
        Self { port, scheme, peer, forwarded_for }
    }
}

/// What the client gets.
pub(super) enum Answer {
    Own(Full<Bytes>),
    Streamed { body: ResponseBody, _record: Record },
    Switched(Incoming),
}

/// Writes the figures of a request when it ends, however it ends.
pub(super) struct Record {
    series: Arc<Series>,
    start: Instant,
    status: Option<StatusCode>,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.series.record(self.status, self.start.elapsed());
    }
}

impl Proxy {
    pub(super) async fn serve(
        self: Arc<Self>,
        door: Door,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let named = match head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
        };
        if named.is_empty() && head.version == Version::HTTP_11 || head.method == Method::CONNECT {
            return Ok(self.own(&self.shared.unrouted, start, StatusCode::BAD_REQUEST));
        }
        let host = host::normalized(named);
        let path = rule::normalized(head.uri.path());
        let table = self.shared.table.load();
        let Some(rule) = table.route(door.port, &host, &path, &head).cloned() else {
            return Ok(self.own(&self.shared.unrouted, start, StatusCode::NOT_FOUND));
        };
        drop(table);

        let work = &rule.work;
        if let Some(limiter) = &work.limit
            && let Err(wait) = limiter.admit(&head, &host, door.peer.ip(), start)
        {
            work.series.limited();
            let mut answer = self.own(&work.series, start, StatusCode::TOO_MANY_REQUESTS);
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            return Ok(answer);
        }
        // One whose length the client does not tell is counted on its way.
        if work.max_body.is_some_and(|most| body.size_hint().lower() > most) {
            return Ok(self.own(&work.series, start, StatusCode::PAYLOAD_TOO_LARGE));
        }
        let mut answer = match &work.action {
            Action::Refuse(status) => self.own(&work.series, start, *status),
            Action::Redirect(redirect) => {
                let scheme = if door.scheme == Scheme::Https { "https" } else { "http" };
                let location = redirect.location(&head, &path, scheme, door.port, &rule);
                match HeaderValue::try_from(location) {
                    Ok(location) => {
                        let mut answer = self.own(&work.series, start, redirect.status);
                        answer.headers_mut().insert(header::LOCATION, location);
                        answer
                    }
                    Err(_) => self.own(&work.series, start, StatusCode::BAD_REQUEST),
                }
            }
            Action::Forward(backends) => match backends.next() {
                Some(backend) => {
                    let forward = Forward { proxy: &self, door: &door, rule: &rule, backend, start };
                    forward.run(head, body).await
                }
                None => self.own(&work.series, start, StatusCode::INTERNAL_SERVER_ERROR),
            },
        };
        work.response.apply(answer.headers_mut());
        Ok(answer)
    }

    /// An answer of the gateway itself.
    #[expect(clippy::unused_self, reason = "it reads as what the proxy does")]
    fn own(&self, series: &Series, start: Instant, status: StatusCode) -> Response<Answer> {
        series.record(Some(status), start.elapsed());
        own(status)
    }
}

fn own(status: StatusCode) -> Response<Answer> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut answer = Response::new(Answer::Own(Full::new(text.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// A request on its way to a backend.
struct Forward<'p> {
    proxy: &'p Proxy,
    door: &'p Door,
    rule: &'p Rule,
    backend: &'p Backend,
    start: Instant,
}

impl Forward<'_> {
    async fn run(self, head: request::Parts, body: Incoming) -> Response<Answer> {
        let mut record = Record { series: Arc::clone(&self.backend.series), start: self.start, status: None };
        let (delay, status) = self.proxy.shared.faults.draw(&self.work().route, &self.backend.name);
        if !delay.is_zero() {
            Box::pin(tokio::time::sleep(delay)).await;
        }
        let work = self.work();
        let sent = match status {
            Some(status) => Err(status),
            None => {
                // What waits is kept in one place and lent from there: to hand it on is to copy it, whole, at every step.
                let sending = pin!(self.send(head, body));
                match work.deadlines.request {
                    None => sending.await,
                    Some(limit) => {
                        let left = limit.saturating_sub(self.start.elapsed());
                        tokio::time::timeout(left, sending).await.unwrap_or(Err(StatusCode::GATEWAY_TIMEOUT))
                    }
                }
            }
        };
        let mut answer = match sent {
            Ok(Sent::Answered(response)) => {
                record.status = Some(response.status());
                response.map(|body| Answer::Streamed { body, _record: record })
            }
            Ok(Sent::Switched(response)) => {
                record.status = Some(response.status());
                response.map(Answer::Switched)
            }
            Err(status) => {
                record.status = Some(status);
                own(status)
            }
        };
        self.backend.response.apply(answer.headers_mut());
        answer
    }

    fn work(&self) -> &Work {
        &self.rule.work
    }

    /// Tries endpoints until one answers. What has been sent is sent again only if that cannot do harm: the method is
    /// idempotent (RFC 9110, section 9.2.2) and there is no body that was used up.
    async fn send(&self, head: request::Parts, body: Incoming) -> Result<Sent, StatusCode> {
        let switching = asks_for_another_protocol(&head);
        let mut asked = Request::from_parts(head, ());
        let client = switching.then(|| hyper::upgrade::on(&mut asked));
        let (mut head, ()) = asked.into_parts();
        self.prepare(&mut head, switching)?;

        let spare = (body.is_end_stream() && head.method.is_idempotent() && !switching).then(|| copy(&head));
        let limit = self.work().max_body.filter(|_| body.size_hint().exact().is_none());
        let mut exceeded = None;
        let body = match limit {
            _ if body.is_end_stream() => RequestBody::Empty,
            None => RequestBody::Streamed(body),
            Some(most) => {
                let (limited, is_exceeded) = Limited::new(body, most);
                exceeded = Some(is_exceeded);
                RequestBody::Limited(Box::new(limited))
            }
        };
        let mut request = Request::from_parts(head, body);
        let mut tried = Vec::new();
        let mut endpoint = self.backend.endpoint()?;
        let upstreams = &self.proxy.upstreams;
        loop {
            let failure = if switching {
                // What seldom happens is boxed, here and in `upstream`, so that it takes no room in what happens always.
                match self.attempt(Box::pin(upstreams.upgrade(endpoint, request))).await? {
                    Ok(upgraded) => return Ok(self.switch(upgraded, client)),
                    Err(failure) => failure,
                }
            } else {
                let sending = pin!(upstreams.send(endpoint, self.backend.protocol, request));
                match self.attempt(sending).await? {
                    Ok(mut response) => {
                        clean(response.headers_mut());
                        *response.version_mut() = Version::HTTP_11;
                        return Ok(Sent::Answered(response));
                    }
                    Err(failure) => failure,
                }
            };
            tried.push(endpoint);
            let again = failure
                .unsent
                .or_else(|| spare.as_ref().map(|head| Request::from_parts(copy(head), RequestBody::Empty)));
            if exceeded.as_ref().is_some_and(|exceeded| exceeded.load(Ordering::Acquire)) {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            let Some(again) = again.filter(|_| tried.len() < ATTEMPTS) else {
                return Err(self.gone(endpoint, &failure.error));
            };
            let Some(another) = Box::pin(self.another(&tried)).await else {
                return Err(self.gone(endpoint, &failure.error));
            };
            debug!(%endpoint, %another, error = %failure.error, "another endpoint is tried");
            self.backend.series.retried();
            (endpoint, request) = (another, again);
        }
    }

    /// One attempt, as long as it may take.
    async fn attempt<T>(&self, sending: impl Future<Output = T> + Unpin) -> Result<T, StatusCode> {
        match self.work().deadlines.attempt {
            None => Ok(sending.await),
            Some(limit) => tokio::time::timeout(limit, sending).await.map_err(|_| StatusCode::GATEWAY_TIMEOUT),
        }
    }

    fn gone(&self, endpoint: SocketAddr, error: &io::Error) -> StatusCode {
        debug!(%endpoint, backend = %self.backend.name, %error, "no answer");
        StatusCode::BAD_GATEWAY
    }

    /// An endpoint that was not tried. An endpoint that is gone is often replaced: a moment later the table knows.
    async fn another(&self, tried: &[SocketAddr]) -> Option<SocketAddr> {
        for _ in 0..LOOKS {
            let table = self.proxy.shared.table.load_full();
            let known = table.endpoints(&self.backend.name);
            if let Some(found) = known.iter().find(|endpoint| !tried.contains(endpoint)) {
                return Some(*found);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        None
    }

    /// Makes the request the one that the endpoint gets.
    fn prepare(&self, head: &mut request::Parts, switching: bool) -> Result<(), StatusCode> {
        let work = self.work();
        let bad = |_| StatusCode::BAD_REQUEST;
        let named = match head.uri.authority() {
            Some(authority) => HeaderValue::try_from(authority.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?,
            None => head.headers.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("")),
        };
        let upgrade = switching.then(|| head.headers.get(header::UPGRADE).cloned()).flatten();
        let trailers = head.headers.get(header::TE).is_some_and(|te| te == "trailers");
        clean(&mut head.headers);
        head.headers.remove(header::TE);
        // The server here answers 100 when somebody reads the body.
        head.headers.remove(header::EXPECT);
        if let Some(upgrade) = upgrade {
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            head.headers.insert(header::UPGRADE, upgrade);
        }
        // Nobody outside is believed about who he is.
        head.headers.insert(FORWARDED_FOR, self.door.forwarded_for.clone());
        let scheme = if self.door.scheme == Scheme::Https { "https" } else { "http" };
        head.headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        head.headers.insert(FORWARDED_HOST, named.clone());
        head.headers.insert(header::HOST, work.rewrite.host.clone().unwrap_or_else(|| named.clone()));
        work.request.apply(&mut head.headers);
        self.backend.request.apply(&mut head.headers);

        let path = rule::normalized(head.uri.path());
        let edited = work.rewrite.path.as_ref().map(|edit| edit.apply(&path, &self.rule.condition));
        let wanted = edited.as_deref().unwrap_or(&path);
        let target = match (head.uri.path_and_query(), head.uri.query()) {
            (Some(same), _) if same.path() == wanted => same.clone(),
            (_, Some(query)) => format!("{wanted}?{query}").try_into().map_err(bad)?,
            (_, None) => wanted.try_into().map_err(bad)?,
        };
        match self.backend.protocol {
            Protocol::Http1 => {
                head.uri = Uri::from(target);
                head.version = Version::HTTP_11;
            }
            Protocol::Http2 => {
                let host = head.headers.remove(header::HOST);
                let authority = match host.as_ref().and_then(|host| host.to_str().ok()) {
                    Some(host) => host.into(),
                    None => host::normalized(named.to_str().unwrap_or_default()),
                };
                let uri = Uri::builder().scheme("http").authority(&*authority).path_and_query(target).build();
                head.uri = uri.map_err(|_| StatusCode::BAD_REQUEST)?;
                head.version = Version::HTTP_2;
                if trailers {
                    head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
                }
            }
        }
        Ok(())
    }

    /// From here on bytes go both ways until one side ends.
    fn switch(&self, upgraded: Upgraded, client: Option<hyper::upgrade::OnUpgrade>) -> Sent {
        let Upgraded { mut response, stream } = upgraded;
        let (Some(stream), Some(client)) = (stream, client) else {
            clean(response.headers_mut());
            return Sent::Answered(response.map(ResponseBody::detached));
        };
        self.proxy.tasks.spawn(async move {
            match client.await {
                Ok(client) => {
                    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(stream));
                    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await {
                        debug!(%error, "a switched connection ended early");
                    }
                }
                Err(error) => debug!(%error, "the client did not switch"),
            }
        });
        Sent::Switched(response)
    }
}

enum Sent {
    Answered(Response<ResponseBody>),
    Switched(Response<Incoming>),
}

/// A second request with the same head.
fn copy(head: &request::Parts) -> request::Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.version = head.version;
    copy.headers = head.headers.clone();
    copy
}

fn asks_for_another_protocol(head: &request::Parts) -> bool {
    head.version == Version::HTTP_11
        && head.headers.contains_key(header::UPGRADE)
        && tokens(&head.headers).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes away what concerns one connection only, and what `Connection` says is so.
fn clean(headers: &mut HeaderMap) {
    // To look at the few that are there is cheaper than to look for each that may be, and most often nothing is found.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = tokens(headers).filter_map(|token| token.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed { body, .. } => Pin::new(body).poll_frame(cx),
            Self::Switched(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Streamed { body, .. } => body.is_end_stream(),
            Self::Switched(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Streamed { body, .. } => body.size_hint(),
            Self::Switched(body) => body.size_hint(),
        }
    }
}
