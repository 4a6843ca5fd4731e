//! Fields that replicas share, in one hash for each table.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::tier::RedisTier;
use crate::process::shared_fields::{ReplicaFields, SharedFields};

impl SharedFields for RedisTier {
    fn exchange<'a>(
        &'a self,
        table: &'a str,
        fields: (&'a ReplicaFields, &'a [String]),
        kept_for: Duration,
    ) -> BoxFuture<'a, Result<ReplicaFields, String>> {
        Box::pin(async move {
            let manager = &self.manager;
            let Some(link) = manager.status.link() else {
                return Err(manager.status.cause().unwrap_or_else(|| "there is no connection yet".to_owned()));
            };
            let name = manager.names.shared(table);
            let answers = link.exchange(&name, fields, (kept_for, manager.config.timeout)).await;
            let cause = answers.error.as_ref().map(|error| error.cause().to_owned());
            let fields = self.judge(&link, answers).pop().flatten();
            fields.ok_or_else(|| cause.unwrap_or_else(|| format!("{name} is no hash of texts")))
        })
    }
}
