//! Tasks in sets: a panic in one of them is a panic of whoever waits for it.

use tokio::task::{JoinError, JoinSet};

/// What a task returned; `None`: it was aborted.
///
/// # Panics
///
/// With the panic of the task.
pub(crate) fn result<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// Waits until all tasks have ended.
///
/// # Panics
///
/// With the panic of the first that does.
pub(crate) async fn supervise(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        result(ended);
    }
}
