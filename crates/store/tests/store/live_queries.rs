//! Live queries: what is offered how often, and which answers count.

use chrono::{DateTime, TimeDelta, Utc};
use ostiary_domain::ids::{LiveQueryId, NodeId};
use ostiary_domain::live_query::{MAX_OFFERS, OFFER_AGAIN_AFTER};
use ostiary_store::live_query_tasks::{self, Answer};
use ostiary_store::testing::TestDb;
use ostiary_store::{Db, table_denials};
use uuid::Uuid;

const NODE: &str = "00000000-0000-0000-0000-0000000000a1";
const PLAIN: &str = "00000000-0000-0000-0000-0000000000b1";
const CONDITIONAL: &str = "00000000-0000-0000-0000-0000000000b2";

fn at(minutes: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::minutes(minutes)
}

async fn prepared() -> (TestDb, Db, NodeId, Vec<LiveQueryId>) {
    let test = TestDb::new().await;
    test.execute(&format!(
        "INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{NODE}', 'a', now(), now());
         INSERT INTO live_queries (id, wire_id, sql, target_all, discovery, discovery_platforms, created_at, expires_at) VALUES
            ('{PLAIN}', 'lq-1', 'SELECT 1', true, '', '{{}}', now(), '2100-01-01'),
            ('{CONDITIONAL}', 'lq-2', 'SELECT 2', true, 'SELECT 1 FROM alf', '{{darwin}}', now(), '2100-01-01')"
    ))
    .await;
    let ids = [PLAIN, CONDITIONAL].map(|id| LiveQueryId(id.parse().unwrap()));
    let api = test.as_role("ostiary_api");
    (
        test,
        api,
        NodeId(NODE.parse::<Uuid>().unwrap()),
        ids.to_vec(),
    )
}

fn answer(wire_id: &str, rows: &str) -> Answer {
    Answer {
        wire_id: wire_id.to_owned(),
        succeeded: true,
        status: Some(0),
        message: String::new(),
        stats: None,
        row_count: 1,
        rows: rows.to_owned(),
    }
}

async fn states(test: &TestDb) -> Vec<String> {
    test.texts("SELECT state || ' ' || offers FROM live_query_tasks ORDER BY live_query_id")
        .await
}

