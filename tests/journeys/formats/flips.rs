//! Answers as a careless change would make them. The checker must find every one of them: else the corpus protects nothing.

use ostiary_tests::Answer;
use serde_json::{Map, Value};

/// The ways in which an answer of an endpoint can be spoiled, each with the spoilt answer; `None` where it cannot.
pub(crate) fn of(endpoint: &str, answer: &Answer) -> Vec<(&'static str, Option<Answer>)> {
    let with = |body: &[u8]| {
        Some(Answer {
            status: answer.status,
            body: body.to_vec(),
        })
    };
    let mut flips = vec![("no answer", None)];
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(&answer.body) else {
        // Said in words because the client takes any JSON, and an empty body, for a success.
        flips.push(("empty body", with(b"")));
        flips.push(("empty object", with(b"{}")));
        flips.push(("error as JSON", with(br#"{"error":"words"}"#)));
        return flips;
    };
    flips.push(("empty body", with(b"")));
    flips.push(("cut off", with(&answer.body[..answer.body.len() - 1])));
    flips.push(("text", with(b"OK")));
    let changed = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut object = object.clone();
        change(&mut object);
        with(Value::Object(object).to_string().as_bytes())
    };
    if object.contains_key("error") {
        let drop = |object: &mut Map<String, Value>| drop(object.remove("error"));
        flips.push(("error dropped", changed(&drop)));
    } else {
        let add =
            |object: &mut Map<String, Value>| drop(object.insert("error".into(), Value::Null));
        flips.push(("error added", changed(&add)));
    }
    if object.get("node_invalid") == Some(&Value::Bool(true)) {
        let drop = |object: &mut Map<String, Value>| drop(object.remove("node_invalid"));
        flips.push(("node_invalid dropped", changed(&drop)));
        let text = |object: &mut Map<String, Value>| {
            object.insert("node_invalid".into(), "true".into());
        };
        flips.push(("node_invalid as text", changed(&text)));
    } else {
        let set = |object: &mut Map<String, Value>| {
            object.insert("node_invalid".into(), true.into());
        };
        flips.push(("node_invalid set", changed(&set)));
    }
    for key in ["node_key", "session_id"] {
        if object.contains_key(key) {
            let drop = |object: &mut Map<String, Value>| drop(object.remove(key));
            flips.push(("key dropped", changed(&drop)));
        } else if key == "node_key" && endpoint.ends_with("/enroll") {
            let add = |object: &mut Map<String, Value>| {
                object.insert(key.into(), "given-out-by-mistake".into());
            };
            flips.push(("key added", changed(&add)));
        }
    }
    flips
}
