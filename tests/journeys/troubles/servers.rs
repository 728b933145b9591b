//! Postgres or Redis down, or there and silent.

use std::time::{Duration, Instant};

use ostiary_tests::{Answer, PATIENCE, Program, StoredRow, Wire, World, WorldOptions, eventually};
use serde_json::{Value, json};

use super::{ALIASES, assert_accepted, assert_refused_softly, good_body, log_body, routes};

/// osqueryd hangs up after this long.
const CLIENT_WAITS: Duration = Duration::from_secs(16);

fn options() -> WorldOptions {
    WorldOptions::only(&[Program::Api, Program::Worker])
        .private_servers()
        .set(ALIASES.0, ALIASES.1)
        .set("CARVES__ENABLED", "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_nodes_keep_what_they_have() {
    let mut world = World::start(options()).await;
    let mut nodes = Nodes::enroll(&world).await;
    world.servers().stop_postgres().await;
    nodes.try_everything("down").await;
    world.servers().start_postgres().await;
    nodes.come_through("up again").await;
    nodes.ask_again(&world, "hanging").await;
    world.servers().pause_postgres();
    nodes.try_everything("hanging").await;
    world.servers().resume_postgres();
    nodes.come_through("awake again").await;
    nodes.compare(&world).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_nothing_changes_for_nodes() {
    let mut world = World::start(options()).await;
    let mut nodes = Nodes::enroll(&world).await;
    world.servers().stop_redis().await;
    nodes.everything_works(&world, "down").await;
    world.servers().start_redis().await;
    nodes.everything_works(&world, "up").await;
    world.servers().pause_redis();
    nodes.everything_works(&world, "hanging").await;
    world.servers().resume_redis();
    nodes.compare(&world).await;
    world.end().await;
}

/// Two nodes: to `busy` every live query was handed out already, to `idle` none.
struct Nodes {
    wire: Wire,
    secret: &'static str,
    busy: String,
    idle: String,
    config: Vec<u8>,
    /// Marks of posts that were answered with a success.
    accepted: Vec<String>,
}

impl Nodes {
    async fn enroll(world: &World) -> Self {
        let wire = world.wire();
        let secret = world.enroll_secret();
        let (busy, idle) = (
            wire.enroll(secret, "busy").await,
            wire.enroll(secret, "idle").await,
        );
        let config = wire.post("/config", &json!({"node_key": busy})).await.body;
        let mut nodes = Self {
            wire,
            secret,
            busy,
            idle,
            config,
            accepted: Vec::new(),
        };
        nodes.ask_again(world, "first").await;
        nodes.come_through("before").await;
        nodes
    }

    /// Both are asked something; only one gets to know of it.
    async fn ask_again(&mut self, world: &World, wire_id: &str) {
        let ids = [
            world.find_nodes("busy").await[0].id,
            world.find_nodes("idle").await[0].id,
        ];
        world.ask(&ids, wire_id, "SELECT 1").await;
        eventually("a live query is handed out", PATIENCE, async || {
            let answer = self
                .wire
                .post("/distributed/read", &json!({"node_key": self.busy}))
                .await;
            answer.json()["queries"].get(wire_id).map(|_| ())
        })
        .await;
    }

    /// Nothing may be taken for a success, but for what is answered from memory.
    async fn try_everything(&self, state: &str) {
        // Nothing is left to be handed out to this one, so memory is enough.
        let answer = self
            .wire
            .post("/distributed/read", &json!({"node_key": self.busy}))
            .await;
        assert_accepted(&format!("Postgres {state}: nothing to do"), Some(&answer));
        let machine = self.time_of_a_busy_machine().await;
        let begun = Instant::now();
        let mut asked = Vec::new();
        for (method, path, endpoint) in routes() {
            let enroll =
                json!({"enroll_secret": self.secret, "host_identifier": format!("late-{state}")})
                    .to_string();
            let bodies = match endpoint {
                "/enroll" => vec![("", enroll)],
                "/log" => vec![
                    ("known", log_body(&self.busy, &format!("refused {state}"))),
                    ("stranger", log_body("never given out", "stranger")),
                ],
                "/distributed/write" => {
                    let answer = json!({"node_key": self.busy, "queries": {"first": [{"a": "1"}]}, "statuses": {"first": 0}});
                    vec![
                        ("known", answer.to_string()),
                        ("stranger", good_body(endpoint, "never given out")),
                    ]
                }
                _ => vec![
                    ("known", good_body(endpoint, &self.idle)),
                    ("stranger", good_body(endpoint, "never given out")),
                ],
            };
            for (who, body) in bodies {
                let (wire, path) = (self.wire.clone(), path.clone());
                let what = format!("Postgres {state}: {method} {path} {who}");
                let sent =
                    tokio::spawn(
                        async move { wire.request(method, &path, &[], body.as_bytes()).await },
                    );
                asked.push((what, endpoint, who, sent));
            }
        }
        for (what, endpoint, who, sent) in asked {
            let answer = sent.await.unwrap();
            if (endpoint, who) == ("/config", "known") {
                let body = answer.expect("configs come from memory").body;
                assert_eq!(
                    body,
                    self.config,
                    "{what}: {}",
                    String::from_utf8_lossy(&body)
                );
            } else {
                assert_refused_softly(&what, endpoint, answer.as_ref());
            }
        }
        let took = begun.elapsed();
        assert!(
            took < CLIENT_WAITS + 10 * machine,
            "Postgres {state}: {took:?}, where the same without Postgres takes {machine:?}"
        );
    }

    /// What as many requests at once take that need no Postgres.
    async fn time_of_a_busy_machine(&self) -> Duration {
        let begun = Instant::now();
        let asked = routes()
            .into_iter()
            .flat_map(|route| [route.clone(), route]);
        let asked: Vec<_> = asked
            .map(|(method, _, _)| {
                let wire = self.wire.clone();
                tokio::spawn(async move { wire.request(method, "/nowhere", &[], b"{}").await })
            })
            .collect();
        for sent in asked {
            assert!(sent.await.unwrap().is_some());
        }
        begun.elapsed()
    }

    /// Soon everything works.
    async fn come_through(&mut self, state: &str) {
        let body = log_body(&self.busy, state);
        let wire = &self.wire;
        eventually(&format!("posts are taken: {state}"), PATIENCE, async || {
            let answer = wire.post_bytes("/log", body.as_bytes()).await;
            answer.is_success().then_some(())
        })
        .await;
        self.accepted.push(state.into());
        let body = json!({"node_key": self.busy, "queries": {"first": [{"a": "1"}]}, "statuses": {"first": 0}});
        if state != "before" {
            let answer = eventually("an answer is taken", PATIENCE, async || {
                let answer = wire.post("/distributed/write", &body).await;
                answer.is_success().then_some(answer)
            });
            assert_accepted(state, Some(&answer.await));
        }
        let newcomer =
            json!({"enroll_secret": self.secret, "host_identifier": format!("newcomer {state}")});
        let key = eventually("a newcomer enrolls", PATIENCE, async || {
            let answer = wire.post("/enroll", &newcomer).await;
            answer.json()["node_key"].as_str().map(str::to_owned)
        });
        let body = json!({"node_key": key.await});
        eventually("it has its config", PATIENCE, async || {
            let answer = wire.post("/config", &body).await;
            answer.is_success().then_some(())
        })
        .await;
    }

    /// Redis is missing, and no node notices.
    async fn everything_works(&mut self, world: &World, state: &str) {
        for (method, path, endpoint) in routes() {
            let mark = format!("{method} {path} {state}");
            let body = match endpoint {
                "/enroll" => {
                    json!({"enroll_secret": self.secret, "host_identifier": mark}).to_string()
                }
                "/log" => log_body(&self.busy, &mark),
                "/carve/continue" => {
                    let start = good_body("/carve/start", &self.busy);
                    let answer = self.wire.post_bytes("/carve/start", start.as_bytes()).await;
                    let session = answer.json()["session_id"].as_str().map(str::to_owned);
                    super::block_body(&session.expect("a carve begins")).to_string()
                }
                _ => good_body(endpoint, &self.busy),
            };
            let begun = Instant::now();
            let answer = self
                .wire
                .request(method, &path, &[], body.as_bytes())
                .await
                .expect("it is answered");
            assert!(
                begun.elapsed() < CLIENT_WAITS,
                "Redis {state}: {mark} took {:?}",
                begun.elapsed()
            );
            assert!(
                !answer.body.is_empty() && answer.is_success(),
                "Redis {state}: {mark}"
            );
            match endpoint {
                "/enroll" => assert!(has_key(&answer), "Redis {state}: {mark}"),
                "/log" => self.accepted.push(mark),
                _ => {}
            }
        }
        // The bell was not heard; the worker looks by itself.
        world.worked_off().await;
    }

    /// What was acknowledged is stored, once; what was refused may be, for it may have been committed when nobody waited any more.
    async fn compare(&self, world: &World) {
        world.worked_off().await;
        let node = world.find_nodes("busy").await[0].id;
        let stored = world.stored(node).await;
        let rows = stored
            .executions
            .iter()
            .flat_map(|execution| &execution.rows);
        let marks: Vec<&str> = rows
            .map(|row| match row {
                StoredRow::Added(columns) => columns["mark"].as_str(),
                other => panic!("nobody sent {other:?}"),
            })
            .collect();
        for accepted in &self.accepted {
            assert_eq!(
                marks.iter().filter(|mark| *mark == accepted).count(),
                1,
                "{accepted}: {marks:?}"
            );
        }
        let strangers = marks
            .iter()
            .filter(|mark| !self.accepted.iter().any(|known| known == *mark));
        assert!(
            strangers.clone().all(|mark| mark.starts_with("refused ")),
            "{marks:?}"
        );
    }
}

fn has_key(answer: &Answer) -> bool {
    answer.json()["node_key"]
        .as_str()
        .is_some_and(|key| !key.is_empty())
        && answer.json()["error"] == Value::Null
}
