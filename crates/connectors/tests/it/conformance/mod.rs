//! Conformance: the statements of MQTT 3.1.1 and 5.0 that apply to this endpoint, each shown with raw bytes over TLS.
//!
//! The cases stand in `cases/`, in the language of [`script`]; what each statement asks, and why one does not apply, in
//! `statements/`. `docs/reference/mqtt.md` is made of both and checked here.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt as _;

use crate::house::House;
use script::{Case, VERSIONS, Version};

mod coverage;
mod run;
mod script;

/// Cases played at one time.
const AT_A_TIME: usize = 8;

/// Every file of cases.
fn all_cases() -> Vec<Case> {
    [
        include_str!("cases/connect.txt"),
        include_str!("cases/format.txt"),
        include_str!("cases/publish.txt"),
        include_str!("cases/subscribe.txt"),
    ]
    .into_iter()
    .flat_map(Case::read_all)
    .collect()
}

/// Plays all cases of a file in a version; gives those that failed.
async fn failures(version: Version, text: &str) -> Vec<String> {
    let mut house = Arc::new(House::open().await);
    let cases = Case::read_all(text).into_iter().filter(|case| case.is_for(version)).map(Arc::new);
    let mut played = futures_util::stream::iter(cases)
        .map(|case| {
            let house = Arc::clone(&house);
            let name = case.name.clone();
            async move {
                let play = tokio::spawn(async move { run::play(house, &case, version).await });
                (name, play.await)
            }
        })
        .buffer_unordered(AT_A_TIME);
    let mut failed = Vec::new();
    let mut count = 0;
    while let Some((name, outcome)) = played.next().await {
        count += 1;
        if let Err(error) = outcome {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.unwrap_or_else(|| "a fault of the case itself".to_owned());
            failed.push(format!("{version:?}: {name}: {text}"));
        }
    }
    drop(played);
    assert!(count > 10, "the cases were read");
    Arc::get_mut(&mut house).expect("all cases have ended").stop().await;
    failed
}

macro_rules! chapters {
    ($($name:ident: $file:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let mut failed = Vec::new();
            for version in VERSIONS {
                failed.extend(failures(version, include_str!($file)).await);
            }
            assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
        }
    )*};
}

chapters! {
    connections_begin_as_the_specification_has_it: "cases/connect.txt";
    packets_are_formed_as_the_specification_has_it: "cases/format.txt";
    messages_are_taken_as_the_specification_has_it: "cases/publish.txt";
    subscriptions_are_held_as_the_specification_has_it: "cases/subscribe.txt";
}

#[test]
fn every_case_has_its_own_name() {
    let mut names = BTreeSet::new();
    for case in all_cases() {
        for version in VERSIONS.into_iter().filter(|version| case.is_for(*version)) {
            assert!(names.insert((version, case.name.clone())), "{} stands twice", case.name);
        }
        assert!(!case.proves.is_empty(), "{} proves nothing", case.name);
    }
}
