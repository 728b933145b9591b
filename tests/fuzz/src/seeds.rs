//! Where fuzzing begins: the bodies of the corpus in `tests/fixtures/osquery`, for each decoder those that it may meet.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use ostiary_domain::osquery::{CarveBlock, pack_file};
use serde_json::Value;

/// Larger bodies make bad seeds.
const SEED_MAX: usize = 20_000;

/// Pairs of a decoder's name and a seed.
#[must_use]
pub fn of_fixtures() -> Vec<(String, Vec<u8>)> {
    let root = root().join("fixtures");
    let mut seeds = Vec::new();
    for file in files(&root.join("osquery")) {
        if file.extension().is_some_and(|end| end == "json") {
            let text = std::fs::read_to_string(&file).expect("fixtures can be read");
            let case: Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let posts = case["posts"].as_array().cloned().unwrap_or_default();
            for post in &posts {
                of_post(&case, post, &mut seeds);
            }
        }
    }
    for file in files(&root) {
        let is_conf = file.extension().is_some_and(|end| end == "conf");
        if is_conf && let Ok(bytes) = std::fs::read(&file) {
            seeds.push(("pack_file".into(), bytes));
        }
        if file.extension().is_some_and(|end| end == "json")
            && let Ok(bytes) = std::fs::read(&file)
        {
            seeds.push(("rule_json".into(), bytes));
        }
    }
    for file in files(&root.join("carves")) {
        let archive = std::fs::read(&file).expect("fixtures can be read");
        seeds.push(("carve_listing".into(), archive));
    }
    for file in files(&root.join("../../deploy/demo/packs")) {
        let text = std::fs::read_to_string(&file).expect("the starter packs can be read");
        let packs = pack_file::parse(&text, "demo").expect("the starter packs are read");
        for query in packs.packs.iter().flat_map(|pack| &pack.queries) {
            for how in [0_u8, 0b0111, 0b1_1000] {
                let mut seed = vec![how];
                seed.extend_from_slice(query.sql.as_bytes());
                seeds.push(("sql_check".into(), seed));
            }
        }
    }
    for (decoder, text) in TEXTS {
        seeds.push(((*decoder).into(), text.as_bytes().to_vec()));
    }
    seeds.retain(|(_, bytes)| bytes.len() <= SEED_MAX);
    seeds
}

/// Inputs that the corpus has no bodies of.
const TEXTS: &[(&str, &str)] = &[
    (
        "target",
        "prod and linux and not (database or \"two words\")",
    ),
    ("target", "tag:web or platform:darwin or host:web-*"),
    ("version", "osquery/5.17.0-1-g182672a07"),
    ("version", "osquery/1.4.5.1"),
    ("version", "launcher/1.0"),
    (
        "rule_json",
        r#"{"condition":"AND","rules":[{"field":"query_name","operator":"equal","value":"q"},{"condition":"OR","rules":[{"field":"columns.path","operator":"matches_regex","value":"^/tmp"},{"field":"action","operator":"not_equal","value":"removed"}],"not":true}]}"#,
    ),
    (
        "pack_file",
        "{\n# a comment\n// another\n\"platform\":\"linux\",\"discovery\":[\"select 1;\"],\"queries\":{\"a b/c\":{\"query\":\"select \\\n 1;\",\"interval\":\"60\",\"shard\":\"10\",\"removed\":\"false\"}}}",
    ),
    (
        "pack_file",
        "{\"schedule\":{\"q\":{\"query\":\"select 1\",\"interval\":10}},\"packs\":{\"p\":{\"queries\":{}}},\"file_paths\":{\"etc\":[\"/etc/%%\"]},\"options\":{\"a\":1}}",
    ),
    (
        "pack_yaml",
        "---\napiVersion: v1\nkind: pack\nspec:\n  name: p\n  targets:\n    labels: [All Hosts]\n  queries:\n    - query: q\n      interval: 60\n---\nkind: query\nspec:\n  name: q\n  query: |\n    select 1\n    from a;\n",
    ),
    (
        "node_keys",
        "host_identifier,node_key,hardware_uuid,hardware_serial,hostname,platform,tags,colour\nmoved-1,fleet-Key/+==,,SER-9,moved-1.example.com,darwin,prod laptop;lab,red\n\"moved,2\",\"!\"\"#$%&'()*\",4C4C4544-0043-4410-8051-B7C04F4D3132,,,,\nshort,1234567\n",
    ),
    (
        "config_sections",
        r#"{"views":{"v":"SELECT 1"},"auto_table_construction":{"t":{"query":"SELECT a FROM b","path":"/x/%","columns":["a"],"platform":"darwin"}},"yara":{"signatures":{"g":["/a"]},"file_paths":{"c":["g"]},"signature_urls":["https://h/.*"]},"events":{"disable_subscribers":["x"]},"prometheus_targets":{"timeout":5,"urls":["http://h:9100/metrics"]},"decorators":{"load":["SELECT 1"],"interval":{"60":["SELECT 2"]}},"file_paths_query":{"c":["SELECT path FROM file"]},"feature_vectors":{"character_frequencies":[0.5]},"other":{"a":[1,null]}}"#,
    ),
    (
        "carve_start",
        r#"{"block_count":"2","block_size":"300000","carve_size":"300001","carve_id":"c","request_id":"r","node_key":"k"}"#,
    ),
    (
        "carve_block",
        r#"{"block_id":"0","session_id":"s","request_id":"","data":"AAEC"}"#,
    ),
    ("carve_path", "tmp/osquery_carve_c/etc/../../passwd"),
    (
        "sql_check",
        "\0WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x < 5) SELECT x FROM n, listening l, kolide_thing",
    ),
    (
        "sql_check",
        "\x0cSELECT m.name, p.hidden FROM sqlite_temp_master m JOIN pragma_table_xinfo(m.name) p",
    ),
    (
        "sql_check",
        "\x04SELECT carve(path), split(path, '/', -1) FROM file f WHERE path LIKE '/tmp/%' GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 COLLATE version LIMIT 3",
    ),
    (
        "sql_extras",
        "sqlite_x a b\nt a A\nq path Path\nv=SELECT * FROM t\nv=SELECT * FROM v\nprocesses x\nw=SELECT 1; SELECT 2",
    ),
];

