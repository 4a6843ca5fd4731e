//! Sizes of merged calls and of parts of large requests.

use super::*;

const CONFIG: BatchConfig = BatchConfig { max_inputs: 2_048, max_tokens: 300_000, target_time: TARGET };
const TARGET: Duration = Duration::from_secs(2);

fn answer(lane: &LaneSize, inputs: usize, took_ms: u64) {
    let load = Load { inputs, tokens: inputs };
    lane.answered(load, Duration::from_millis(took_ms), TARGET, &lane.enter());
}

fn merge(lane: &LaneSize) -> usize {
    lane.bounds(&CONFIG, false).merge_inputs
}

fn cut(lane: &LaneSize) -> usize {
    lane.bounds(&CONFIG, false).cut(usize::MAX)
}

#[tokio::test(start_paused = true)]
async fn merged_calls_start_at_the_size_of_a_request_and_double_while_fast() {
    let lane = LaneSize::default();
    assert_eq!(merge(&lane), 0, "nothing is merged before a call was answered");
    assert_eq!(lane.bounds(&CONFIG, true).merge_inputs, KNOWN_MERGE_INPUTS);
    let sizes = [(3, 10), (6, 10), (12, 10), (5, 10), (24, 1_999)].map(|(inputs, took_ms)| {
        answer(&lane, inputs, took_ms);
        merge(&lane)
    });
    assert_eq!(sizes, [6, 12, 24, 24, 48]);
    answer(&lane, 48, 8_000);
    assert_eq!(merge(&lane), 12, "what took four times the target time is cut to a quarter");
}

#[tokio::test(start_paused = true)]
async fn a_failed_merged_call_without_a_bad_input_lowers_the_merge_size() {
    let lane = LaneSize::default();
    answer(&lane, 100, 1);
    lane.merge_failed(160, true);
    assert_eq!(merge(&lane), 80);
    answer(&lane, 100, 1);
    assert_eq!(merge(&lane), 159);
    tokio::time::advance(BELIEVED_FOR).await;
    assert_eq!(merge(&lane), 200);
    lane.merge_failed(150, false);
    assert_eq!(merge(&lane), 75);
    answer(&lane, 75, 1);
    assert_eq!(merge(&lane), 150, "one bad text among them says nothing of the size");
}

#[tokio::test(start_paused = true)]
async fn slow_requests_are_split_but_one_slow_input_changes_nothing() {
    let lane = LaneSize::default();
    for _ in 0..3 {
        answer(&lane, 1, 10_000);
        assert_eq!(cut(&lane), 2_048);
    }
    answer(&lane, 300, 10_100);
    assert_eq!(cut(&lane), 2_048, "many take as long as one, and parts would not be quicker");
    let lane = LaneSize::default();
    answer(&lane, 2_048, 102_400);
    assert_eq!(cut(&lane), 40);
    for expected in [80, 160, 320, 640, 1_280, 2_048, 2_048] {
        answer(&lane, cut(&lane), 500);
        assert_eq!(cut(&lane), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_remainder_of_less_than_two_parts_is_not_split() {
    let lane = LaneSize::default();
    answer(&lane, 400, 20_000);
    assert_eq!([79, 80, 400].map(|left| lane.bounds(&CONFIG, false).cut(left)), [2_048, 40, 40]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_each_other_do_not_cause_splits() {
    let lane = LaneSize::default();
    let calls: Vec<_> = (0..20).map(|_| lane.enter()).collect();
    for (place, call) in calls.iter().enumerate() {
        let took = Duration::from_millis(1_600) * u32::try_from(place + 1).expect("small");
        lane.answered(Load { inputs: 32, tokens: 32 }, took, TARGET, call);
    }
    assert_eq!(cut(&lane), 2_048);
    assert!(merge(&lane) <= 2, "but nothing is merged");
}

#[tokio::test(start_paused = true)]
async fn the_lowest_refused_size_holds_until_it_expires() {
    let lane = LaneSize::default();
    lane.refused_above(10);
    lane.refused_above(20);
    assert_eq!(cut(&lane), 10);
    tokio::time::advance(BELIEVED_FOR).await;
    assert_eq!(cut(&lane), 2_048);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_overdue_after_ten_times_the_known_duration_of_its_size() {
    let (lane, least) = (LaneSize::default(), Duration::from_mins(1));
    assert_eq!(lane.overdue_after(1, least), None);
    answer(&lane, 2, 100);
    assert_eq!(lane.overdue_after(2, least), Some(least));
    answer(&lane, 2, 10_000);
    assert_eq!(lane.overdue_after(1, least), Some(Duration::from_secs(100)));
    assert_eq!(lane.overdue_after(6, least), Some(Duration::from_mins(5)));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_sent_as_written_are_not_merged() {
    let lane = LaneSize::default();
    answer(&lane, 100, 1);
    lane.prefer_own();
    let bounds = lane.bounds(&CONFIG, true);
    assert!(bounds.own_only && bounds.merge_inputs == 0);
    tokio::time::advance(BELIEVED_FOR).await;
    assert_eq!(merge(&lane), 200);
}
