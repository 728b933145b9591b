//! The life of a finding: opened, counted, ended by its rule or by people, told to those who were told of it.

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use ostiary_domain::ids::{AlertId, DeliveryId, DestinationId, FindingId, NodeId, RuleId, UserId};
use ostiary_store::alerts::{self, NewAlert};
use ostiary_store::deliveries::{self, NewDelivery};
use ostiary_store::findings::{
    self, By, Decision, FollowUp, Match, Matched, Recovery, Stated, Upserted,
};
use ostiary_store::testing::TestDb;
use ostiary_store::{Conn, Db};
use serde_json::json;
use uuid::Uuid;

use crate::machine_time;

const RULE: &str = "01900000-0000-7000-8000-0000000000e1";
const NODE: &str = "01900000-0000-7000-8000-00000000000a";
const USER: &str = "01900000-0000-7000-8000-0000000000f1";
const PLACE: &str = "01900000-0000-7000-8000-0000000000d1";

fn id<T: From<Uuid>>(text: &str) -> T {
    T::from(text.parse::<Uuid>().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a test has to roll dice itself")]
fn new_id() -> Uuid {
    Uuid::now_v7()
}

struct Stage {
    test: TestDb,
    worker: Db,
    manager: Db,
    now: DateTime<Utc>,
}

impl Stage {
    async fn new() -> Self {
        let test = TestDb::new().await;
        test.execute(&format!(
            "INSERT INTO nodes (id, host_identifier, hostname, enrolled_at, first_enrolled_at)
                VALUES ('{NODE}', 'h', 'web-1', now(), now());
             INSERT INTO rules (id, name, conditions, severity, created_at, updated_at)
                VALUES ('{RULE}', 'odd port', '{{}}', 'high', now(), now());
             INSERT INTO users (id, name, password_hash, role, created_at)
                VALUES ('{USER}', 'ann', '', 'editor', now());
             INSERT INTO destinations (id, name, kind, settings_sealed, created_at, updated_at)
                VALUES ('{PLACE}', 'mail', 'email', '', now(), now());"
        ))
        .await;
        Self {
            worker: test.as_role("ostiary_worker"),
            manager: test.as_role("ostiary_manager"),
            test,
            now: machine_time().trunc_subsecs(6),
        }
    }

    fn later(&self, minutes: i64) -> DateTime<Utc> {
        self.now + TimeDelta::minutes(minutes)
    }

    async fn matched(&self, conn: &mut Conn, at: DateTime<Utc>, count: i64) -> Upserted {
        let matches = [Match {
            query_name: "pack/net/ports".into(),
            action: "added",
            columns: json!({"port": "4444"}),
            counterpart: Some(json!({"port": "443"})),
            occurred_at: at,
        }];
        let matched = Matched {
            id: FindingId(new_id()),
            rule_id: id::<RuleId>(RULE),
            rule_name: "odd port",
            severity: "high",
            node_id: id::<NodeId>(NODE),
            node_name: "web-1",
            entity: "port: 4444",
            entity_hash: b"port",
            matches: &matches,
            count,
            matched_at: at,
            batch_id: Some(1),
            silence_id: None,
        };
        findings::upsert(conn, &matched).await.unwrap()
    }

    async fn opened(&self, at: DateTime<Utc>) -> FindingId {
        let mut tx = self.worker.begin().await.unwrap();
        let Upserted::Opened(finding) = self.matched(&mut tx, at, 1).await else {
            panic!("one was open");
        };
        Db::commit(tx).await.unwrap();
        finding
    }

    async fn told(&self, finding_id: FindingId) {
        let mut tx = self.worker.begin().await.unwrap();
        let alert = NewAlert {
            id: AlertId(new_id()),
            finding_id,
            kind: "opened",
            body: &json!({"finding_id": finding_id}),
            created_at: self.now,
        };
        alerts::insert(&mut tx, &alert).await.unwrap();
        let delivery = NewDelivery {
            id: DeliveryId(new_id()),
            alert_id: alert.id,
            destination_id: id::<DestinationId>(PLACE),
        };
        deliveries::insert(&mut tx, &[delivery], self.now)
            .await
            .unwrap();
        Db::commit(tx).await.unwrap();
    }

    async fn recovered(&self, at: DateTime<Utc>) -> Option<(FindingId, Vec<DeliveryId>)> {
        let columns = json!({"port": "4444"});
        let recovery = Recovery {
            rule_id: id::<RuleId>(RULE),
            node_id: id::<NodeId>(NODE),
            node_name: "web-1",
            entity_hash: b"port",
            reason: "the row is gone",
            columns: Some(&columns),
            at,
        };
        let mut tx = self.worker.begin().await.unwrap();
        let recovered = findings::recover(&mut tx, &recovery, new_id).await.unwrap();
        Db::commit(tx).await.unwrap();
        recovered
    }

    async fn decided(
        &self,
        finding: FindingId,
        decision: Decision,
        at: DateTime<Utc>,
    ) -> Result<bool, ostiary_store::Error> {
        let stated = Stated {
            by: By {
                user_id: Some(id::<UserId>(USER)),
                name: "ann",
            },
            text: "why not",
            at,
        };
        let mut tx = self.manager.begin().await.unwrap();
        let changed = findings::decide(&mut tx, finding, decision, stated).await?;
        Db::commit(tx).await.unwrap();
        Ok(changed)
    }

    async fn timeline(&self) -> Vec<String> {
        self.test
            .texts(
                "SELECT concat_ws('|', kind, user_name, text, nullif(match_count, 0), columns) FROM finding_entries ORDER BY id",
            )
            .await
    }
}

#[tokio::test]
async fn a_rule_ends_what_it_opened_and_those_who_were_told_are_told() {
    let stage = Stage::new().await;
    let finding = stage.opened(stage.now).await;
    stage.told(finding).await;
    let (recovered, deliveries) = stage.recovered(stage.later(1)).await.unwrap();
    assert_eq!((recovered, deliveries.len()), (finding, 1));
    assert_eq!(
        stage
            .test
            .texts("SELECT concat_ws('|', kind, body -> 'change' ->> 'by', body -> 'change' ->> 'reason') FROM alerts ORDER BY id")
            .await,
        ["opened", "resolved|the rule|the row is gone"]
    );
    assert_eq!(
        stage.timeline().await,
        [
            "opened||",
            r#"resolved||the row is gone|{"port":"4444"}"#,
            "told||resolved"
        ]
    );
    assert_eq!(
        stage.recovered(stage.later(2)).await,
        None,
        "nothing is open"
    );

    // The next match is another finding, which knows the former one. Nobody was told of it, so nobody is told of its end.
    let next = stage.opened(stage.later(3)).await;
    assert_eq!(
        stage
            .test
            .texts("SELECT former_id::text FROM findings WHERE former_id IS NOT NULL")
            .await,
        [finding.to_string()]
    );
    assert_eq!(
        stage.recovered(stage.later(4)).await,
        Some((next, Vec::new()))
    );
    assert_eq!(
        stage.test.texts("SELECT id::text FROM alerts").await.len(),
        2
    );
}

#[tokio::test]
async fn runs_of_matches_are_one_line_of_the_timeline_each() {
    let stage = Stage::new().await;
    let finding = stage.opened(stage.now).await;
    for minute in 1..=3 {
        let mut tx = stage.worker.begin().await.unwrap();
        let counted = stage.matched(&mut tx, stage.later(minute), 2).await;
        Db::commit(tx).await.unwrap();
        assert_eq!(
            counted,
            Upserted::Counted {
                id: finding,
                silence_id: None
            }
        );
        if minute == 2 {
            let acknowledged = stage.decided(finding, Decision::Acknowledge, stage.later(2));
            assert!(acknowledged.await.unwrap());
        }
    }
    assert_eq!(
        stage.timeline().await,
        [
            "opened||",
            "matched|||4",
            "acknowledged|ann|why not",
            "matched|||2"
        ]
    );
    assert_eq!(
        stage
            .test
            .texts("SELECT concat_ws('|', state, match_count) FROM findings")
            .await,
        ["acknowledged|7"]
    );
    assert_eq!(
        stage
            .test
            .texts("SELECT DISTINCT counterpart::text FROM finding_matches")
            .await,
        [r#"{"port":"443"}"#]
    );
}

#[tokio::test]
async fn a_decision_counts_once_and_none_stands_beside_a_newer_finding() {
    let stage = Stage::new().await;
    let finding = stage.opened(stage.now).await;
    let resolve = |minute| stage.decided(finding, Decision::Resolve, stage.later(minute));
    assert!(resolve(1).await.unwrap());
    assert!(!resolve(2).await.unwrap(), "it was resolved before");
    assert!(
        !stage
            .decided(finding, Decision::Acknowledge, stage.later(3))
            .await
            .unwrap(),
        "what is over is taken over by nobody"
    );
    assert!(
        stage
            .decided(finding, Decision::Reopen, stage.later(4))
            .await
            .unwrap()
    );
    assert_eq!(
        stage
            .test
            .texts("SELECT concat_ws('|', state, resolved_at, resolved_by) FROM findings")
            .await,
        ["open"]
    );
    assert!(resolve(5).await.unwrap());
    stage.opened(stage.later(6)).await;
    let refused = stage
        .decided(finding, Decision::Reopen, stage.later(7))
        .await;
    assert!(refused.unwrap_err().is_constraint("findings_open_key"));
}

#[tokio::test]
async fn comments_and_follow_ups_stand_in_the_timeline() {
    let stage = Stage::new().await;
    let finding = stage.opened(stage.now).await;
    let stated = Stated {
        by: By {
            user_id: Some(id::<UserId>(USER)),
            name: "ann",
        },
        text: "it is the new proxy",
        at: stage.later(1),
    };
    let mut tx = stage.manager.begin().await.unwrap();
    assert!(findings::comment(&mut tx, finding, stated).await.unwrap());
    let unknown = FindingId(Uuid::nil());
    assert!(!findings::comment(&mut tx, unknown, stated).await.unwrap());
    Db::commit(tx).await.unwrap();
    stage.told(finding).await;
    let mut tx = stage.manager.begin().await.unwrap();
    let change = FollowUp {
        finding_id: finding,
        kind: "acknowledged",
        by: stated.by,
        reason: "",
        at: stage.later(2),
    };
    let made = findings::follow_up(&mut tx, &change, new_id).await.unwrap();
    Db::commit(tx).await.unwrap();
    assert_eq!(made.len(), 1);
    assert_eq!(
        stage.timeline().await,
        [
            "opened||",
            "commented|ann|it is the new proxy",
            "told||acknowledged"
        ]
    );
}

#[tokio::test]
async fn what_is_long_over_or_was_long_not_seen_is_forgotten_but_not_what_holds() {
    let stage = Stage::new().await;
    let (long_ago, lately) = (stage.later(-1000), stage.later(-1));
    let (long_ago, lately) = (long_ago.to_rfc3339(), lately.to_rfc3339());
    let holding = "01900000-0000-7000-8000-0000000000e2";
    let finding = |name: &str, rule: &str, state: &str, matched: &str, resolved: &str| {
        let resolved = match resolved {
            "" => "NULL".to_owned(),
            at => format!("'{at}'"),
        };
        format!(
            "INSERT INTO findings (id, rule_id, rule_name, node_id, node_name, entity_hash, entity, severity, state, opened_at,
                last_matched_at, resolved_at)
             VALUES (gen_random_uuid(), '{rule}', 'r', '{NODE}', 'web-1', '{name}', '{name}', 'high', '{state}', '{long_ago}', '{matched}',
                {resolved});"
        )
    };
    let silence = |reason: &str, ends: &str, ended: &str| {
        format!(
            "INSERT INTO silences (id, rule_id, reason, ends_at, created_at, created_by_name, ended_at)
             VALUES (gen_random_uuid(), '{RULE}', '{reason}', '{ends}', '{long_ago}', 'ann', {ended});"
        )
    };
    let far = stage.later(1000).to_rfc3339();
    stage
        .test
        .execute(
            &[
                format!(
                    "INSERT INTO rules (id, name, conditions, severity, created_at, updated_at, watch)
                        VALUES ('{holding}', 'holds', '{{}}', 'high', now(), now(), 'present');"
                ),
                finding("over", RULE, "resolved", &long_ago, &long_ago),
                finding("over lately", RULE, "resolved", &long_ago, &lately),
                finding("never resolved", RULE, "acknowledged", &long_ago, ""),
                finding("goes on", RULE, "open", &lately, ""),
                finding("holds", holding, "open", &long_ago, ""),
                silence("ended long ago", &far, &format!("'{long_ago}'")),
                silence("ran out long ago", &long_ago, "NULL"),
                silence("goes on", &far, "NULL"),
            ]
            .concat(),
        )
        .await;
    let mut conn = stage.worker.acquire().await.unwrap();
    let before = stage.later(-500);
    let deleted = findings::delete_old(&mut conn, before, 10).await.unwrap();
    assert_eq!(deleted, 2);
    findings::delete_old_silences(&mut conn, before)
        .await
        .unwrap();
    drop(conn);
    assert_eq!(
        stage
            .test
            .texts("SELECT entity FROM findings ORDER BY 1")
            .await,
        ["goes on", "holds", "over lately"]
    );
    assert_eq!(
        stage.test.texts("SELECT reason FROM silences").await,
        ["goes on"]
    );
}
