//! Counts that replicas share.
//!
//! Each replica writes its own sums, and reads those of all. A sum is absolute, so a write whose answer was lost may be
//! repeated, and a store that lost its data is complete again after one round. A counter that all replicas increase
//! would count the repeated write twice, and would stay too low after a loss.

use std::collections::BTreeMap;
use std::time::Duration;

use super::amount::SpendAmount;
use crate::process::shared_fields::ReplicaFields;

/// Time for which a day's counts are kept after the last write. The clocks of replicas may differ by hours.
pub(super) const KEPT_FOR: Duration = Duration::from_hours(48);

/// Returns the table of what all replicas have spent on a day, in days since the Unix epoch.
pub(super) fn table(day: u64) -> String {
    format!("spending:{day}")
}

/// Returns the name of the field of a replica and a budget.
pub(super) fn field(replica: &str, name: &str) -> String {
    format!("{replica}:{name}")
}

/// Divides the fields of all replicas: the amounts of one replica, and the sums of all others, by budget. Fields that
/// cannot be read are left out.
pub(super) fn divide(
    fields: &ReplicaFields,
    replica: &str,
) -> (BTreeMap<String, SpendAmount>, BTreeMap<String, SpendAmount>) {
    let (mut own, mut others) = (BTreeMap::new(), BTreeMap::<String, SpendAmount>::new());
    for (field, text) in fields {
        let (Some((holder, name)), Ok(amount)) = (field.split_once(':'), text.parse::<SpendAmount>()) else {
            continue;
        };
        if holder == replica {
            own.insert(name.to_owned(), amount);
        } else {
            let sum = others.entry(name.to_owned()).or_default();
            *sum = sum.plus(amount);
        }
    }
    (own, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_others_are_added_up_by_budget() {
        let fields = [("a:", "1 10"), ("b:", "2 20"), ("c:", "3 30"), ("b:x:y", "4 40"), ("b", "9 9"), ("b:z", "no")];
        let fields = fields.map(|(field, text)| (field.to_owned(), text.to_owned())).into();
        let amount = |tokens, money_pico| SpendAmount { tokens, money_pico };
        let (own, others) = divide(&fields, "a");
        assert_eq!(own, [(String::new(), amount(1, 10))].into());
        assert_eq!(others, [(String::new(), amount(5, 50)), ("x:y".to_owned(), amount(4, 40))].into());
    }
}
