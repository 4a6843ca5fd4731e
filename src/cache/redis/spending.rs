//! What replicas have spent on a day, in one hash for each day.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::tier::RedisTier;
use crate::spend::{SharedSpending, SpendFields};

/// Time for which a day's hash is kept after its last write. The clocks of replicas may differ by hours.
const KEPT_FOR: Duration = Duration::from_hours(48);

impl SharedSpending for RedisTier {
    fn exchange<'a>(&'a self, day: u64, own: &'a SpendFields) -> BoxFuture<'a, Option<SpendFields>> {
        Box::pin(async move {
            let (link, manager) = (self.manager.status.link()?, &self.manager);
            let name = manager.names.spending(day);
            let answers = link.exchange(&name, own, (KEPT_FOR, manager.config.timeout)).await;
            self.judge(&link, answers).pop().flatten()
        })
    }
}
