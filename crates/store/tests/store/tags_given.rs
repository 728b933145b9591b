//! Tags that secrets gave to nodes, each once.

use ostiary_store::testing::TestDb;
use ostiary_store::{enroll_secrets, enrollment};

const NODE: &str = "01900000-0000-7000-8000-00000000000a";
const MENDED: &str = include_str!("../../../../migrations/20261121002200_mend_tags_given.sql");

async fn with_node() -> TestDb {
    let test = TestDb::new().await;
    test.execute(&format!(
        "INSERT INTO nodes (id, host_identifier, enrolled_at, first_enrolled_at) VALUES ('{NODE}', 'a', now(), now())"
    ))
    .await;
    test
}

async fn given(test: &TestDb) -> Vec<String> {
    test.texts("SELECT name FROM tags_given ORDER BY name")
        .await
}

#[tokio::test]
async fn a_tag_that_is_renamed_is_not_given_again_under_its_new_name() {
    let test = with_node().await;
    test.execute(
        "INSERT INTO enroll_secrets (id, name, secret_hmac, secret_sealed, tags, created_at)
         VALUES (gen_random_uuid(), 's', '\\x01', '\\x02', '{Prod,lab}', now())",
    )
    .await;
    let api = test.as_role("ostiary_api");
    let note = async |names: &[&str]| {
        let mut conn = api.acquire().await.unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let new = enrollment::note_given(&mut conn, NODE.parse().unwrap(), &names).await;
        new.unwrap()
    };
    assert_eq!(note(&["Prod", "lab"]).await.len(), 2);
    let manager = test.as_role("ostiary_manager");
    let rename = async |from: &str, to: &str| {
        let mut conn = manager.acquire().await.unwrap();
        let renamed = enroll_secrets::rename_tag(&mut conn, from, to).await;
        renamed.unwrap()
    };
    assert_eq!(rename("prod", "Live").await, 1);
    assert_eq!(given(&test).await, ["lab", "live"]);
    assert!(note(&["Live", "lab"]).await.is_empty());
    // Capitals make no other tag of it, and what was given under both names stays given.
    assert_eq!(rename("Live", "LIVE").await, 1);
    assert_eq!(rename("lab", "live").await, 1);
    assert_eq!(given(&test).await, ["live"]);
    drop((api, manager));
    test.drop().await;
}

#[tokio::test]
async fn what_was_noted_as_given_and_never_was_can_be_given() {
    let test = with_node().await;
    let names = ["carried", "taken", "gone", "asked-for-by-others"];
    for name in names {
        test.execute(&format!(
            "INSERT INTO tags (id, name, created_at) VALUES (gen_random_uuid(), '{name}', now());
             INSERT INTO tags_given (node_id, name) VALUES ('{NODE}', '{name}')"
        ))
        .await;
    }
    test.execute(&format!(
        "INSERT INTO node_tags SELECT '{NODE}', id FROM tags WHERE name = 'carried';
         INSERT INTO audit_entries (at, user_name, action, subject_id, subject_name, after) VALUES
            (now(), 'u', 'nodes.remove_tag', '{NODE}', 'a', '{{\"tag\": \"Taken\"}}'),
            (now(), 'u', 'tags.delete', gen_random_uuid()::text, 'gone', NULL)"
    ))
    .await;
    test.execute(MENDED).await;
    assert_eq!(given(&test).await, ["carried", "gone", "taken"]);
    test.drop().await;
}