#[tokio::test]
async fn what_is_offered_in_vain_is_offered_again_and_then_given_up() {
    let (test, api, node, ids) = prepared().await;
    let mut conn = api.acquire().await.unwrap();
    let again = OFFER_AGAIN_AFTER.num_minutes();
    let mut offered = Vec::new();
    for round in 0..i64::from(MAX_OFFERS) + 2 {
        let now = at(round * again);
        live_query_tasks::settle_unanswered(&mut conn, node, &ids, now)
            .await
            .unwrap();
        offered.push(
            live_query_tasks::take(&mut conn, node, &ids, now)
                .await
                .unwrap()
                .len(),
        );
        let too_soon =
            live_query_tasks::take(&mut conn, node, &ids, now + TimeDelta::minutes(1)).await;
        assert_eq!(too_soon.unwrap().len(), 0, "it was handed out just now");
    }
    assert_eq!(offered, [2, 2, 1, 1, 1, 0, 0]);
    assert_eq!(states(&test).await, ["stuck 5", "skipped 2"]);
    // Late is better than never, and the first answer stays.
    let put = |text: &'static str| (text, answer("lq-1", text));
    for (text, late) in [put(r#"[{"z":"1","a":"2"}]"#), put("[]")] {
        let first = live_query_tasks::put_answer(&mut conn, node, &late, at(900))
            .await
            .unwrap();
        assert_eq!(first, text != "[]");
    }
    let rows = test
        .texts("SELECT rows FROM live_query_tasks WHERE state = 'done'")
        .await;
    assert_eq!(
        rows,
        [r#"[{"z":"1","a":"2"}]"#],
        "in the order of the SELECT"
    );
    drop(conn);
    test.drop().await;
}

#[tokio::test]
async fn what_has_begun_to_carve_is_not_offered_again() {
    let (test, api, node, ids) = prepared().await;
    test.execute("UPDATE live_queries SET tables = '{carves,file}' WHERE wire_id = 'lq-1'")
        .await;
    let mut conn = api.acquire().await.unwrap();
    let again = OFFER_AGAIN_AFTER.num_minutes();
    let mut offered = Vec::new();
    for round in 0..3 {
        let now = at(round * again);
        let taken = live_query_tasks::take(&mut conn, node, &ids[..1], now).await;
        offered.push(taken.unwrap().len());
        if round == 1 {
            test.execute(&format!(
                "INSERT INTO carves (id, node_id, carve_id, block_count, block_size, carve_size, started_at)
                 VALUES ('{PLAIN}', '{NODE}', 'c', 1, 1, 1, '{}')",
                now + TimeDelta::seconds(1)
            ))
            .await;
        }
    }
    assert_eq!(
        offered,
        [1, 1, 0],
        "the first answer was lost, the second ran"
    );
    let carved = "UPDATE carves SET live_query_id =";
    for (query, offers) in [(PLAIN, 0), (CONDITIONAL, 1)] {
        test.execute(&format!("{carved} '{query}'")).await;
        let taken = live_query_tasks::take(&mut conn, node, &ids[..1], at(3 * again)).await;
        assert_eq!(taken.unwrap().len(), offers, "a carve of {query}");
    }
    drop(conn);
    test.drop().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_taken_ends_the_task_it_names_or_all() {
    let (test, api, node, ids) = prepared().await;
    let mut conn = api.acquire().await.unwrap();
    live_query_tasks::take(&mut conn, node, &ids, at(0))
        .await
        .unwrap();
    let named = ["lq-2".to_owned()];
    let failed = live_query_tasks::give_up(&mut conn, node, &named, "too large", at(1))
        .await
        .unwrap();
    assert_eq!(failed, 1);
    assert_eq!(states(&test).await, ["offered 1", "failed 1"]);
    live_query_tasks::give_up(&mut conn, node, &[], "too large", at(1))
        .await
        .unwrap();
    assert_eq!(states(&test).await, ["failed 1", "failed 1"]);
    let unknown = answer("lq-unknown", "[]");
    assert!(
        !live_query_tasks::put_answer(&mut conn, node, &unknown, at(2))
            .await
            .unwrap()
    );
    drop(conn);
    test.drop().await;
}

#[tokio::test]
async fn the_tables_of_sql_are_found_again_by_its_text_and_a_node_cannot_fill_the_memory() {
    let test = TestDb::new().await;
    let manager = test.as_role("ostiary_manager");
    let mut tx = manager.begin().await.unwrap();
    let sql = "SELECT 'é' FROM file".to_owned();
    for tables in [
        vec!["file".to_owned()],
        vec!["file".to_owned(), "hash".to_owned()],
    ] {
        table_denials::note_sql(&mut tx, &sql, &Ok(tables.clone()), at(0))
            .await
            .unwrap();
        let found = table_denials::tables_of(&mut tx, &[sql.clone(), "SELECT 1".to_owned()])
            .await
            .unwrap();
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(sql.clone(), tables)]
        );
    }
    let odd = "SELECT nothing".to_owned();
    let problem = Err("There is no column nothing.".to_owned());
    table_denials::note_sql(&mut tx, &odd, &problem, at(0))
        .await
        .unwrap();
    let both = [odd.clone(), sql.clone()];
    let reads = table_denials::reads_of(&mut tx, &both).await.unwrap();
    assert_eq!((reads.len(), &reads[&odd]), (2, &problem));
    let known = table_denials::tables_of(&mut tx, &both).await.unwrap();
    assert!(!known.contains_key(&odd), "what is not known is not there");
    table_denials::announce(&mut tx).await.unwrap();
    let gone = table_denials::forget_sql(&mut tx, &[odd], at(1)).await;
    assert_eq!(gone.unwrap(), 1);
    let laptops = table_denials::list(&mut tx).await.unwrap();
    assert_eq!(laptops[0].values.target, "laptop");
    assert!(
        laptops[0]
            .values
            .tables
            .iter()
            .any(|table| table == "shell_history")
    );
    let table = |name: String| table_denials::KnownTable {
        platform: "linux".to_owned(),
        name,
        columns: Vec::new(),
        last_reported_at: at(0),
    };
    Db::commit(tx).await.unwrap();
    test.execute(&format!("INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{NODE}', 'a', now(), now())")).await;
    let mut conn = manager.acquire().await.unwrap();
    let node = NODE.parse().unwrap();
    for number in 0..table_denials::MAX_KNOWN {
        assert!(
            table_denials::put_known(&mut conn, &table(format!("t{number}")), node)
                .await
                .unwrap()
        );
    }
    assert!(
        !table_denials::put_known(&mut conn, &table("one_more".to_owned()), node)
            .await
            .unwrap()
    );
    assert!(
        table_denials::put_known(&mut conn, &table("t0".to_owned()), node)
            .await
            .unwrap()
    );
    drop(conn);
    test.drop().await;
}
