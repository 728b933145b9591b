//! Templates of people's own: what they may say, and what they cannot do.

use serde_json::json;

use super::*;

fn message() -> Message {
    let now = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let mut message = Message::sample(Templates::default(), now);
    message.alert.columns = serde_json::from_value(json!({
        "name": "Free Coupons", "path": "/tmp/x\nFrom: us", "pid": 7, "platform": "of the row",
    }))
    .unwrap();
    message
}

fn said(source: &str) -> String {
    render(source, &message()).unwrap()
}

fn refused(source: &str) -> String {
    render(source, &message()).unwrap_err().to_string()
}

#[test]
fn a_template_tells_of_rule_node_and_row() {
    assert_eq!(
        said(
            "{{ rule.severity|upper }}: {{ rule.name }} on {{ node.name }}{% if columns.gone %} never{% endif %}"
        ),
        "HIGH: New browser extension on mac-7"
    );
    assert_eq!(
        said("{% for name, value in columns|items %}{{ name }}={{ value }};{% endfor %}"),
        "name=Free Coupons;path=/tmp/x From: us;pid=7;platform=of the row;"
    );
    assert_eq!(said("{{ columns.a.b.c }}{{ nothing }}x"), "x");
    assert_eq!(
        said("{{ columns.gone|default('none') }} {{ node.tags|json }}"),
        "none [\"laptop\",\"engineering\"]"
    );
}

#[test]
fn doorman_s_placeholders_are_filled_in_and_unknown_ones_stay() {
    assert_eq!(
        said("$name ($pid) on ${display_name}: $platform, $unknown ${un known} $$5 $ 100$"),
        "Free Coupons (7) on mac-7: of the row, $unknown ${un known} $5 $ 100$"
    );
    assert_eq!(
        said("${host_identifier}"),
        message().alert.node.host_identifier
    );
    assert_eq!(said("{{ '$name' }} {# $name #}$name"), "$name Free Coupons");
}

#[test]
fn a_value_cannot_add_a_line() {
    assert_eq!(
        said("Path: $path\nPath: {{ columns.path }}")
            .lines()
            .count(),
        2
    );
}

#[test]
fn what_could_grow_or_take_long_is_refused() {
    let endless = "{% for a in columns|items %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
    for (source, part) in [
        ("{% set x = 'a' %}", "\"set\" cannot be used"),
        ("{%- macro x() %}{% endmacro %}", "\"macro\" cannot be used"),
        ("{% include 'x' %}", "\"include\" cannot be used"),
        ("{{ 'a' * 1000000 }}", "no arithmetic"),
        (
            "{{ '}} {# ' }}{% set x = 1 %}{{ '#}' }}",
            "\"set\" cannot be used",
        ),
        ("{{ name|replace('a', 'b') }}", "filter"),
        ("{{ range(100000) }}", "function"),
        ("{{ name", "not closed"),
        ("\n{{ name name }}", "line 2"),
        (&endless, "too long"),
        (&"x".repeat(MOST_SOURCE + 1), "10000 bytes"),
        (
            "{% for a in columns|items %}{% for b in columns|items %}{% for c in columns|items %}{{ rule.description }}{{ rule.description }}\
          {% for d in columns|items %}{{ rule.description }}{{ rule.description }}{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
            "longer than 20000",
        ),
    ] {
        let error = refused(source);
        assert!(error.contains(part), "{error} for {source:.80}");
    }
}
