//! Crashes under load, in short: each trouble of the soak once. `script/soak` is the long form.

use ostiary_tests::World;
use ostiary_tests::soak::Plan;

#[tokio::test]
async fn nothing_is_lost_and_every_drift_is_told_when_programs_and_servers_die() {
    let plan = Plan {
        rounds: 6,
        nodes: 12,
        misbehave: false,
        kills_only: false,
    };
    let mut world = World::start(plan.world()).await;
    let outcome = plan.run(&mut world, &mut |line| println!("{line}")).await;
    assert!(outcome.faults.is_empty(), "{outcome}");
    assert_eq!(outcome.drifts, plan.rounds);
    assert!(outcome.verdict.stored_exactly_once > 100, "{outcome}");
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_between_match_and_mail_loses_and_doubles_no_finding() {
    let plan = Plan {
        rounds: 6,
        nodes: 8,
        misbehave: false,
        kills_only: true,
    };
    let mut world = World::start(plan.world()).await;
    let outcome = plan.run(&mut world, &mut |line| println!("{line}")).await;
    assert!(outcome.faults.is_empty(), "{outcome}");
    assert_eq!(outcome.drifts, plan.rounds);
    assert_eq!(outcome.half_done.kills, plan.rounds);
    world.end().await;
}
