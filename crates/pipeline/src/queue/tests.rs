//! Fairness, urgency, order and bounds of the queue, without a clock and without a store.

use clinical_model::{Delivery, Frame, FrameKind, RecordId as _};

use super::*;

/// Bounds that never make anything give way.
const NEVER: Bounds =
    Bounds { backfill_after: Duration::from_secs(86_400), live_after: Duration::from_secs(86_400) };
/// Bounds by which everything that may give way does, as soon as anything waits.
const AT_ONCE: Bounds = Bounds { backfill_after: Duration::ZERO, live_after: Duration::ZERO };

fn submission(device: u8, class: Class, number: u32, bytes: usize) -> Submission {
    let frame = Frame {
        device: DeviceId::from_bytes([device; 16]),
        kind: FrameKind::Envelope,
        received_at: Timestamp::from_micros(i64::from(number)),
        delivery: Delivery::AtLeastOnce,
        bytes: vec![0; bytes],
    };
    let record = FrameRecord { frame, facts: Vec::new(), quarantined: Vec::new(), released: Vec::new() };
    let at = Timestamp::from_seconds(0);
    let receipt =
        Receipt { group: 0, committed_at: at, received_at: at, entries: Vec::new(), is_recorded: false };
    Submission { record, receipt, class, counted: None, line: None, audit: Vec::new() }
}

fn put(queue: &CommitQueue, device: u8, class: Class, number: u32) -> Answered {
    let offered = queue.shared.offer(submission(device, class, number, 10), None);
    offered.unwrap().unwrap_or_else(|_| panic!("there is room"))
}

/// Devices and numbers of a group, in its order.
fn taken(queue: &Submissions) -> Vec<(u8, i64)> {
    let number = |waiting: Waiting| {
        let frame = waiting.submission.record.frame;
        (frame.device.to_bytes()[0], frame.received_at.as_micros())
    };
    queue.next_group().into_iter().map(number).collect()
}

#[test]
fn the_urgent_are_committed_first() {
    let (queue, end) = CommitQueue::new();
    put(&queue, 1, Class::Backfill, 1);
    put(&queue, 2, Class::Live, 2);
    put(&queue, 3, Class::Alarm, 3);
    put(&queue, 4, Class::Live, 4);
    assert_eq!(taken(&end), [(3, 3), (2, 2), (4, 4), (1, 1)]);
}

#[test]
fn what_a_device_sent_first_is_committed_first_even_before_its_alarm() {
    let (queue, end) = CommitQueue::new();
    put(&queue, 1, Class::Live, 1);
    put(&queue, 2, Class::Backfill, 1);
    put(&queue, 2, Class::Live, 2);
    put(&queue, 2, Class::Alarm, 3);
    put(&queue, 2, Class::Backfill, 4);
    assert_eq!(taken(&end), [(2, 1), (2, 2), (2, 3), (1, 1), (2, 4)]);
}

#[test]
fn a_device_that_floods_waits_in_its_own_line() {
    let (queue, end) = CommitQueue::new();
    for number in 0..1_000 {
        put(&queue, 1, Class::Live, number);
    }
    for device in 2..=100 {
        put(&queue, device, Class::Live, 1);
        put(&queue, device, Class::Live, 2);
    }
    let order = taken(&end);
    let of_flood = |part: &[(u8, i64)]| part.iter().filter(|(device, _)| *device == 1).count();
    assert_eq!(of_flood(&order[..100]), 1, "one of a hundred devices has one of a hundred places");
    assert_eq!(of_flood(&order[..200]), 2);
    assert_eq!(order.len(), 1_000 + 2 * 99, "and what is left of the group");
    let flood: Vec<i64> =
        order.iter().filter(|(device, _)| *device == 1).map(|(_, number)| *number).collect();
    assert!(flood.is_sorted(), "in its order");
}

