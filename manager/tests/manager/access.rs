//! Who gets in, and what they may do.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use chrono::TimeDelta;

use super::sample::{self, FINDING, NODE};
use super::world::{Browser, PASSWORD, World};

#[tokio::test]
async fn nobody_sees_a_page_without_signing_in() {
    let world = World::new().await;
    let mut browser = Browser::new(&world);
    let answer = browser.get("/nodes?q=a&state=online").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(
        answer.location,
        "/sign-in?next=%2Fnodes%3Fq%3Da%26state%3Donline"
    );
    world.user("ann", "viewer").await;
    let answer = browser.sign_in("ANN", PASSWORD).await;
    assert_eq!(
        (answer.status, answer.location.as_str()),
        (StatusCode::SEE_OTHER, "/")
    );
    assert_eq!(browser.get("/nodes").await.status, StatusCode::OK);
    world.end().await;
}

#[tokio::test]
async fn a_session_gets_a_new_id_at_sign_in_and_ends_at_sign_out() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    let mut browser = Browser::new(&world);
    browser.get("/sign-in").await;
    let before = browser.cookie.clone();
    let answer = browser.sign_in("ann", PASSWORD).await;
    let cookie = answer.cookie.unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && cookie.contains("Path=/"),
        "{cookie}"
    );
    assert_ne!(browser.cookie, before);
    let mut thief = Browser::new(&world);
    thief.cookie = before;
    assert_eq!(
        thief.get("/nodes").await.status,
        StatusCode::SEE_OTHER,
        "the id from before is worth nothing"
    );
    let kept = world
        .test_db
        .texts("SELECT encode(id_sha256, 'hex') FROM sessions")
        .await
        .join(" ");
    let value = browser.cookie.split('=').nth(1).unwrap().to_owned();
    assert!(
        !kept.contains(&value),
        "the cookie itself is not in the table"
    );
    let signed_in = browser.cookie.clone();
    assert_eq!(
        browser.post("/sign-out", &[]).await.status,
        StatusCode::SEE_OTHER
    );
    thief.cookie = signed_in;
    assert_eq!(
        thief.get("/nodes").await.status,
        StatusCode::SEE_OTHER,
        "signed out is signed out"
    );
    world.end().await;
}

#[tokio::test]
async fn over_https_the_cookie_belongs_to_this_host_alone() {
    let world =
        World::with(|settings| settings.public.manager_url = "https://ostiary.example.com".into())
            .await;
    let mut browser = Browser::new(&world);
    let cookie = browser.get("/sign-in").await.cookie.unwrap();
    assert!(
        cookie.starts_with("__Host-ostiary=") && cookie.contains("Secure"),
        "{cookie}"
    );
    world.end().await;
}

#[tokio::test]
async fn guessing_passwords_is_stopped_for_a_name_whether_it_exists_or_not() {
    let world = World::new().await;
    world.user("ann", "viewer").await;
    for name in ["ann", "nobody"] {
        let mut browser = Browser::new(&world);
        for _ in 0..3 {
            let answer = browser.sign_in(name, "wrong").await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert!(
                answer.body.contains("Name or password is wrong.") && answer.body.contains(name),
                "it keeps what was typed"
            );
            assert!(!answer.body.contains("value=\"wrong\""));
        }
        let answer = browser.sign_in(name, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.headers.contains_key("retry-after"));
    }
    world.clock.advance(TimeDelta::minutes(16));
    assert_eq!(
        Browser::new(&world).sign_in("ann", PASSWORD).await.status,
        StatusCode::SEE_OTHER
    );
    let refused = world
        .test_db
        .texts("SELECT user_name FROM audit_entries WHERE action = 'session.sign_in_refused'")
        .await;
    assert_eq!(refused.len(), 6);
    world.end().await;
}

#[tokio::test]
async fn a_change_needs_the_token_of_the_session_and_must_come_from_our_own_pages() {
    let world = World::new().await;
    let mut browser = world.browser_as("editor").await;
    let good = browser.csrf.clone();
    let tag = [("name", "prod"), ("description", "")];
    for (csrf, headers) in [
        ("", &[][..]),
        ("wrong", &[]),
        (good.as_str(), &[("sec-fetch-site", "cross-site")]),
        (
            good.as_str(),
            &[
                ("origin", "https://evil.example"),
                ("host", "localhost:8080"),
            ],
        ),
    ] {
        let answer = browser.post_with("/tags", &tag, headers, csrf).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{csrf} {headers:?}");
    }
    assert!(
        world
            .test_db
            .texts("SELECT name FROM tags")
            .await
            .is_empty()
    );
    let answer = browser
        .post_with("/tags", &tag, &[("sec-fetch-site", "same-origin")], &good)
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let mut other = world.browser_as("viewer").await;
    let answer = other.post_with("/sign-out", &[], &[], &good).await;
    assert_eq!(
        answer.status,
        StatusCode::FORBIDDEN,
        "another session's token is no token"
    );
    world.end().await;
}

