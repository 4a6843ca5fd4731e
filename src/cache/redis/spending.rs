//! What replicas have spent on a day, in one hash for each day.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::tier::RedisTier;
use crate::spend::{SharedSpending, SpendFields};

/// Time for which a day's hash is kept after its last write. The clocks of replicas may differ by hours.
const KEPT_FOR: Duration = Duration::from_hours(48);

impl SharedSpending for RedisTier {
    fn exchange<'a>(&'a self, day: u64, own: &'a SpendFields) -> BoxFuture<'a, Result<SpendFields, String>> {
        Box::pin(async move {
            let manager = &self.manager;
            let Some(link) = manager.status.link() else {
                return Err(manager.status.cause().unwrap_or_else(|| "there is no connection yet".to_owned()));
            };
            let name = manager.names.spending(day);
            let answers = link.exchange(&name, own, (KEPT_FOR, manager.config.timeout)).await;
            let cause = answers.error.as_ref().map(|error| error.cause().to_owned());
            let fields = self.judge(&link, answers).pop().flatten();
            fields.ok_or_else(|| cause.unwrap_or_else(|| format!("{name} is no hash of texts")))
        })
    }
}
