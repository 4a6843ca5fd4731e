//! Tests of the facts that a space learns from answers.

use super::*;
use crate::key::{KeyBuilder, Tag};

#[test]
fn a_new_model_name_invalidates_older_vectors() {
    let space_state = Spaces::default().of(KeyBuilder::new(None).finish());
    let (first, lesson) = space_state.learn("a", 8, 0);
    assert_eq!(lesson, ModelChange::First);
    assert!(space_state.accepts(&first));
    assert_eq!(space_state.learn("a", 8, 0).1, ModelChange::Known);
    assert_eq!(space_state.learn("b", 8, 0).1, ModelChange::Drift);
    assert!(!space_state.accepts(&first));
}

#[test]
fn a_recalled_model_counts_until_the_upstream_answers() {
    let (then, now) = (SpaceState::default().learn("a", 8, 0).0, SpaceState::default());
    now.recall(&then);
    assert_eq!(now.learn("b", 8, 0).1, ModelChange::Drift);
    now.recall(&then);
    assert_eq!(now.identity().map(|identity| identity.model.to_string()).as_deref(), Some("b"));
}

#[test]
fn a_new_revision_invalidates_the_vectors_of_earlier_ones() {
    let space_state = SpaceState::default();
    let (first, _) = space_state.learn("a", 8, 0);
    let renewed = ModelIdentity { revision: 5, ..first.clone() };
    space_state.renew(&renewed);
    assert!(!space_state.accepts(&first) && space_state.accepts(&renewed));
    assert!(space_state.must_be_noted(&renewed), "the tiers below memory may hold older records");
    space_state.renew(&ModelIdentity { revision: 4, ..first.clone() });
    assert_eq!(space_state.revision(), 5, "a revision never goes back");
    assert_eq!(space_state.learn("a", 8, 5), (renewed, ModelChange::Known));
    assert_eq!(space_state.learn("b", 8, 5).0.revision, 5);
}

#[test]
fn an_answer_to_a_call_from_before_a_new_revision_is_of_the_earlier_one() {
    let space_state = SpaceState::default();
    let (first, _) = space_state.learn("a", 8, 0);
    let renewed = ModelIdentity { revision: 5, ..first.clone() };
    space_state.renew(&renewed);
    assert_eq!(space_state.learn("a", 8, 0), (first, ModelChange::Known));
    assert_eq!(space_state.identity(), Some(renewed));
}

#[test]
fn a_later_revision_of_another_replica_is_taken_over() {
    let space_state = SpaceState::default();
    let (first, _) = space_state.learn("a", 8, 0);
    assert!(!space_state.accepts(&ModelIdentity { model: "b".into(), revision: 9, ..first.clone() }));
    assert!(space_state.accepts(&ModelIdentity { revision: 9, ..first.clone() }));
    assert!(!space_state.accepts(&first) && space_state.revision() == 9);
}

#[test]
fn each_model_change_is_saved_once() {
    let space_state = SpaceState::default();
    let (a, _) = space_state.learn("a", 8, 0);
    assert!(!space_state.must_be_noted(&a), "nothing else has ever answered");
    let (b, _) = space_state.learn("b", 8, 0);
    let noted = [&b, &b, &a, &b].map(|identity| space_state.must_be_noted(identity));
    assert_eq!(noted, [true, false, true, true]);
    let recalling = SpaceState::default();
    recalling.recall(&a);
    assert!(!recalling.must_be_noted(&a));
    let meeting = SpaceState::default();
    let (a, _) = meeting.learn("a", 8, 0);
    meeting.note_older_record();
    assert!(meeting.must_be_noted(&a));
}

#[test]
fn an_evicted_space_accepts_no_records() {
    let spaces = Spaces::default();
    let root = KeyBuilder::new(None).finish();
    let learned: Vec<_> = (0..=MAX_SPACES as u64)
        .map(|n| spaces.of(root.extend(Tag::Model, &n.to_le_bytes())))
        .map(|space_state| (space_state.learn("a", 8, 0).0, space_state))
        .collect();
    let forgotten = learned.iter().filter(|(identity, space_state)| !space_state.accepts(identity)).count();
    assert_eq!(forgotten, 1, "one had to go for the last one");
}

#[test]
fn a_space_with_a_model_change_is_not_evicted_for_others() {
    let spaces = Spaces::default();
    let root = KeyBuilder::new(None).finish();
    let of = |tag, n: u64| spaces.of(root.extend(tag, &n.to_le_bytes()));
    let changed: Vec<_> = (0..64).map(|n| of(Tag::Model, n)).collect();
    for space_state in &changed {
        space_state.learn("a", 8, 0);
        space_state.learn("b", 8, 0);
    }
    for n in 0..2 * MAX_SPACES as u64 {
        of(Tag::Text, n).expect_older_records();
    }
    assert!((0..).zip(&changed).all(|(n, space_state)| Arc::ptr_eq(space_state, &of(Tag::Model, n))));
}

