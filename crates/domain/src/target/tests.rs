//! Expressions and whom they choose.

use super::{ParseError, Target};
use crate::node::NodeFacts;

fn node(tags: &[&str]) -> NodeFacts {
    NodeFacts {
        tags: tags.iter().map(ToString::to_string).collect(),
        platform: "linux".into(),
        hostname: "web-1".into(),
        host_identifier: "4C4C".into(),
        ..NodeFacts::default()
    }
}

#[test]
fn an_expression_chooses_the_nodes_that_it_describes() {
    let cases = [
        ("", &[][..], true),
        ("*", &[], true),
        ("none", &[], false),
        ("prod", &["prod"], true),
        ("Prod", &["prod"], true),
        ("prod", &["lab"], false),
        ("prod and linux and not database", &["prod", "linux"], true),
        (
            "prod and linux and not database",
            &["prod", "linux", "database"],
            false,
        ),
        ("a or b and c", &["a"], true),
        ("(a or b) and c", &["a"], false),
        ("not not a", &["a"], true),
        ("platform:linux", &[], true),
        ("platform:darwin or host:WEB-*", &[], true),
        ("host:*b-1", &[], true),
        ("host:w*-2", &[], false),
        ("host:4c4c", &[], true),
        ("\"two words\"", &["two words"], true),
    ];
    for (text, tags, expected) in cases {
        let target = Target::parse(text).unwrap();
        assert_eq!(target.matches(&node(tags)), expected, "{text} on {tags:?}");
        assert_eq!(
            Target::parse(&target.to_string()),
            Ok(target),
            "{text} does not survive a round trip"
        );
    }
}

#[test]
fn expressions_are_joined_without_choosing_more_than_they_say() {
    let parse = |text: &str| Target::parse(text).unwrap();
    let text = |target: Target| target.to_text();
    assert_eq!(text(Target::any([])), "none");
    assert_eq!(
        text(Target::any([parse("a"), Target::None, parse("b or a")])),
        "a or b"
    );
    assert_eq!(text(Target::any([parse("a"), Target::All])), "");
    assert_eq!(text(parse("a or b").and(parse("c"))), "(a or b) and c");
    assert_eq!(
        text(parse("a and b").and(parse("c and d"))),
        "a and b and c and d"
    );
    assert_eq!(text(parse("a").and(Target::All)), "a");
    assert_eq!(text(parse("a").and(Target::None)), "none");
    assert_eq!(
        text(parse("a").except(parse("b or c"))),
        "a and not (b or c)"
    );
    assert_eq!(text(Target::All.except(parse("b"))), "not b");
    assert_eq!(text(parse("a").except(Target::All)), "none");
    for word in ["AND", "Or", "nOt", "NONE"] {
        let tag = Target::Tag(word.to_owned());
        assert_eq!(Target::parse(&tag.to_string()), Ok(tag));
    }
}

#[test]
fn a_text_that_is_no_expression_is_refused_with_its_place() {
    let cases = [
        ("and", ParseError::MissingOperand(1)),
        ("a and", ParseError::MissingOperand(6)),
        ("(a or b", ParseError::Unclosed(1)),
        (
            "a b",
            ParseError::Unexpected {
                word: "b".into(),
                at: 3,
            },
        ),
        (
            "a )",
            ParseError::Unexpected {
                word: ")".into(),
                at: 3,
            },
        ),
        ("\"a", ParseError::UnclosedQuote(1)),
        ("colour:red", ParseError::UnknownField("colour".into())),
    ];
    for (text, error) in cases {
        assert_eq!(Target::parse(text), Err(error), "{text}");
    }
    assert_eq!(Target::parse(&"(".repeat(5000)), Err(ParseError::TooDeep));
}

#[test]
fn an_example_of_an_expression_has_what_it_asks_for_and_no_more() {
    for (text, expected) in [
        ("", Some((&[][..], "", ""))),
        (
            "a and platform:darwin and not b",
            Some((&["a"], "darwin", "")),
        ),
        ("(a or b) and c", Some((&["a", "c"], "", ""))),
        ("host:web-1", Some((&[], "", "web-1"))),
        ("a and not a", None),
        ("platform:linux and platform:darwin", None),
        ("none", None),
    ] {
        let example = Target::parse(text).unwrap().example();
        let expected = expected.map(|(tags, platform, name)| NodeFacts {
            tags: tags.iter().map(ToString::to_string).collect(),
            platform: platform.into(),
            hostname: name.into(),
            ..NodeFacts::default()
        });
        assert_eq!(example, expected, "{text}");
    }
}

#[test]
fn the_tags_of_an_expression_are_listed() {
    assert_eq!(
        Target::parse("a and not (b or platform:linux)")
            .unwrap()
            .tags(),
        ["a", "b"]
    );
}