#[tokio::test]
async fn a_role_may_do_what_it_says_and_no_more() {
    let world = World::new().await;
    sample::one_of_everything(&world).await;
    let mut viewer = world.browser_as("viewer").await;
    let mut editor = world.browser_as("editor").await;
    let edits = [
        "/packs".to_owned(),
        "/queries".into(),
        "/file-paths".into(),
        "/options".into(),
        "/decorators".into(),
        "/tags".into(),
        "/rules".into(),
        "/live-queries".into(),
        format!("/findings/{FINDING}/acknowledge"),
        format!("/nodes/{NODE}/name"),
        format!("/nodes/{NODE}/disable"),
        "/nodes/tags".into(),
    ];
    for path in &edits {
        assert_eq!(
            viewer.post(path, &[]).await.status,
            StatusCode::FORBIDDEN,
            "viewer {path}"
        );
        assert_ne!(
            editor.post(path, &[]).await.status,
            StatusCode::FORBIDDEN,
            "editor {path}"
        );
    }
    let admin_only = [
        "/users".to_owned(),
        "/enroll/secrets".into(),
        "/destinations".into(),
        format!("/nodes/{NODE}/delete"),
    ];
    for path in &admin_only {
        assert_eq!(
            editor.post(path, &[]).await.status,
            StatusCode::FORBIDDEN,
            "editor {path}"
        );
    }
    for path in ["/users", "/audit", "/destinations/new"] {
        assert_eq!(
            editor.get(path).await.status,
            StatusCode::FORBIDDEN,
            "editor {path}"
        );
    }
    world.end().await;
}

#[tokio::test]
async fn whoever_is_barred_is_out_at_once() {
    let world = World::new().await;
    world.user("root", "admin").await;
    let mut admin = world.browser("root").await;
    let mut viewer = world.browser_as("viewer").await;
    let token = world.token("viewer").await;
    assert_eq!(
        world.get_json("/api/v1/nodes", &token).await.status,
        StatusCode::OK
    );
    let id = world
        .test_db
        .texts("SELECT id::text FROM users WHERE name = 'viewer'")
        .await
        .pop()
        .unwrap();
    assert_eq!(
        admin
            .post(&format!("/users/{id}/disable"), &[])
            .await
            .status,
        StatusCode::SEE_OTHER
    );
    assert_eq!(viewer.get("/nodes").await.status, StatusCode::SEE_OTHER);
    assert_eq!(
        world.get_json("/api/v1/nodes", &token).await.status,
        StatusCode::UNAUTHORIZED
    );
    let own = world
        .test_db
        .texts("SELECT id::text FROM users WHERE name = 'root'")
        .await
        .pop()
        .unwrap();
    admin.post(&format!("/users/{own}/disable"), &[]).await;
    assert!(
        admin
            .get(&format!("/users/{own}/edit"))
            .await
            .body
            .contains("last admin"),
        "the last admin stays"
    );
    world.end().await;
}

#[tokio::test]
async fn a_session_ends_when_it_is_old() {
    let world = World::with(|settings| settings.manager.session_hours = 2).await;
    let mut browser = world.browser_as("viewer").await;
    world.clock.advance(TimeDelta::minutes(119));
    assert_eq!(browser.get("/nodes").await.status, StatusCode::OK);
    world.clock.advance(TimeDelta::minutes(2));
    assert_eq!(browser.get("/nodes").await.status, StatusCode::SEE_OTHER);
    world.end().await;
}

#[tokio::test]
async fn another_password_ends_the_other_sessions() {
    let world = World::new().await;
    let mut here = world.browser_as("viewer").await;
    let mut there = world.browser("viewer").await;
    let wrong = here
        .post(
            "/account/password",
            &[
                ("current_password", "wrong"),
                ("new_password", "another long password"),
            ],
        )
        .await;
    assert!(wrong.body.contains("This is not your password."));
    let short = here
        .post(
            "/account/password",
            &[("current_password", PASSWORD), ("new_password", "short")],
        )
        .await;
    assert!(short.body.contains("12 characters"));
    let done = here
        .post(
            "/account/password",
            &[
                ("current_password", PASSWORD),
                ("new_password", "another long password"),
            ],
        )
        .await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    assert_eq!(here.get("/account").await.status, StatusCode::OK);
    assert_eq!(there.get("/account").await.status, StatusCode::SEE_OTHER);
    world.end().await;
}

#[tokio::test]
async fn rest_takes_a_token_and_nothing_else() {
    let world = World::new().await;
    let browser = world.browser_as("viewer").await;
    let token = world.token("viewer").await;
    for header in [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer nonsense".into()),
        Some(format!("Basic {token}")),
    ] {
        let mut request = Request::get("/api/v1/nodes").header("cookie", &browser.cookie);
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert_eq!(answer.json()["status"], 401);
    }
    assert_eq!(
        world.get_json("/api/v1/nodes", &token).await.status,
        StatusCode::OK
    );
    assert_eq!(
        world.get_json("/api/v1/nothing", &token).await.json()["status"],
        404
    );
    let stored = world
        .test_db
        .texts("SELECT encode(token_sha256, 'hex') FROM api_tokens")
        .await;
    assert!(!stored[0].contains(&token));
    world.end().await;
}
