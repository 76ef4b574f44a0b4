//! Tries every route from outside: whether the gateway leads to the service, keeps requests without TLS away where TLS is declared,
//! and refuses a client that asks more often than it may.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use landfall_model::{Architecture, Expose, Rate};
use landfall_standin::{HttpClient, ServiceBehaviour};

use super::plan::Plan;
use super::report::{LimitReport, RouteReport};
use super::traffic::Outsider;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How many requests of a client are under way at once.
const AT_ONCE: usize = 32;

/// So many times the declared count of requests may pass at once: ingress-nginx lets five times as many (its annotation
/// `limit-burst-multiplier`).
const FACTOR: usize = 6;

/// No client is tried by more requests than this, nor for longer.
const MOST: usize = 20_000;
const LONGEST: Duration = Duration::from_secs(20);

/// Tries the routes of all services that run.
pub(super) async fn try_all(
    outsider: &Outsider,
    architecture: &Architecture,
    plan: &Plan,
) -> anyhow::Result<Vec<RouteReport>> {
    let mut routes = Vec::new();
    for behaviour in &plan.services {
        let declared = architecture.service(&behaviour.service);
        let Some(expose) = declared.and_then(|service| service.expose.as_ref()) else { continue };
        routes.push(try_one(outsider, behaviour, expose).await?);
    }
    Ok(routes)
}

async fn try_one(outsider: &Outsider, behaviour: &ServiceBehaviour, expose: &Expose) -> anyhow::Result<RouteReport> {
    let (host, path) = (expose.host.value.as_str(), expose.path.value.as_str());
    let tls = expose.tls.is_some();
    let client = outsider.gateway(host, tls)?;
    let answer = get(&client, path).await;
    let plain = if tls { Some(get(&outsider.gateway(host, false)?, path).await) } else { None };
    let limit = match &expose.rate_limit {
        Some(rate) => Some(try_limit(&client, path, rate.value).await?),
        None => None,
    };
    Ok(RouteReport {
        service: behaviour.service.clone(),
        host: host.to_owned(),
        path: path.to_owned(),
        tls,
        answer: answer.as_ref().ok().map(StatusCode::as_u16),
        problem: problem(&answer, behaviour.program.is_some(), plain.as_ref(), limit.as_ref()),
        limit,
    })
}

/// What does not hold of a route; `plain`: the answer without TLS, where that is declared.
fn problem(
    answer: &Result<StatusCode, String>,
    by_program: bool,
    plain: Option<&Result<StatusCode, String>>,
    limit: Option<&LimitReport>,
) -> Option<String> {
    match answer {
        Err(error) => return Some(error.clone()),
        // The gateway's own answers where nobody is there or it leads nowhere; a program may refuse what it does not know.
        Ok(status @ (StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)) => {
            return Some(format!("the gateway answers {status}"));
        }
        Ok(status @ StatusCode::NOT_FOUND) if !by_program => {
            return Some(format!("the gateway answers {status}"));
        }
        Ok(_) => {}
    }
    if let Some(Ok(status)) = plain
        && status.is_success()
    {
        return Some(format!("a request without TLS is answered with {status}"));
    }
    let limit = limit.filter(|limit| limit.refused_after.is_none() && !limit.undecided)?;
    Some(format!("{} requests at once, and none was refused; declared are {}", limit.requests, limit.declared))
}

async fn get(client: &HttpClient, path: &str) -> Result<StatusCode, String> {
    let request = Request::get(path).body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
    let answer = client.send(request, ANSWER).await;
    answer.map(|(status, _)| status).map_err(|error| error.to_string())
}

/// Asks as fast as it goes until it is refused, or has been answered more often than the limit allows in that time.
async fn try_limit(client: &HttpClient, path: &str, rate: Rate) -> anyhow::Result<LimitReport> {
    let count = usize::try_from(rate.count_and_unit().0).unwrap_or(usize::MAX);
    let at_once = count.saturating_mul(FACTOR).saturating_add(AT_ONCE);
    // Those under way when the first is refused may still be answered, and count.
    let (is_refused, is_enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let begin = Instant::now();
    let goes_on = |asked: &usize| {
        let elapsed = begin.elapsed();
        is_enough.store(*asked >= at_once.saturating_add(refilled(rate, elapsed)), Ordering::Relaxed);
        let is_over = *asked >= MOST || elapsed >= LONGEST || is_enough.load(Ordering::Relaxed);
        !is_over && !is_refused.load(Ordering::Relaxed)
    };
    let asked = (0..).take_while(goes_on).map(|_| get(client, path));
    let mut answers = futures::stream::iter(asked).buffer_unordered(AT_ONCE);
    let mut report = LimitReport { declared: rate.to_string(), requests: 0, refused_after: None, undecided: false };
    while let Some(answer) = answers.next().await {
        let status = answer.map_err(|error| anyhow::anyhow!(error)).context("failed to try the limit of a route")?;
        match status {
            StatusCode::TOO_MANY_REQUESTS => is_refused.store(true, Ordering::Relaxed),
            _ => report.requests += 1,
        }
    }
    report.refused_after = is_refused.load(Ordering::Relaxed).then_some(report.requests);
    report.undecided = report.refused_after.is_none() && !is_enough.load(Ordering::Relaxed);
    Ok(report)
}

/// How many more requests a limit lets pass in so much time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a product of what is not negative")]
fn refilled(rate: Rate, elapsed: Duration) -> usize {
    (rate.per_second() * elapsed.as_secs_f64()).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_holds_when_it_answers_by_tls_only_and_within_its_limit() {
        let ok = || Ok(StatusCode::OK);
        let limit =
            |refused_after| LimitReport { declared: "5/s".to_owned(), requests: 62, refused_after, undecided: false };
        assert_eq!(problem(&ok(), false, None, None), None);
        assert_eq!(problem(&Ok(StatusCode::NOT_FOUND), true, None, None), None, "a program may not know the path");
        assert_eq!(problem(&ok(), false, Some(&Ok(StatusCode::MOVED_PERMANENTLY)), Some(&limit(Some(5)))), None);
        assert_eq!(problem(&ok(), false, Some(&Err("refused".to_owned())), None), None, "nobody listens");
        let nobody = problem(&Ok(StatusCode::SERVICE_UNAVAILABLE), true, None, None);
        assert_eq!(nobody.as_deref(), Some("the gateway answers 503 Service Unavailable"));
        let open = problem(&ok(), false, Some(&ok()), None);
        assert_eq!(open.as_deref(), Some("a request without TLS is answered with 200 OK"));
        let unlimited = problem(&ok(), false, None, Some(&limit(None)));
        assert_eq!(unlimited.as_deref(), Some("62 requests at once, and none was refused; declared are 5/s"));
        let too_slow = LimitReport { undecided: true, ..limit(None) };
        assert_eq!(problem(&ok(), false, None, Some(&too_slow)), None, "nobody knows");
    }
}