#[test]
fn spaces_stay_bounded_if_the_model_changed_in_all_of_them() {
    let spaces = Spaces::default();
    let root = KeyBuilder::new(None).finish();
    for n in 0..(MAX_SPACES as u64 + 50) {
        spaces.of(root.extend(Tag::Model, &n.to_le_bytes())).note_older_record();
    }
    assert_eq!(spaces.known.read().expect("not poisoned").len(), MAX_SPACES);
}

#[test]
fn finding_a_space_does_not_create_it() {
    let spaces = Spaces::default();
    let space = KeyBuilder::new(None).finish();
    assert!(spaces.find(&space).is_none() && spaces.known.read().expect("not poisoned").is_empty());
    spaces.of(space).learn("a", 8, 0);
    assert!(spaces.find(&space).is_some_and(|space_state| space_state.identity().is_some()));
}

#[test]
fn spaces_stay_bounded() {
    let spaces = Spaces::default();
    let root = KeyBuilder::new(None).finish();
    for n in 0..(MAX_SPACES as u64 + 50) {
        spaces.of(root.extend(Tag::Model, &n.to_le_bytes()));
    }
    assert_eq!(spaces.known.read().expect("not poisoned").len(), MAX_SPACES);
}

#[test]
fn an_unreadable_encoding_is_tried_again_later() {
    let space_state = SpaceState::default();
    space_state.mark_unreadable(Encoding::Base64, true, 1_000);
    assert!(space_state.is_unreadable(Encoding::Base64, 60_999));
    assert!(!space_state.is_unreadable(Encoding::Float, 1_001));
    assert!(!space_state.is_unreadable(Encoding::Base64, 61_000));
}

#[test]
fn an_encoding_is_unreadable_after_several_unreadable_answers() {
    let space_state = SpaceState::default();
    for _ in 0..2 {
        space_state.mark_unreadable(Encoding::Float, false, 0);
        space_state.mark_unreadable(Encoding::Float, false, 0);
        assert!(!space_state.is_unreadable(Encoding::Float, 1));
        space_state.mark_readable(Encoding::Float);
    }
    for _ in 0..19 {
        space_state.mark_unreadable(Encoding::Float, false, 0);
        assert!(!space_state.is_unreadable(Encoding::Float, 1), "others could be read");
    }
    space_state.mark_unreadable(Encoding::Float, false, 0);
    assert!(space_state.is_unreadable(Encoding::Float, 1));
    for _ in 0..3 {
        space_state.mark_unreadable(Encoding::Base64, false, 0);
    }
    assert!(space_state.is_unreadable(Encoding::Base64, 1), "none could be read");
}

#[test]
fn stored_vectors_show_the_dimension_of_a_space() {
    let space_state = SpaceState::default();
    space_state.learn("m", 8, 0);
    assert_eq!(space_state.known_dimension(), Some(8));
}

#[test]
fn a_dimension_is_expected_after_enough_answers_in_a_row() {
    let space_state = SpaceState::default();
    assert_eq!(space_state.known_dimension(), None);
    let row =
        |dimension| (1..=DIMENSION_PROOF).map(|_| space_state.note_other_dimension(dimension)).collect::<Vec<bool>>();
    assert_eq!(row(8), [false, false, true]);
    assert_eq!(space_state.known_dimension(), Some(8));
    assert!(
        !space_state.note_other_dimension(4)
            && !space_state.note_other_dimension(4)
            && !space_state.note_other_dimension(5)
    );
    space_state.mark_readable(Encoding::Float);
    assert!(!space_state.note_other_dimension(5) && !space_state.note_other_dimension(5));
    space_state.note_other_failure();
    assert!(!space_state.note_other_dimension(5));
    assert_eq!(space_state.known_dimension(), Some(8));
    assert!(!space_state.note_other_dimension(5) && space_state.note_other_dimension(5));
    assert_eq!(space_state.known_dimension(), Some(5));
}

#[test]
fn the_first_answer_with_an_id_invalidates_replies_without_one() {
    let space_state = SpaceState::default();
    space_state.note_id(false);
    space_state.note_id(false);
    let before = space_state.replacements();
    space_state.note_id(true);
    assert_eq!((space_state.replacements(), space_state.may_have_ids()), (before + 1, true));
    space_state.note_id(false);
    space_state.note_id(true);
    assert_eq!((space_state.replacements(), space_state.may_have_ids()), (before + 1, true), "that is no news");
}