#[test]
fn nobody_waits_for_ever_behind_the_urgent() {
    let (queue, end) = CommitQueue::new();
    for device in 0..8 {
        for number in 0..1_000 {
            put(&queue, device, Class::Alarm, number);
        }
    }
    put(&queue, 100, Class::Live, 1);
    put(&queue, 101, Class::Backfill, 1);
    let first = taken(&end);
    assert_eq!(first.len(), GROUP_LIMIT_FRAMES / 8 * 6 + 2);
    assert!(first.contains(&(100, 1)) && first.contains(&(101, 1)), "a part of each group is theirs");
}

#[test]
fn one_device_cannot_fill_the_queue() {
    let (queue, end) = CommitQueue::new();
    for number in 0..DEVICE_LIMIT_FRAMES as u32 {
        put(&queue, 1, Class::Live, number);
    }
    let more = queue.shared.offer(submission(1, Class::Live, 9_999, 10), None).unwrap();
    assert!(matches!(more, Err((_, NotNow::NoShare))));
    let alarm = queue.shared.offer(submission(1, Class::Alarm, 9_999, 10), None).unwrap();
    assert!(matches!(alarm, Err((_, NotNow::NoShare))), "not even with alarms");
    put(&queue, 2, Class::Backfill, 1);
    drop(taken(&end));
    put(&queue, 1, Class::Live, 10_000);
}

#[test]
fn there_is_always_room_for_live_data_before_backfill_and_for_alarms_before_both() {
    let (queue, _end) = CommitQueue::new();
    let fill = |class, first: u8| {
        let mut count = 0;
        for device in first..first + 30 {
            while count < 20_000 {
                match queue.shared.offer(submission(device, class, count, 10), None).unwrap() {
                    Ok(_) => count += 1,
                    Err((_, NotNow::NoShare)) => break,
                    Err(_) => return count as usize,
                }
            }
        }
        panic!("it was never full");
    };
    assert_eq!(fill(Class::Backfill, 0), QUEUE_LIMIT_FRAMES / 2);
    assert_eq!(fill(Class::Live, 40), QUEUE_LIMIT_FRAMES / 16 * 14 - QUEUE_LIMIT_FRAMES / 2);
    assert_eq!(fill(Class::Alarm, 80), QUEUE_LIMIT_FRAMES / 16 * 2);
}

#[test]
fn bytes_are_bounded_as_well() {
    let (queue, end) = CommitQueue::new();
    let mut total = 0;
    for device in 0..200 {
        while let Ok(Ok(_)) = queue.shared.offer(submission(device, Class::Alarm, 1, 1 << 20), None) {
            total += 1 << 20;
        }
    }
    assert!(total <= QUEUE_LIMIT_BYTES && total > QUEUE_LIMIT_BYTES / 8 * 7, "{total}");
    let group = end.next_group();
    assert!(group.len() <= 4, "a group has {GROUP_LIMIT_BYTES} bytes");
    assert_eq!(queue.load().waiting_frames[0], total / (1 << 20) - group.len());
}

#[tokio::test]
async fn backfill_gives_way_and_live_data_too_but_never_an_alarm() {
    let (queue, end) = CommitQueue::new();
    let now = Timestamp::from_seconds(7);
    put(&queue, 9, Class::Alarm, 1);
    for class in [Class::Backfill, Class::Live] {
        let refused = queue.submit(submission(1, class, 1, 10), Patience::ByClass, &AT_ONCE, now).await;
        assert_eq!(refused.unwrap_err(), IntakeError::Overloaded { class });
    }
    assert!(queue.submit(submission(1, Class::Alarm, 1, 10), Patience::ByClass, &AT_ONCE, now).await.is_ok());
    assert!(
        queue.submit(submission(1, Class::Backfill, 2, 10), Patience::Endless, &AT_ONCE, now).await.is_ok()
    );
    let load = queue.load();
    assert_eq!(load.refused_frames, [0, 1, 1]);
    assert_eq!(load.refused_at, [None, Some(now), Some(now)]);
    assert_eq!(taken(&end), [(9, 1), (1, 1), (1, 2)]);
    let minute = Duration::from_secs(60);
    assert_eq!(load.shedding(now, minute).collect::<Vec<_>>(), [Class::Live, Class::Backfill]);
    assert_eq!(load.shedding(Timestamp::from_seconds(100), minute).count(), 0, "it is over");
}

