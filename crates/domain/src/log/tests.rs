//! The compatibility corpus of log lines: R1–R24 and S1–S6.

use chrono::DateTime;

use super::*;
use crate::osquery::{Columns, LogEnvelope, LogType, sanitise};

const NOW: i64 = 1_786_100_000;

fn receipt(version: &str) -> Receipt {
    Receipt {
        received_at: DateTime::from_timestamp(NOW, 0).unwrap(),
        version: version.parse().ok(),
        unescape: true,
    }
}

fn results<'a>(lines: &[&'a str]) -> DecodedPost<'a> {
    decode(LogType::Result, lines.iter().copied(), &receipt("5.23.1"))
}

fn old<'a>(version: &str, line: &'a str) -> Execution<'a> {
    let mut post = decode(LogType::Result, [line], &receipt(version));
    assert_eq!(post.unreadable, []);
    post.executions.pop().unwrap()
}

fn one(line: &str) -> Execution<'_> {
    old("5.23.1", line)
}

fn status<'a>(version: &str, line: &'a str) -> StatusLine<'a> {
    decode(LogType::Status, [line], &receipt(version))
        .statuses
        .pop()
        .unwrap()
}

/// Rows as `+{"a":"1"}`, for comparing at a glance.
fn rows(execution: &Execution<'_>) -> Vec<String> {
    let sign = |action| match action {
        Action::Added => '+',
        Action::Removed => '-',
        Action::Snapshot => '=',
        Action::Triggered => '!',
    };
    execution
        .rows
        .iter()
        .map(|row| format!("{}{}", sign(row.action), row.columns.to_json()))
        .collect()
}

