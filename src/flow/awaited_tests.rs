use tokio::time::{advance, sleep};

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

#[tokio::test(start_paused = true)]
async fn requests_of_one_process_take_turns_and_hear_of_a_change() {
    let table = Arc::new(AwaitedTable::default());
    let [mut one, mut other] = [(); 2].map(|()| AwaitedFetches::new(Arc::clone(&table)));
    one.note(vec![(1, lease(1)), (2, lease(2))]);
    other.note(vec![(3, lease(1))]);
    assert_eq!(table.len(), 2, "two fetches, however many requests wait");
    let pause = one.pause(Duration::ZERO, 0.5);
    other.pause(Duration::ZERO, 0.5);
    advance(pause).await;
    assert_eq!(one.asked(), [1, 2]);
    assert_eq!(one.note(vec![(1, lease(1)), (2, lease(2))]), [0; 0]);
    advance(pause / 4).await;
    assert_eq!(other.asked(), [0; 0], "the question of the first request is recent");
    assert!(other.note(Vec::new()).is_empty() && !other.is_empty());
    advance(pause).await;
    assert_eq!(one.asked(), [1, 2]);
    assert_eq!(one.note(vec![(2, lease(2))]), [0; 0], "the first fetch has ended");
    assert_eq!(other.asked(), [3], "it is told at once");
    assert!(other.note(Vec::new()).is_empty() && other.is_empty());
    drop(one);
    assert_eq!(table.len(), 0);
}

#[test]
fn pauses_follow_the_usual_call_then_the_wait_and_grow_with_the_load() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1)), (2, ForeignLease::default())]);
    let pause =
        |awaited: &mut AwaitedFetches<u32>, waited_ms| awaited.pause(Duration::from_millis(waited_ms), 0.5).as_millis();
    assert_eq!([0, 100, 200, 400, 60_000].map(|waited| pause(&mut awaited, waited)), [25, 25, 25, 50, 500]);
    awaited.note((0..500).map(|number| (9, lease(number))).collect());
    assert_eq!(pause(&mut awaited, 0), 1_002, "two milliseconds for each");
    let [least, most] = [0.0, 1.0].map(|jitter| awaited.pause(Duration::ZERO, jitter).as_millis());
    assert!(least < 800 && most > 1_200, "{least} to {most}");
    let mut unknown = none();
    unknown.note(vec![(1, ForeignLease::default())]);
    assert_eq!([0, 80, 800].map(|waited| pause(&mut unknown, waited)), [10, 10, 100]);
}

#[test]
fn the_call_time_is_unknown_if_that_of_one_holder_is() {
    let mut awaited = none();
    awaited.note(vec![(1, lease(1))]);
    assert_eq!(awaited.call_time(), Some(CALL));
    awaited.note(vec![(2, ForeignLease::default())]);
    assert_eq!(awaited.call_time(), None);
}

/// The shared store of a simulation: leases of one other replica, and the time of each question.
struct Store {
    /// Fetch of each key, and when its vector is stored.
    keys: Vec<(LeasedFetch, Instant)>,
    asked: Mutex<Vec<(Instant, usize)>>,
}

impl Store {
    /// Asks for keys, as one look does. Returns those that are still leased.
    fn ask(&self, keys: Vec<usize>) -> Vec<(usize, ForeignLease)> {
        let now = Instant::now();
        self.asked.lock().expect("nobody panics").push((now, keys.len()));
        let is_leased = |key: &usize| self.keys[*key].1 > now;
        let lease = |key: usize| (key, ForeignLease { fetch: Some(self.keys[key].0), call_time: Some(CALL) });
        keys.into_iter().filter(is_leased).map(lease).collect()
    }

    /// Returns the largest number of keys that were asked for within any second.
    fn busiest_second(&self) -> usize {
        let mut asked = self.asked.lock().expect("nobody panics").clone();
        asked.sort();
        let within = |from: Instant| {
            let second = asked.iter().filter(move |(at, _)| *at >= from && *at < from + Duration::from_secs(1));
            second.map(|(_, keys)| keys).sum()
        };
        asked.iter().map(|(at, _)| within(*at)).max().unwrap_or(0)
    }
}

