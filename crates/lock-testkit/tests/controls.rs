//! Negative controls: a backend with a planted defect must not pass the cases about it.

mod kit;

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use lock_testkit::faulty::{CONTROL_PATIENCE, Defect, FaultyKit};
use lock_testkit::{Kit, Verdict, run_case};

/// Which cases must notice which defect.
const CONTROLS: &[(Defect, &[&str])] = &[
    (
        Defect::GrantsTwice,
        &[
            "exclusive::a_second_try_is_contended_on_every_handle_and_client",
            "exclusive::a_failed_acquire_leaves_everything_as_it_was",
            "contention::a_hundred_tasks_count_without_losing_one",
            "contention::eight_threads_count_without_losing_one",
            "contention::a_thousand_random_operations_follow_the_model",
            "contention::a_stress_run_shows_no_violation",
            "shared::random_interleavings_never_mix_the_modes",
            "composite::a_set_is_held_and_released_whole",
            "wrapped::a_cycle_of_two_is_a_deadlock",
            "wrapped::counters_match_a_scripted_run",
        ],
    ),
    (
        Defect::IgnoresAbandon,
        &[
            "exclusive::abandon_of_a_finished_attempt_never_frees_the_next_holder",
            "exclusive::a_panic_releases",
            "cancel::an_acquire_dropped_at_any_poll_leaves_no_waiter",
            "cancel::an_acquire_dropped_at_the_moment_of_grant_passes_it_on",
            "cancel::a_cancel_that_races_the_grant_leaves_nothing",
            "cancel::a_dropped_waiter_does_not_stall_those_behind_it",
            "cancel::a_release_dropped_unpolled_releases",
            "cancel::an_abandoned_attempt_is_never_granted_afterwards",
            "cancel::a_leaked_guard_is_bounded_by_max_hold",
            "shared::a_cancelled_exclusive_waiter_lets_shared_ones_in",
            "shared::an_exclusive_waiter_that_times_out_lets_shared_ones_in",
            "composite::a_set_that_fails_rolls_back",
            "composite::a_cancelled_set_leaves_nothing",
            "options::max_hold_gives_the_lock_up",
            "hygiene::touched_names_leave_nothing_in_the_store",
        ],
    ),
    (
        Defect::ReleaseFreesNextHolder,
        &["exclusive::release_is_idempotent_and_never_frees_the_next_holder"],
    ),
    (
        // A guard that has told of its loss does not believe such a backend; one that has not, must.
        Defect::ReleaseLies,
        &["exclusive::release_is_idempotent_and_never_frees_the_next_holder"],
    ),
    (
        Defect::FencingRepeats,
        &[
            "exclusive::attempts_differ_and_fencing_rises",
            "fencing::tokens_rise_over_release_drop_and_clients",
            "fencing::tokens_rise_after_the_key_was_forgotten",
            "fencing::a_late_writer_is_refused_by_the_resource",
        ],
    ),
    (
        Defect::FencingGoesBack,
        &[
            "fencing::tokens_rise_over_release_drop_and_clients",
            "fencing::tokens_rise_over_a_shared_interlude",
            "fencing::tokens_rise_over_random_operations_of_four_processes",
        ],
    ),
    (
        Defect::SharedOvertakes,
        &["shared::a_waiting_exclusive_holds_back_new_shared_ones"],
    ),
    (
        Defect::PermitsUncounted,
        &[
            "permits::the_maximum_is_reached_and_never_passed",
            "permits::permits_drain_and_refill",
            "permits::slots_are_distinct",
            "contention::a_stress_run_shows_no_violation",
        ],
    ),
    (Defect::SlotsRepeat, &["permits::slots_are_distinct"]),
    (
        Defect::ConflictIsContention,
        &[
            "permits::another_maximum_is_a_mode_conflict",
            "permits::a_conflict_with_a_waiter_is_a_conflict",
            "permits::shared_against_permit_is_a_mode_conflict",
        ],
    ),
    (
        Defect::LosesWakeUps,
        &[
            "exclusive::no_wake_up_is_lost_between_a_failed_try_and_the_queue",
            "exclusive::threads_without_a_runtime_wait_and_release",
            "order::one_priority_is_served_first_come_first_served",
            "shared::waiting_shared_ones_come_in_together",
            "options::a_waker_may_use_the_lock",
            "options::readiness_tells_a_foreign_event_loop",
        ],
    ),
    (
        Defect::AsksEagerly,
        &["cancel::an_unpolled_step_queues_nothing"],
    ),
    (
        Defect::IgnoresPriority,
        &[
            "order::a_higher_priority_goes_first",
            "order::order_reaches_over_clients",
            "order::a_waiter_bypassed_64_times_is_served_next",
        ],
    ),
    (
        Defect::ServesLatecomersFirst,
        &[
            "order::one_priority_is_served_first_come_first_served",
            "order::equal_waiters_get_equal_shares",
        ],
    ),
    (
        Defect::DowngradeHasGap,
        &["shared::a_downgrade_leaves_no_gap"],
    ),
    (
        Defect::FoldsCase,
        &[
            "names::names_are_case_sensitive",
            "names::every_kind_of_name_works_and_is_itself_alone",
        ],
    ),
    (Defect::JoinsNamespaces, &["names::namespaces_isolate"]),
    (
        Defect::TryWaits,
        &[
            "exclusive::a_wait_limit_of_zero_is_one_attempt",
            "exclusive::a_deadline_in_the_past_is_one_attempt",
        ],
    ),
    (
        Defect::DropsOptions,
        &[
            "options::a_ttl_is_refused_where_there_is_no_lease",
            "options::lock_delay_is_refused_where_it_is_not_declared",
        ],
    ),
    (
        Defect::IgnoresClose,
        &["hygiene::closing_refuses_new_ones_and_tells_those_who_wait"],
    ),
    (
        Defect::DetachReleases,
        &["options::a_detached_lock_stays_held_until_it_is_attached_and_released"],
    ),
    (
        Defect::WakesUnderItsLock,
        &["options::a_waker_may_use_the_lock"],
    ),
];

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let trials = CONTROLS
        .iter()
        .flat_map(|(defect, cases)| cases.iter().map(|case| control(*defect, case)))
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn control(defect: Defect, case: &'static str) -> Trial {
    Trial::test(format!("{defect:?}::{case}"), move || {
        let kit: Arc<dyn Kit> = Arc::new(FaultyKit::new(kit::ThreadingKit::default(), defect)?);
        match run_case(&kit, case, CONTROL_PATIENCE)? {
            Verdict::Failed(_) => Ok(()),
            other => Err(Failed::from(format!(
                "the defect went unnoticed: {other:?}"
            ))),
        }
    })
}