#[tokio::test]
async fn what_cannot_be_told_to_come_again_is_held_until_there_is_room() {
    let (queue, end) = CommitQueue::new();
    put(&queue, 9, Class::Alarm, 1);
    let hold = Patience::Hold(Duration::from_secs(3_600));
    let held = queue.submit(submission(1, Class::Backfill, 2, 10), hold, &AT_ONCE, Timestamp::MIN);
    tokio::pin!(held);
    assert!(futures_poll(held.as_mut()).await.is_none(), "it waits");
    assert_eq!(taken(&end), [(9, 1)]);
    // The commit of the first group has ended when the next is asked for, on its own thread.
    let commit = std::thread::spawn(move || (taken(&end), end));
    held.await.unwrap();
    let (second, _end) = commit.join().unwrap();
    assert_eq!(second, [(1, 2)]);
    assert_eq!(queue.load().refused_frames, [0; 3]);
}

#[tokio::test]
async fn who_can_come_again_does_not_wait_for_its_share() {
    let (queue, _end) = CommitQueue::new();
    for number in 0..DEVICE_LIMIT_FRAMES as u32 {
        put(&queue, 1, Class::Live, number);
    }
    let more =
        queue.submit(submission(1, Class::Live, 1, 10), Patience::ByShare, &NEVER, Timestamp::MIN).await;
    assert_eq!(more.unwrap_err(), IntakeError::Busy { device: DeviceId::from_bytes([1; 16]) });
    assert_eq!(queue.load().refused_shares, 1);
}

#[tokio::test]
async fn the_queue_ends_with_its_last_door_and_is_emptied_first() {
    let (queue, end) = CommitQueue::new();
    put(&queue, 1, Class::Live, 1);
    drop(queue.clone());
    drop(queue);
    assert_eq!(taken(&end), [(1, 1)]);
    assert_eq!(taken(&end), []);
}

#[tokio::test]
async fn who_waits_is_told_when_nobody_commits_any_more() {
    let (queue, end) = CommitQueue::new();
    let answered = put(&queue, 1, Class::Live, 1);
    drop(end);
    assert!(answered.await.is_err());
    let more =
        queue.submit(submission(1, Class::Alarm, 1, 10), Patience::Endless, &NEVER, Timestamp::MIN).await;
    assert_eq!(more.unwrap_err(), IntakeError::Stopping);
}

/// Polls a future once.
async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn the_disk_is_behind_while_a_frame_waits_long_and_for_a_while_after_a_slow_group() {
    let ago = |seconds: u64| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    let (queue, end) = CommitQueue::new();
    assert!(!queue.load().disk_is_behind, "nothing waits");
    put(&queue, 1, Class::Live, 1);
    assert!(!queue.load().disk_is_behind, "it came just now");
    queue.shared.lock().arrivals.at[0] = Some(ago(2));
    assert!(queue.load().disk_is_behind, "it waits for too long");
    assert_eq!(taken(&end).len(), 1);
    assert!(queue.load().disk_is_behind, "the group it is in is still being written");
    put(&queue, 1, Class::Live, 2);
    assert_eq!(taken(&end).len(), 1);
    assert!(queue.load().oldest_waits < KEEPS_UP_WITHIN);
    assert!(queue.load().disk_is_behind, "the group before took too long");
    queue.shared.lock().slow_at = Some(ago(SLOW_FOR.as_secs()));
    assert!(!queue.load().disk_is_behind, "that was a while ago");
}
