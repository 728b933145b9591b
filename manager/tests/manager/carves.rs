//! Files collected from nodes: who may ask for them, who may take them, and what is told of them.

use axum::http::StatusCode;
use ostiary_blobs::Blobs;
use ostiary_manager::settings::Settings;
use serde_json::json;
use uuid::Uuid;

use super::sample::{self, CARVE, HOSTILE, NODE};
use super::world::World;

/// Its folder is deleted by the test.
fn with_carves(settings: &mut Settings) {
    settings.carves.enabled = true;
    settings.blobs.folder =
        std::env::temp_dir().join(format!("ostiary-manager-{}", ostiary_boot::clock::new_id()));
}

async fn world_with_archive() -> World {
    let world = World::with(with_carves).await;
    sample::one_of_everything(&world).await;
    let blobs = Blobs::open(&world.app.settings.blobs).unwrap();
    let id = CARVE.parse::<Uuid>().unwrap();
    let mut writer = blobs.write(id, id).await.unwrap();
    writer.write("the archive".into()).await.unwrap();
    writer.finish().await.unwrap();
    world
}

async fn end(world: World) {
    let folder = world.app.settings.blobs.folder.clone();
    world.end().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn an_archive_is_downloaded_as_it_is_and_that_is_audited() {
    let world = world_with_archive().await;
    let path = format!("/carves/{CARVE}/archive");
    let mut viewer = world.browser_as("viewer").await;
    assert_eq!(viewer.get(&path).await.status, StatusCode::FORBIDDEN);
    let mut editor = world.browser_as("editor").await;
    let answer = editor.get(&path).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "the archive")
    );
    let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
    assert_eq!(
        header("content-disposition"),
        format!("attachment; filename=\"carve-{CARVE}.tar.zst\"")
    );
    assert_eq!(header("content-type"), "application/octet-stream");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert_eq!(header("content-length"), "11");
    assert_eq!(header("cache-control"), "no-store");
    world.user("robot", "editor").await;
    let token = world.token("robot").await;
    let answer = world.get_json(&format!("/api/v1{path}"), &token).await;
    assert_eq!(answer.body, "the archive");
    let audited = world
        .test_db
        .texts("SELECT user_name || ' ' || action || ' ' || subject_id FROM audit_entries WHERE action LIKE 'carves.%' ORDER BY at")
        .await;
    assert_eq!(
        audited,
        [
            format!("editor carves.download {CARVE}"),
            format!("robot carves.download {CARVE}")
        ]
    );
    world
        .test_db
        .execute("UPDATE carves SET state = 'receiving'")
        .await;
    assert_eq!(editor.get(&path).await.status, StatusCode::NOT_FOUND);
    let missing = format!("/carves/{NODE}/archive");
    assert_eq!(editor.get(&missing).await.status, StatusCode::NOT_FOUND);
    end(world).await;
}

#[tokio::test]
async fn one_file_is_downloaded_out_of_an_archive_and_that_is_audited() {
    let world = world_with_archive().await;
    let content = vec![7; 200_000];
    // Where the listing of the worker found it.
    let archive = [vec![1; 1024], content.clone(), vec![2; 312]].concat();
    let blobs = Blobs::open(&world.app.settings.blobs).unwrap();
    let id: Uuid = CARVE.parse().unwrap();
    let file = format!("/carves/{CARVE}/files/1");
    let mut editor = world.browser_as("editor").await;
    assert_eq!(
        editor.get(&file).await.status,
        StatusCode::NOT_FOUND,
        "nobody noted where it lies"
    );
    for (format, bytes) in [
        ("tar", archive.clone()),
        ("tar.zst", zstd::encode_all(&archive[..], 1).unwrap()),
    ] {
        let mut writer = blobs
            .write(id, ostiary_boot::clock::new_id())
            .await
            .unwrap();
        writer.write(bytes.into()).await.unwrap();
        writer.finish().await.unwrap();
        world
            .test_db
            .execute(&format!(
                "UPDATE carves SET format = '{format}';
                 UPDATE carve_files SET data_at = 1024, size = 200000, path = E'/etc/\"x\\u202ey.conf' WHERE position = 1"
            ))
            .await;
        let answer = editor.get(&file).await;
        assert_eq!(answer.status, StatusCode::OK, "{format}");
        assert!(answer.body.as_bytes() == content, "{format}");
        assert_eq!(answer.headers["content-length"], "200000");
        assert_eq!(
            answer.headers["content-disposition"],
            format!("attachment; filename=\"carve-{CARVE}-1-_x_y.conf\"").as_str()
        );
    }
    let page = editor.get(&format!("/carves/{CARVE}")).await.body;
    assert!(page.contains(&file) && !page.contains("/files/2"), "{page}");
    let mut viewer = world.browser_as("viewer").await;
    assert_eq!(viewer.get(&file).await.status, StatusCode::FORBIDDEN);
    world.user("robot", "editor").await;
    let token = world.token("robot").await;
    let answer = world.get_json(&format!("/api/v1{file}"), &token).await;
    assert!(answer.body.as_bytes() == content);
    for none in ["2", "3", "-1", "x"] {
        let path = format!("/carves/{CARVE}/files/{none}");
        assert_ne!(editor.get(&path).await.status, StatusCode::OK, "{none}");
    }
    let audited = world
        .test_db
        .texts("SELECT user_name || ' ' || action FROM audit_entries WHERE action LIKE 'carves.%' ORDER BY at")
        .await;
    assert_eq!(
        audited,
        [
            "editor carves.download_file",
            "editor carves.download_file",
            "robot carves.download_file"
        ]
    );
    end(world).await;
}

