//! A request that must take effect exactly once, although its answer may be lost.

use tokio::time::sleep;

use super::remote::{Remote, RemoteError, wait_after};

/// Waits before each search, in multiples of the first wait before a retry. The service may list a new object late, and
/// a request that is sent again is paid twice.
const SETTLE: [u32; 3] = [0, 4, 20];

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
        for wait in SETTLE.iter().filter(|_| in_doubt) {
            sleep(remote.first_wait * *wait).await;
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
