//! The suite that every store must pass, run against each implementation, and what only files can get wrong.

mod care;
mod documents;
mod files;
mod ingest;
mod law;
mod log;
mod moving;
mod shared;
mod support;
mod swaps;

use support::{PgFactory, SqliteFactory};

/// Runs every test of the suite against the stores that a factory opens.
macro_rules! store_suite {
    ($name:ident: $factory:expr) => {
        mod $name {
            use super::*;

            store_suite!(@tests $factory;
                law: any_history_reads_as_its_union, curves_keep_every_sample_once;
                ingest: a_committed_group_is_read_back, latest_is_the_newest_by_time_and_sequence,
                    latest_is_not_held_by_a_clock_that_ran_ahead, a_latest_value_that_was_contradicted_says_so,
                    cursors_hold_folding_back, repeats_and_conflicts_of_events_and_curves,
                    frames_are_found_before_and_after_folding, quarantine_counts_releases_and_pages,
                    identifiers_round_trip, summaries_count_and_hash, series_are_listed_by_subject_device_and_measure,
                    limits_and_orders_agree_with_the_whole;
                documents: versions_and_expectations, unique_values, pages_in_both_directions,
                    audit_has_no_gaps_and_filters, a_failed_transaction_leaves_nothing,
                    removed_documents_go_on_counting, versions_stay_readable, changes_are_listed_in_order,
                    news_wake_who_waits;
                log: rows_enter_the_tree_and_are_proven,
                    every_search_of_the_log_finds_what_a_look_at_each_row_finds, each_change_of_the_acts_is_found_and_named,
                    each_change_of_the_groups_is_found_and_named, acts_come_with_the_frames_they_sent,
                    one_of_two_writers_takes_rows_into_the_tree, the_signing_key_turns_over,
                    old_checkpoints_thin_out_and_one_more_that_goes_is_found;
                care: an_epoch_turns_in_steps_and_goes_on_after_every_end, a_promotion_that_failed_is_made_up_for,
                    a_patients_key_turns_over_beside_writes, an_erased_patient_is_gone_and_stays_gone,
                    what_is_older_goes_and_what_is_on_hold_stays;
            );
        }
    };
    (@tests $factory:expr; $($module:ident: $($test:ident),+;)+) => {
        $($(
            #[test]
            fn $test() {
                let factory = $factory;
                crate::$module::$test(&factory);
            }
        )+)+
    };
}

store_suite!(sqlite: SqliteFactory::new());
store_suite!(postgres: PgFactory::new());