#[tokio::test]
async fn a_carve_is_told_with_who_asked_and_hostile_names_are_only_text() {
    let world = world_with_archive().await;
    let mut viewer = world.browser_as("viewer").await;
    let page = viewer.get(&format!("/carves/{CARVE}")).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.body.contains(HOSTILE), "{}", page.body);
    assert!(
        page.body.contains("\\u{202e}"),
        "turned text is shown escaped"
    );
    assert!(page.body.contains("gives another SHA-256"));
    assert!(!page.body.contains("/archive"), "a viewer may not take it");
    for path in ["/carves".to_owned(), format!("/nodes/{NODE}/carves")] {
        let page = viewer.get(&path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(page.body.contains(CARVE), "{path}");
    }
    let told = viewer.get(&format!("/nodes/{NODE}/carves")).await.body;
    assert!(told.contains("files may be collected"), "{told}");
    let token = {
        world.user("robot", "viewer").await;
        world.token("robot").await
    };
    let list = world.get_json("/api/v1/carves", &token).await.json();
    assert_eq!(list["items"][0]["id"], CARVE);
    let one = world
        .get_json(&format!("/api/v1/carves/{CARVE}"), &token)
        .await
        .json();
    assert_eq!(one["files"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(one["sha256_differs"], true);
    end(world).await;
}

#[tokio::test]
async fn asking_for_files_is_a_live_query_to_that_node_and_no_other() {
    let world = world_with_archive().await;
    let path = format!("/nodes/{NODE}/carves");
    let mut viewer = world.browser_as("viewer").await;
    viewer.get("/account").await;
    let refused = viewer.post(&path, &[("path", "/etc/hosts")]).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let mut editor = world.browser_as("editor").await;
    editor.get(&path).await;
    let asked = editor.post(&path, &[("path", "/etc/it's")]).await;
    assert_eq!(asked.status, StatusCode::SEE_OTHER, "{}", asked.body);
    assert!(asked.location.starts_with("/live-queries/"));
    let stored = world
        .test_db
        .texts("SELECT sql || '|' || target || '|' || node_ids::text FROM live_queries WHERE sql LIKE '%carves%'")
        .await;
    assert_eq!(
        stored,
        [format!(
            "SELECT * FROM carves WHERE carve = 1 AND path = '/etc/it''s'||{{{NODE}}}"
        )]
    );
    for bad in ["", "  ", "/a\nb"] {
        let answer = editor.post(&path, &[("path", bad)]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad:?}");
        assert!(answer.body.contains("full path"), "{}", answer.body);
    }
    // Nodes that are denied the table are not asked, and their page says so.
    world
        .test_db
        .execute(
            "INSERT INTO table_denials (id, target, tables, reason, created_at, updated_at)
             VALUES ('00000000-0000-7000-8000-0000000000aa', 'prod', '{carves}', 'private.', now(), now())",
        )
        .await;
    let answer = editor.post(&path, &[("path", "/etc/hosts")]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let page = editor.get(&path).await.body;
    assert!(page.contains("denied the table carves: private."), "{page}");
    end(world).await;
}

#[tokio::test]
async fn where_carves_are_off_nobody_can_ask_and_everybody_sees_it() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut admin = world.browser_as("admin").await;
    let path = format!("/nodes/{NODE}/carves");
    let page = admin.get(&path).await.body;
    assert!(page.contains("Carves are switched off"), "{page}");
    assert!(!page.contains("name=\"path\""), "{page}");
    world.user("robot", "admin").await;
    let token = world.token("robot").await;
    let answer = world
        .post_json(&format!("/api/v1{path}"), &token, &json!({"path": "/x"}))
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    world.end().await;
}