/// Waits for keys like a fetch does, with the jitter of a fixed sequence. Returns the time at which all were stored.
async fn wait_for(store: &Store, keys: Vec<usize>, (table, seed): (Arc<AwaitedTable>, u64)) -> Instant {
    let (mut awaited, mut state, begun) = (AwaitedFetches::new(table), seed, Instant::now());
    let mut asked = keys;
    loop {
        asked = awaited.note(store.ask(asked));
        if !asked.is_empty() {
            continue;
        }
        if awaited.is_empty() {
            return Instant::now();
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let jitter = f64::from(u32::try_from(state >> 33).expect("31 bits")) / f64::from(1_u32 << 31);
        sleep(awaited.pause(begun.elapsed(), jitter)).await;
        asked = awaited.asked();
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_replicas_that_wait_for_one_fetch_ask_rarely_and_learn_of_its_end_soon() {
    const REPLICAS: u64 = 100;
    let end = Instant::now() + 2 * CALL;
    let store = Store { keys: vec![(LeasedFetch { process: 1, number: 1 }, end); 100], asked: Mutex::default() };
    let waits = (0..REPLICAS).map(|seed| wait_for(&store, (0..100).collect(), (Arc::default(), seed)));
    let ends = futures_util::future::join_all(waits).await;
    let latest = ends.iter().map(|at| at.duration_since(end)).max().expect("there are replicas");
    assert!(latest <= CALL / 8 * 2 * 5 / 4 + Duration::from_millis(1), "{latest:?}");
    let asked = store.asked.lock().expect("nobody panics").clone();
    // All keys at first, one for each look, and all but the asked one at the end.
    let keys: usize = asked.iter().map(|(_, keys)| keys).sum();
    let looks = keys.saturating_sub(100 * 199);
    assert!((100 * 8..=100 * 22).contains(&looks), "{looks} looks of all replicas");
    // The replicas begin together, and the jitter separates them.
    let mut moments: BTreeMap<Instant, usize> = BTreeMap::new();
    asked.iter().filter(|(at, _)| *at > end - CALL).for_each(|(at, _)| *moments.entry(*at).or_default() += 1);
    let most = moments.values().max().expect("they ask");
    assert!(*most <= 20, "{most} at one moment");
}

#[tokio::test(start_paused = true)]
async fn the_questions_of_a_process_are_bounded_whatever_it_waits_for() {
    let end = Instant::now() + Duration::from_secs(5);
    // Each of 20 requests waits for 20 fetches of their own.
    let fetch = |number| (LeasedFetch { process: 1, number }, end);
    let store = Store { keys: (0..400).map(fetch).collect(), asked: Mutex::default() };
    let table: Arc<AwaitedTable> = Arc::default();
    let waits = (0..20_usize).map(|request| {
        let keys = (request * 20..request * 20 + 20).collect();
        wait_for(&store, keys, (Arc::clone(&table), request as u64))
    });
    futures_util::future::join_all(waits).await;
    // The first look of each request asks for all of its keys.
    let first = store.asked.lock().expect("nobody panics").drain(..20).map(|(_, keys)| keys).sum::<usize>();
    assert_eq!(first, 400);
    let most = store.busiest_second();
    // The pauses of the first requests are shorter, because the process does not wait for all of the fetches yet.
    assert!((250..=900).contains(&most), "{most} keys in one second");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_the_same_fetches_share_their_questions() {
    let end = Instant::now() + 4 * CALL;
    let fetch = |number| (LeasedFetch { process: 1, number }, end);
    let store = Store { keys: (0..10).map(fetch).collect(), asked: Mutex::default() };
    let table: Arc<AwaitedTable> = Arc::default();
    let waits = (0..20).map(|seed| wait_for(&store, (0..10).collect(), (Arc::clone(&table), seed)));
    futures_util::future::join_all(waits).await;
    let keys: usize = store.asked.lock().expect("nobody panics").iter().map(|(_, keys)| keys).sum();
    // Each request asks for its keys at first and at the end. One request alone has 20 looks in between.
    assert!(keys <= 20 * 10 * 2 + 10 * 60, "{keys} keys of 20 requests");
}
