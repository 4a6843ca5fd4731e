//! A request that must take effect exactly once, although its answer may be lost.

use tokio::time::sleep;

use super::remote::{Remote, RemoteError, wait_after};

/// Searches before the request is sent again. The service may list a new object late.
const SEARCHES: u32 = 2;
/// Wait between two searches, in multiples of the first wait before a retry.
const SETTLE: u32 = 4;

/// Sends a request until it has taken effect once. If it may have taken effect already, `find` searches for its result
/// before `send` sends it (again).
pub(super) async fn exactly_once<T>(
    remote: &Remote,
    mut in_doubt: bool,
    find: impl AsyncFn() -> Result<Option<T>, RemoteError>,
    send: impl AsyncFn() -> Result<T, RemoteError>,
) -> Result<T, RemoteError> {
    let mut schedule = remote.schedule();
    loop {
        for search in 0..if in_doubt { SEARCHES } else { 0 } {
            if search > 0 {
                sleep(remote.first_wait * SETTLE).await;
            }
            if let Some(found) = find().await? {
                return Ok(found);
            }
        }
        let error = match send().await {
            Ok(sent) => return Ok(sent),
            Err(error) => error,
        };
        in_doubt |= matches!(error, RemoteError::Lost(_));
        wait_after(error, &mut schedule).await?;
    }
}