fn of_post(case: &Value, post: &Value, seeds: &mut Vec<(String, Vec<u8>)>) {
    let Some(body) = body_of(post) else { return };
    let endpoint = post["endpoint"].as_str().unwrap_or_default();
    let endpoint = endpoint.split('?').next().unwrap_or_default();
    let decoders: &[&str] = match endpoint.trim_start_matches("/v1") {
        "/enroll" => &["enroll"],
        "/config" | "/distributed/read" => &["small_requests"],
        "/log" => &["log_body", "gzip_log_body", "sanitise"],
        "/distributed/write" => &["distributed_write"],
        "/carve/start" => &["carve_start"],
        "/carve/continue" => &["carve_block"],
        _ => &[],
    };
    for decoder in decoders {
        seeds.push(((*decoder).to_owned(), body.clone()));
    }
    if let Some(data) = CarveBlock::parse(&String::from_utf8_lossy(&body))
        .ok()
        .and_then(|block| block.decode_data().ok())
    {
        seeds.push(("carve_listing".to_owned(), data));
    }
    if endpoint.ends_with("/log") {
        let text = String::from_utf8_lossy(&body);
        let (start, end) = (text.find('['), text.rfind(']'));
        if let (Some(start), Some(end)) = (start, end)
            && start < end
        {
            let decoder = if text.contains("\"status\"") {
                "status_lines"
            } else {
                "result_lines"
            };
            let old = case["client"]
                .as_str()
                .is_some_and(|version| version.starts_with(['1', '2', '3']));
            let mut bytes = vec![u8::from(old)];
            bytes.extend_from_slice(text[start..=end].as_bytes());
            seeds.push((decoder.to_owned(), bytes));
        }
    }
}

fn body_of(post: &Value) -> Option<Vec<u8>> {
    if let Some(base64) = post["base64"].as_str() {
        return base64::prelude::BASE64_STANDARD.decode(base64).ok();
    }
    if let Some(pieces) = post["text"].as_array() {
        return Some(
            pieces
                .iter()
                .filter_map(Value::as_str)
                .collect::<String>()
                .into_bytes(),
        );
    }
    post.get("json").map(|json| json.to_string().into_bytes())
}

/// The folder `tests`.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.ends_with("fuzz") {
        here.join("..")
    } else {
        here.to_owned()
    }
}

/// What fuzzing has found: pairs of a decoder's name and the bytes.
#[must_use]
pub fn found() -> Vec<(String, Vec<u8>)> {
    let folder = root().join("fuzz/found");
    let name = |file: &Path| Some(file.parent()?.file_name()?.to_str()?.to_owned());
    files(&folder)
        .iter()
        .filter_map(|file| Some((name(file)?, std::fs::read(file).ok()?)))
        .collect()
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
