//! Counts that replicas share.
//!
//! Each replica writes its own sums, and reads those of all. A sum is absolute, so a write whose answer was lost may be
//! repeated, and a store that lost its data is complete again after one round. A counter that all replicas increase
//! would count the repeated write twice, and would stay too low after a loss.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

use super::amount::SpendAmount;

/// Fields of one day: a replica and the name of a budget, and an amount.
pub type SpendFields = BTreeMap<String, String>;

/// A store of counts that several replicas reach.
pub trait SharedSpending: Send + Sync {
    /// Writes fields of a day, and returns those of all replicas. The error is the cause, as text.
    fn exchange<'a>(&'a self, day: u64, own: &'a SpendFields) -> BoxFuture<'a, Result<SpendFields, String>>;
}

/// Returns the name of the field of a replica and a budget.
pub(super) fn field(replica: &str, name: &str) -> String {
    format!("{replica}:{name}")
}

/// Divides the fields of all replicas: the amounts of one replica, and the sums of all others, by budget. Fields that
/// cannot be read are left out.
pub(super) fn divide(
    fields: &SpendFields,
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
