//! The timer of a connection whose deadline moves with each request and hardly ever comes.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// hyper asks for a sleep before each request of a connection and drops it as soon as the head of the request is there. Here all
/// of them share one timer of the runtime, which is moved only when it has come too early: to enter a timer and to take it
/// away again is much work for each request.
///
/// All sleeps must be waited for by the same task, one after the other: by one connection of HTTP/1.1.
#[derive(Clone, Default)]
pub(super) struct MovingTimer(Arc<Mutex<Option<Pin<Box<time::Sleep>>>>>);

struct MovingSleep {
    timer: MovingTimer,
    deadline: time::Instant,
}

impl Timer for MovingTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(MovingSleep { timer: self.clone(), deadline: deadline.into() })
    }

    fn now(&self) -> Instant {
        time::Instant::now().into()
    }
}

impl Future for MovingSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let mut timer = self.timer.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = timer.get_or_insert_with(|| Box::pin(time::sleep_until(deadline)));
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

impl Sleep for MovingSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_sleep_ends_at_its_own_deadline_and_not_at_that_of_one_before() {
        let timer = MovingTimer::default();
        let start = timer.now();
        let at = |seconds| start + Duration::from_secs(seconds);
        // Dropped before its time, as of a request whose head has come; what it set stays behind.
        let early = time::timeout(Duration::from_secs(1), timer.sleep_until(at(20))).await;
        assert!(early.is_err());
        timer.sleep_until(at(30)).await;
        assert_eq!(timer.now() - start, Duration::from_secs(30));
        // Long after the timer has come, and earlier than it is set.
        time::sleep(Duration::from_secs(30)).await;
        let _ = time::timeout(Duration::from_secs(1), timer.sleep_until(at(90))).await;
        timer.sleep_until(at(65)).await;
        assert_eq!(timer.now() - start, Duration::from_secs(65));
        timer.sleep(Duration::from_secs(5)).await;
        assert_eq!(timer.now() - start, Duration::from_secs(70));
    }
}
