//! Damaged files: damaged entries are fetched again, intact ones are served, and no wrong vector is ever served.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::ground::{Ground, SMALL, TINY, texts};
use crate::randomised::dice::Dice;

fn flip(path: &Path, bit: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).expect("the file is that long");
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8).expect("the file can be written");
}

/// Flips random bits in the files that hold entries.
fn flip_many(ground: &Ground, count: usize, dice: &mut Dice) {
    let segments = ground.folder.segments();
    for _ in 0..count {
        let segment = dice.pick(&segments);
        let bits = fs::metadata(&segment).expect("the file is there").len() * 8;
        flip(&segment, dice.number() % bits);
    }
}

async fn filled(ground: &Ground, model: &str, texts: &[String]) {
    let vecho = ground.start().await;
    ground.ask(&vecho, model, texts).await;
    assert!(vecho.stop().status.success());
}

#[tokio::test]
async fn flipped_bits_are_never_served() {
    let (ground, texts, mut dice) = (Ground::new(), texts("bits", 600), Dice::new(7));
    filled(&ground, SMALL, &texts).await;
    flip_many(&ground, 200, &mut dice);
    let vecho = ground.start().await;
    let whole = ground.ask(&vecho, SMALL, &texts).await;
    assert!((300..600).contains(&whole), "{whole}: most bits hit an entry of their own");
    assert_eq!(ground.stub.inputs_sent(), 600 + (600 - whole), "what is damaged is fetched again");
    // The damaged entries were fetched and written again, which repaired them.
    assert!(vecho.stop().status.success());
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, SMALL, &texts).await, 600);
}

#[tokio::test]
async fn flipped_bits_among_many_small_entries_are_never_served() {
    let (ground, texts, mut dice) = (Ground::new(), texts("small bits", 2_000), Dice::new(11));
    filled(&ground, TINY, &texts).await;
    flip_many(&ground, 200, &mut dice);
    let vecho = ground.start().await;
    let whole = ground.ask(&vecho, TINY, &texts).await;
    // The footer is damaged too, so entries behind the first damaged frame are not found.
    assert!(whole < 2_000, "{whole}");
    assert_eq!(ground.stub.inputs_sent(), 4_000 - whole);
}

#[tokio::test]
async fn truncated_files_serve_their_remaining_entries() {
    let (ground, texts) = (Ground::new(), texts("cut", 400));
    filled(&ground, SMALL, &texts).await;
    let segments = ground.folder.segments();
    for segment in &segments {
        let length = fs::metadata(segment).expect("the file is there").len();
        let file = OpenOptions::new().write(true).open(segment).expect("the file is there");
        file.set_len(length * 2 / 3 + 1).expect("it can be cut");
    }
    let vecho = ground.start().await;
    let whole = ground.ask(&vecho, SMALL, &texts).await;
    assert!((200..400).contains(&whole), "{whole}");
}

/// Exchanges the values of frames of equal length and keeps their heads. Returns the number of moved values.
fn exchange_values(segment: &Path) -> usize {
    const HEAD_BYTES: usize = 64;
    let mut bytes = fs::read(segment).expect("the file is there");
    let (mut values, mut at) = (BTreeMap::<usize, Vec<usize>>::new(), 16);
    while bytes.get(at..at + 4) == Some(b"vent") {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
        let length = usize::try_from(length).expect("it is small");
        values.entry(length).or_default().push(at + HEAD_BYTES);
        at += HEAD_BYTES + length;
    }
    let mut moved = 0;
    for (length, places) in values.into_iter().filter(|(_, places)| places.len() > 1) {
        let contents: Vec<Vec<u8>> = places.iter().map(|at| bytes[*at..*at + length].to_vec()).collect();
        for (at, value) in places.iter().zip(contents.iter().cycle().skip(1)) {
            bytes[*at..*at + length].copy_from_slice(value);
        }
        moved += places.len();
    }
    fs::write(segment, bytes).expect("it can be written");
    moved
}

