//! Every check passes without a plant, and catches its own.

use lock_testkit::network::Plant;

use super::setup::Verdict;
use super::{cancel, faults, leases};

/// For each check a test without a plant, and one for each plant that it must catch.
macro_rules! checks {
    ($($module:ident :: $check:ident [$($plant:ident),*];)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                $module::$check(None).await.unwrap();
            }
        )*

        #[tokio::test]
        async fn every_plant_is_caught() {
            let mut tasks = Vec::new();
            $($(
                let plant = Plant::$plant;
                let name = stringify!($check);
                tasks.push((plant, name, tokio::spawn($module::$check(Some(plant)))));
            )*)*
            let mut planted = Vec::new();
            for (plant, name, task) in tasks {
                let verdict: Verdict = task.await.unwrap();
                assert!(verdict.is_err(), "`{name}` passed in spite of {plant:?}");
                planted.push(plant);
            }
            for plant in Plant::ALL {
                assert!(planted.contains(&plant), "no check is made for {plant:?}");
            }
        }
    };
}

checks! {
    faults::a_lost_reply_gives_the_same_grant [AcquireNotIdempotent];
    faults::a_lost_push_does_not_lose_the_waiter [NoSafetyNet];
    faults::a_late_push_gives_no_guard [OfferWithoutClaim, LapsedOfferGranted, OffersNeverLapse];
    faults::a_doubled_push_gives_one_guard [OfferByKey];
    faults::a_late_release_does_not_free_the_next_holder [ReleaseWithoutOwnerCheck];
    faults::fencing_survives_an_empty_restart [FenceResetsOnRestart];
    faults::fencing_survives_a_clock_turned_back [FenceFollowsClock];
    faults::an_empty_restart_is_noticed [HoldersNotRevalidated];
    faults::a_restart_with_data_changes_nothing [];
    faults::an_abandoned_attempt_is_not_asked_again [AbandonedAskedAgain];
    faults::an_old_connection_is_not_heard [OldConnectionHeard];
    faults::a_partitioned_holder_is_fenced_off [];
    faults::a_partitioned_waiter_gets_in_once_healed [OffersNeverLapse];
    leases::loss_comes_before_the_lease_ends [DeadlineFromReply];
    leases::no_false_alarm_over_ten_lives [];
    leases::a_late_renewal_does_not_resurrect [RenewalRecreates];
    leases::a_broken_holder_hears_of_it [];
    leases::a_release_is_no_loss [];
    cancel::a_drop_anywhere_leaves_nothing [CancelLostOnDrop, CancelSentOnce, OvertakenLeft];
    cancel::a_debt_is_seen_until_it_is_paid [CancelSentOnce];
    cancel::many_cancels_leave_nothing [CancelLostOnDrop];
}