#[test]
fn r1_events_of_one_execution_are_gathered() {
    let post = results(&[
        r#"{"name":"pack/it/usb","hostIdentifier":"H","calendarTime":"Fri Aug  7 10:00:05 2026 UTC","unixTime":1786096805,"epoch":7,"counter":12,"numerics":false,"decorations":{"host_uuid":"U"},"columns":{"a":"1"},"action":"removed"}"#,
        r#"{"name":"other","unixTime":1786096805,"epoch":7,"counter":1,"columns":{"b":"1"},"action":"added"}"#,
        r#"{"name":"pack/it/usb","unixTime":1786096805,"epoch":7,"counter":12,"columns":{"a":"2"},"action":"added"}"#,
        r#"{"name":"pack/it/usb","unixTime":1786096806,"epoch":7,"counter":13,"columns":{"a":"3"},"action":"added"}"#,
    ]);
    let [usb, other, later] = post.executions.as_slice() else {
        panic!("{post:?}")
    };
    assert_eq!(rows(usb), [r#"-{"a":"1"}"#, r#"+{"a":"2"}"#]);
    assert_eq!(
        (usb.query_name.as_ref(), usb.host_identifier.as_ref()),
        ("pack/it/usb", "H")
    );
    assert_eq!(
        (usb.kind, usb.epoch, usb.counter),
        (Kind::Differential, Some(7), Some(12))
    );
    assert_eq!(
        (usb.unix_time, usb.occurred_at.timestamp()),
        (1_786_096_805, 1_786_096_805)
    );
    assert_eq!(usb.decorations.get("host_uuid"), Some("U"));
    assert!(usb.line_per_row && !usb.lossy);
    assert_eq!((rows(other).len(), rows(later).len()), (1, 1));
}

#[test]
fn r2_r3_r4_snapshots_whole_and_empty() {
    let full = one(
        r#"{"snapshot":[{"pid":"1","path":"/a"},{"pid":"1","path":"/a"}],"action":"snapshot","name":"procs","unixTime":1786096805,"epoch":0,"counter":0}"#,
    );
    assert_eq!(
        rows(&full),
        [r#"={"pid":"1","path":"/a"}"#, r#"={"pid":"1","path":"/a"}"#]
    );
    assert_eq!((full.kind, full.line_per_row), (Kind::Snapshot, false));
    for (case, empty) in [("R3", "[]"), ("R4", "\"\""), ("null", "null")] {
        let line =
            format!(r#"{{"snapshot":{empty},"action":"snapshot","name":"procs","unixTime":1}}"#);
        let execution = one(&line);
        assert_eq!(
            (execution.kind, execution.rows.len()),
            (Kind::Snapshot, 0),
            "{case}"
        );
    }
}

#[test]
fn r5_batches_with_either_side_empty() {
    let batch = one(
        r#"{"diffResults":{"removed":[{"a":"1"}],"added":[{"a":"2"},{"a":"2"}]},"name":"q","unixTime":1786096805,"epoch":0,"counter":3}"#,
    );
    assert_eq!(
        rows(&batch),
        [r#"-{"a":"1"}"#, r#"+{"a":"2"}"#, r#"+{"a":"2"}"#]
    );
    assert_eq!(
        (batch.kind, batch.line_per_row),
        (Kind::Differential, false)
    );
    for diff in [
        r#"{"removed":[],"added":[{"a":"2"}]}"#,
        r#"{"added":[{"a":"2"}],"removed":""}"#,
        r#"{"added":[{"a":"2"}]}"#,
    ] {
        assert_eq!(
            rows(&one(&format!(r#"{{"name":"q","diffResults":{diff}}}"#))),
            [r#"+{"a":"2"}"#],
            "{diff}"
        );
    }
    for diff in [
        r#"{"removed":[],"added":[]}"#,
        r#"{"removed":"","added":""}"#,
        "\"\"",
    ] {
        assert_eq!(
            one(&format!(
                r#"{{"name":"q","counter":0,"diffResults":{diff}}}"#
            ))
            .rows
            .len(),
            0,
            "{diff}"
        );
    }
}

#[test]
fn r6_a_snapshot_sent_as_events_is_one_execution() {
    let post = results(&[
        r#"{"name":"q","unixTime":5,"epoch":0,"counter":0,"columns":{"a":"1"},"action":"snapshot"}"#,
        r#"{"name":"q","unixTime":5,"epoch":0,"counter":0,"columns":{"a":"2"},"action":"snapshot"}"#,
    ]);
    assert_eq!(post.executions.len(), 1);
    assert_eq!(
        (post.executions[0].kind, post.executions[0].line_per_row),
        (Kind::Snapshot, true)
    );
    assert_eq!(
        rows(&post.executions[0]),
        [r#"={"a":"1"}"#, r#"={"a":"2"}"#]
    );
}

#[test]
fn r7_numbers_keep_their_digits() {
    let line = r#"{"name":"q","numerics":true,"columns":{"a":9223372036854775807,"b":-5,"c":1.50,"d":"","e":18446744073709551615},"action":"added"}"#;
    assert_eq!(
        rows(&one(line)),
        [r#"+{"a":"9223372036854775807","b":"-5","c":"1.50","d":"","e":"18446744073709551615"}"#]
    );
}

#[test]
fn r8_r9_old_versions_send_texts_or_nothing() {
    let texts = old(
        "3.1.0",
        r#"{"name":"q","unixTime":"1509042475","epoch":"18446744073709551615","counter":"3","columns":{"a":"1"},"action":"added"}"#,
    );
    assert_eq!(
        (texts.unix_time, texts.epoch, texts.counter),
        (1_509_042_475, Some(u64::MAX), Some(3))
    );
    let bare = old(
        "2.4.0",
        r#"{"name":"q","unixTime":"1509042475","columns":{"a":"1"},"action":"added"}"#,
    );
    assert_eq!((bare.epoch, bare.counter), (None, None));
    let renamed = old(
        "3.4.0",
        r#"{"name":"q","logNumericsAsNumbers":false,"columns":{},"action":"added"}"#,
    );
    assert!(renamed.decorations.is_empty());
    assert_eq!(
        rows(&old(
            "3.1.0",
            r#"{"name":"q","columns":"","action":"added"}"#
        )),
        ["+{}"]
    );
}

#[test]
fn lines_of_one_execution_keep_decorations_that_differ() {
    let line = |floor: &str| {
        format!(
            r#"{{"name":"q","unixTime":1786096805,"counter":1,"decorations":{{"floor":"{floor}"}},"columns":{{"a":"1"}},"action":"added"}}"#
        )
    };
    let lines = [line("3"), line("3"), line("4")];
    let post = results(&lines.each_ref().map(String::as_str));
    let [execution] = &post.executions[..] else {
        panic!("one execution: {:?}", post.executions);
    };
    assert_eq!(execution.decorations.get("floor"), Some("3"));
    let own = |row: &Row<'_>| row.decorations.as_ref().map(Columns::to_json);
    let own: Vec<_> = execution.rows.iter().map(own).collect();
    assert_eq!(own, [None, None, Some(r#"{"floor":"4"}"#.to_owned())]);
}

#[test]
fn r10_r11_decorations_anywhere_and_times_from_the_calendar() {
    let top = one(
        r#"{"name":"q","unixTime":"tomorrow","calendarTime":"Fri Aug  7 10:00:05 2026","site":"rome","floor":3,"columns":{"a":"1"},"action":"added"}"#,
    );
    assert_eq!(top.unix_time, 1_786_096_805);
    assert_eq!(
        (top.decorations.get("site"), top.decorations.get("floor")),
        (Some("rome"), Some("3"))
    );
    let timeless = one(
        r#"{"name":"q","calendarTime":"","decorations":[1],"columns":{"a":"1"},"action":"added"}"#,
    );
    assert_eq!(
        (timeless.unix_time, timeless.occurred_at.timestamp()),
        (NOW, NOW)
    );
    let future = one(r#"{"name":"q","unixTime":4070908800,"columns":{"a":"1"},"action":"added"}"#);
    assert_eq!(
        (future.unix_time, future.occurred_at.timestamp()),
        (4_070_908_800, NOW)
    );
}

#[test]
fn r12_names_are_free_text() {
    for name in ["pack/a b/c ", "mithra`s_rootkit", "größe.日本"] {
        let line = format!(r#"{{"name":"{name}","columns":{{}},"action":"added"}}"#);
        assert_eq!(one(&line).query_name, name);
    }
    assert_eq!(
        old(
            "2.11.0",
            r#"{"name":"gr\u00C3\u00B6\u00C3\u009Fe","columns":{},"action":"added"}"#
        )
        .query_name,
        "größe"
    );
}

#[test]
fn r13_large_lines_and_batches_are_read() {
    let big = format!(
        r#"{{"name":"q","snapshot":[{{"a":"{}"}}]}}"#,
        "x".repeat(1 << 20)
    );
    assert_eq!(one(&big).rows[0].columns.get("a").unwrap().len(), 1 << 20);
    let lines: Vec<String> = (0..1024)
        .map(|n| {
            format!(
                r#"{{"name":"q{}","unixTime":{},"columns":{{"n":"{n}"}},"action":"added"}}"#,
                n % 3,
                n % 7
            )
        })
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let post = results(&lines);
    assert_eq!(post.executions.len(), 21);
    assert_eq!(
        post.executions
            .iter()
            .map(|execution| execution.rows.len())
            .sum::<usize>(),
        1024
    );
}

#[test]
fn r16_r17_r18_poison_is_replaced_and_mangled_text_repaired() {
    let body = b"{\"node_key\":\"K\",\"log_type\":\"result\",\"data\":[{\"name\":\"q\",\"snapshot\":[{\"a\":\"\xFFA\xC3\",\"b\\u0000\":\"\\u0000\\ud800\"}]}]}";
    let sanitised = sanitise(body);
    let envelope = LogEnvelope::split(&sanitised.text, None).unwrap();
    let lines = split_lines(envelope.data.unwrap());
    let post = results(&lines);
    assert!(post.executions[0].lossy);
    assert_eq!(
        rows(&post.executions[0]),
        ["={\"a\":\"\u{FFFD}A\u{FFFD}\",\"b\u{FFFD}\":\"\u{FFFD}\u{FFFD}\"}"]
    );

    let old_row = |version, action: &str, value: &str| {
        let line = format!(r#"{{"name":"q","columns":{{"a":"{value}"}},"action":"{action}"}}"#);
        old(version, &line).rows[0]
            .columns
            .get("a")
            .unwrap()
            .to_owned()
    };
    assert_eq!(old_row("2.11.0", "snapshot", r"caf\u00C3\u00A9"), "café");
    assert_eq!(
        old_row("3.2.0", "snapshot", r"caf\u00C3\u00A9"),
        "caf\u{C3}\u{A9}"
    );
    assert_eq!(old_row("5.21.0", "added", r"caf\\xC3\\xA9\\x0A"), "café\n");
    assert_eq!(
        old_row("5.21.0", "snapshot", r"caf\\xC3\\xA9"),
        r"caf\xC3\xA9",
        "snapshots are not escaped"
    );
    assert_eq!(old_row("5.22.0", "added", r"caf\\xC3\\xA9"), r"caf\xC3\xA9");
    assert_eq!(
        old_row("unknown", "added", r"caf\\xC3\\xA9"),
        r"caf\xC3\xA9"
    );
    let kept = Receipt {
        unescape: false,
        ..receipt("5.21.0")
    };
    let post = decode(
        LogType::Result,
        [r#"{"name":"q","columns":{"a":"\\xC3\\xA9"},"action":"added"}"#],
        &kept,
    );
    assert_eq!(
        post.executions[0].rows[0].columns.get("a"),
        Some(r"\xC3\xA9")
    );
}

#[test]
fn r19_equal_lines_of_one_execution_stay() {
    let line = r#"{"name":"q","unixTime":5,"columns":{"a":"1"},"action":"added"}"#;
    assert_eq!(results(&[line, line]).executions[0].rows.len(), 2);
}

#[test]
fn r21_what_is_no_line_is_set_aside_alone() {
    for empty in ["", "\"\"", "null", "[]", " [ ] "] {
        assert!(split_lines(empty).is_empty(), "{empty}");
    }
    assert_eq!(split_lines(r#"{"name":"q"}"#), [r#"{"name":"q"}"#]);
    assert_eq!(
        split_lines(r#"[1, "x" ,{"a":[1, 2]}]"#),
        ["1", "\"x\"", r#"{"a":[1, 2]}"#]
    );

    let good = r#"{"name":"q","columns":{"a":"1"},"action":"added"}"#;
    let bad = [
        "7",
        "\"text\"",
        "[]",
        "{}",
        "{",
        r#"{"columns":{},"action":"added"}"#,
        r#"{"name":"q","columns":[],"action":"added"}"#,
        r#"{"name":"q","snapshot":[5]}"#,
        r#"{"name":"q","diffResults":[]}"#,
    ];
    let mixed: Vec<&str> = bad.iter().flat_map(|bad| [good, *bad]).collect();
    let post = results(&mixed);
    assert_eq!(post.executions[0].rows.len(), bad.len());
    let set_aside: Vec<&[u8]> = post.unreadable.iter().map(|line| line.bytes).collect();
    assert_eq!(set_aside, bad.map(str::as_bytes));
}

#[test]
fn r22_r24_unknown_types_and_actions_are_kept_as_unreadable() {
    let post = decode(LogType::Unknown, ["{}", "1"], &receipt("5.23.1"));
    assert_eq!(post.unreadable.len(), 2);
    assert_eq!(post.unreadable[0].reason, UnreadableReason::UnknownLogType);
    for action in ["moved", "triggered", ""] {
        let line = format!(r#"{{"name":"q","columns":{{}},"action":"{action}"}}"#);
        assert_eq!(
            results(&[&line]).unreadable[0].reason,
            UnreadableReason::UnknownAction(action.to_owned())
        );
    }
}

#[test]
fn r23_nested_columns_become_json_text() {
    let nested =
        one(r#"{"name":"q","columns":{"a":{"b":[1,null]},"c":null,"d":true},"action":"added"}"#);
    assert_eq!(
        rows(&nested),
        [r#"+{"a":"{\"b\":[1,null]}","c":"","d":"true"}"#]
    );
}

#[test]
fn executions_of_a_query_come_in_the_order_of_their_counters() {
    let line = |name: &str, epoch, counter| {
        format!(
            r#"{{"name":"{name}","unixTime":5,"epoch":{epoch},"counter":{counter},"columns":{{}},"action":"added"}}"#
        )
    };
    let lines = [
        line("q", 1, 10),
        line("r", 1, 3),
        line("q", 1, 9),
        line("q", 0, 20),
        line("q", 1, 8),
    ];
    let post = decode(
        LogType::Result,
        lines.iter().map(String::as_str),
        &receipt("5.23.1"),
    );
    let order: Vec<_> = post
        .executions
        .iter()
        .map(|e| (e.query_name.as_ref(), e.epoch.unwrap(), e.counter.unwrap()))
        .collect();
    assert_eq!(
        order,
        [
            ("q", 1, 8),
            ("r", 1, 3),
            ("q", 1, 9),
            ("q", 0, 20),
            ("q", 1, 10)
        ]
    );
}

#[test]
fn s1_to_s6_status_lines() {
    let s1 = status(
        "5.23.1",
        r#"{"hostIdentifier":"H","calendarTime":"Fri Aug  7 10:00:05 2026 UTC","unixTime":1786096805,"severity":1,"filename":"scheduler.cpp","line":113,"message":"a\nb","version":"5.23.1","decorations":{"site":"rome"}}"#,
    );
    assert_eq!(
        (s1.severity, s1.line, s1.unix_time),
        (1, 113, 1_786_096_805)
    );
    assert_eq!(
        (s1.filename.as_ref(), s1.message.as_ref()),
        ("scheduler.cpp", "a\nb"),
        "S5"
    );
    assert_eq!(s1.decorations.get("site"), Some("rome"), "S4");
    let s2 = status(
        "5.9.0",
        r#"{"hostIdentifier":"H","unixTime":"1786096805","severity":"3","filename":"f","line":"113","message":"caf\u00C3\u00A9","version":"5.9.0"}"#,
    );
    assert_eq!(
        (s2.severity, s2.line, s2.message.as_ref()),
        (3, 113, "café"),
        "S2, S6"
    );
    let s3 = status(
        "2.4.0",
        r#"{"severity":"0","filename":"f","line":"1","message":"m","version":"2.4.0"}"#,
    );
    assert_eq!((s3.host_identifier.as_ref(), s3.unix_time), ("", NOW));
    let odd = status(
        "5.23.1",
        r#"{"severity":"high","line":99999999999,"message":7}"#,
    );
    assert_eq!((odd.severity, odd.line, odd.message.as_ref()), (0, 0, "7"));
    let post = decode(LogType::Status, ["{}", "5"], &receipt("5.23.1"));
    assert_eq!(post.unreadable[0].reason, UnreadableReason::NoMessage);
    assert_eq!(post.unreadable.len(), 2);
}
