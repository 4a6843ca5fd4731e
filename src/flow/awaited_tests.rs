use super::*;

const CALL: Duration = Duration::from_millis(200);

fn lease(number: u64) -> ForeignLease {
    ForeignLease { fetch: Some(LeasedFetch { process: 1, number }), call_time: Some(CALL) }
}

fn none() -> AwaitedFetches<u32> {
    AwaitedFetches::new(Arc::default())
}

#[test]
fn one_key_of_each_fetch_is_asked_for() {
    let mut awaited = none();
    assert!(awaited.note(vec![(1, lease(1)), (2, lease(1)), (3, lease(2)), (4, ForeignLease::default())]).is_empty());
    assert_eq!(awaited.asked(), [1, 3, 4]);
    assert!(awaited.note(vec![(1, lease(1)), (3, lease(2)), (4, ForeignLease::default())]).is_empty());
    assert_eq!(awaited.asked(), [2, 3, 4], "another key of the first fetch");
}

#[test]
fn the_other_keys_are_asked_for_once_a_fetch_has_changed() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1)), (2, lease(1)), (3, lease(2)), (4, lease(2))]);
    assert_eq!(awaited.asked(), [1, 3]);
    assert_eq!(awaited.note(vec![(3, lease(2))]), [2], "key 1 is stored by now");
    assert!(awaited.note(vec![(2, lease(3))]).is_empty(), "another replica has taken it over");
    assert_eq!(awaited.asked(), [4, 2]);
    assert_eq!(awaited.note(Vec::new()), [3]);
    assert!(awaited.note(Vec::new()).is_empty());
    assert!(awaited.is_empty());
}

#[test]
fn all_keys_are_returned_when_the_wait_is_given_up() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1)), (2, lease(1)), (3, lease(2))]);
    assert_eq!(awaited.give_up(), [1, 2, 3]);
    assert!(awaited.is_empty());
}

#[test]
fn fetches_count_for_the_process_until_they_end() {
    let total = Arc::new(AtomicUsize::new(0));
    let [mut one, mut other] = [(); 2].map(|()| AwaitedFetches::new(Arc::clone(&total)));
    one.note(vec![(1, lease(1)), (2, lease(2))]);
    other.note(vec![(1, lease(1))]);
    assert_eq!(total.load(Ordering::Relaxed), 3);
    one.asked();
    one.note(Vec::new());
    assert_eq!(total.load(Ordering::Relaxed), 1);
    drop(other);
    assert_eq!(total.load(Ordering::Relaxed), 0);
}

#[test]
fn pauses_follow_the_usual_call_then_the_wait_and_grow_with_the_load() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1)), (2, ForeignLease::default())]);
    let pause =
        |awaited: &AwaitedFetches<u32>, waited_ms| awaited.pause(Duration::from_millis(waited_ms), 0.5).as_millis();
    assert_eq!([0, 100, 200, 400, 60_000].map(|waited| pause(&awaited, waited)), [25, 25, 25, 50, 500]);
    awaited.note((0..1_000).map(|key| (key, ForeignLease::default())).collect());
    assert_eq!(pause(&awaited, 0), 501, "half a millisecond for each");
    let [least, most] = [0.0, 1.0].map(|jitter| awaited.pause(Duration::ZERO, jitter).as_micros());
    assert!(least < 400_000 && most > 600_000, "{least} to {most}");
    let mut unknown = none();
    unknown.note(vec![(1, ForeignLease::default())]);
    assert_eq!([0, 80, 800].map(|waited| pause(&unknown, waited)), [10, 10, 100]);
}

#[test]
fn the_call_time_is_unknown_if_that_of_one_holder_is() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1))]);
    assert_eq!(awaited.call_time(), Some(CALL));
    awaited.note(vec![(2, ForeignLease::default())]);
    assert_eq!(awaited.call_time(), None);
}
