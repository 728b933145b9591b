//! What each role may not do: the Internet-facing api reads neither people nor where alerts go, and nobody rewrites history.

use ostiary_store::testing::TestDb;

/// May this role do that? Columns count: a grant on one column is one.
async fn may(test: &TestDb, role: &str, privilege: &str, table: &str) -> bool {
    let sql = format!(
        "SELECT (has_table_privilege('{role}', '{table}', '{privilege}')
            OR CASE WHEN '{privilege}' = 'DELETE' THEN false ELSE has_any_column_privilege('{role}', '{table}', '{privilege}') END)::text"
    );
    test.texts(&sql).await[0] == "true"
}

#[tokio::test]
async fn the_roles_lack_what_they_do_not_need() {
    let test = TestDb::new().await;
    for (role, privileges, tables) in [
        (
            "ostiary_api",
            &["SELECT"][..],
            &[
                "users",
                "sessions",
                "api_tokens",
                "destinations",
                "sinks",
                "rules",
                "findings",
                "alerts",
            ][..],
        ),
        (
            "ostiary_api",
            &["UPDATE", "DELETE"],
            &["log_batches", "pending", "events"],
        ),
        (
            "ostiary_worker",
            &["SELECT"],
            &[
                "users",
                "sessions",
                "api_tokens",
                "enroll_secrets",
                "node_keys",
            ],
        ),
        (
            "ostiary_worker",
            &["UPDATE", "DELETE"],
            &["events", "status_logs", "log_batches", "destinations"],
        ),
        (
            "ostiary_worker",
            &["INSERT", "DELETE"],
            &["rules", "nodes", "packs", "queries"],
        ),
        (
            "ostiary_manager",
            &["UPDATE", "DELETE"],
            &[
                "audit_entries",
                "events",
                "status_logs",
                "log_batches",
                "finding_matches",
            ],
        ),
    ] {
        for table in tables {
            for privilege in privileges {
                assert!(
                    !may(&test, role, privilege, table).await,
                    "{role} may {privilege} {table}"
                );
            }
        }
    }
    let sealed = test
        .texts(
            "SELECT has_column_privilege('ostiary_api', 'enroll_secrets', 'secret_sealed', 'SELECT')::text",
        )
        .await;
    assert_eq!(sealed, ["false"], "the api holds the key that opens them");
    assert!(
        may(&test, "ostiary_api", "UPDATE", "enroll_secrets").await,
        "it counts their uses"
    );
    test.drop().await;
}
