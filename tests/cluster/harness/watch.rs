//! Waiting: by condition, never by the clock. Limits are generous, they only end a test that hangs.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Between two looks.
const PACE: Duration = Duration::from_millis(100);

/// Looks until there is something: `Err` says what was seen instead.
///
/// # Panics
/// When there is nothing after `seconds`, with what was seen last.
pub async fn until<T>(what: &str, seconds: u64, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if Instant::now() >= end => panic!("{what}: not within {seconds} s; last seen: {seen}"),
            Err(_) => sleep(PACE).await,
        }
    }
}