#[tokio::test]
async fn values_that_are_exchanged_among_frames_are_misses() {
    for settings in [&[][..], &[("VECHO_CACHE_KEY_SECRET", "of the test")]] {
        let (ground, texts) = (Ground::new(), texts("exchanged", 200));
        let vecho = ground.start_with(settings);
        ground.ask(&vecho, TINY, &texts).await;
        assert!(vecho.stop().status.success());
        let [segment] = &ground.folder.segments()[..] else { panic!("there is one") };
        let moved = exchange_values(segment);
        assert!(moved >= 200, "{moved}");
        let vecho = ground.start_with(settings);
        vecho.logged("the disk tier is open").await;
        assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
        assert_eq!(ground.stub.inputs_sent(), 400);
    }
}

#[tokio::test]
async fn non_files_named_like_segments_are_skipped() {
    let (ground, texts) = (Ground::new(), texts("odd", 40));
    filled(&ground, TINY, &texts).await;
    let named = |number: u32| ground.folder.path().join(format!("{number:010}.segment"));
    // The names of the next segments, and one with a much higher number.
    fs::create_dir_all(named(2).join("inside")).expect("it can be made");
    assert!(Command::new("mkfifo").arg(named(3)).status().expect("mkfifo must run").success());
    symlink("/nowhere/at/all", named(4)).expect("it can be made");
    fs::create_dir(named(u32::MAX)).expect("it can be made");
    let vecho = ground.start_with(&[("VECHO_DISK_MAX_MB", "16")]);
    vecho.logged("the disk tier is open").await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 40);
    assert_eq!(vecho.log().matches("that are not regular files").count(), 1, "{}", vecho.log());
    // Enough entries to start further segments.
    let many = super::ground::texts("after the odd things", 1_000);
    ground.ask(&vecho, SMALL, &many).await;
    super::ground::written(&vecho, 1_040).await;
    assert!(named(5).is_file(), "{:?}", ground.folder.segments());
    ground.purge(&vecho, "?tier=disk").await;
    assert_eq!(ground.stats(&vecho).await["up"], serde_json::json!(true), "{}", vecho.log());
    assert!(named(2).join("inside").is_dir() && named(4).is_symlink(), "they are left alone");
    assert!(vecho.stop().status.success());
    assert_eq!(ground.ask(&ground.start().await, TINY, &texts).await, 0, "the purge took all entries");
}

#[tokio::test]
async fn empty_or_garbage_segments_do_not_prevent_a_start() {
    let (ground, texts) = (Ground::new(), texts("nonsense", 40));
    filled(&ground, TINY, &texts).await;
    let [segment] = &ground.folder.segments()[..] else { panic!("there is one") };
    fs::write(ground.folder.path().join("0000000002.segment"), "").expect("it can be written");
    fs::write(ground.folder.path().join("0000000003.segment"), vec![0xff; 100_000]).expect("it can be written");
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 40);
    assert!(vecho.stop().status.success());
    fs::write(segment, "").expect("it can be written");
    let vecho = ground.start().await;
    assert_eq!(ground.ask(&vecho, TINY, &texts).await, 0);
}

#[tokio::test]
async fn files_damaged_while_in_use_are_misses() {
    let (ground, texts) = (Ground::new(), texts("meanwhile", 300));
    filled(&ground, SMALL, &texts).await;
    let vecho = ground.start().await;
    flip_many(&ground, 100, &mut Dice::new(3));
    let whole = ground.ask(&vecho, SMALL, &texts).await;
    assert!((150..300).contains(&whole), "{whole}");
    let [segment] = &ground.folder.segments()[..] else { panic!("there is one") };
    OpenOptions::new().write(true).open(segment).expect("it is there").set_len(1_000).expect("it can be cut");
    ground.purge(&vecho, "?tier=memory").await;
    ground.ask(&vecho, SMALL, &texts).await;
    assert!(!vecho.log().contains("panicked"), "{}", vecho.log());
}
