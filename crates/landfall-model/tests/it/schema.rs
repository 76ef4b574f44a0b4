//! The JSON Schema is committed, for editors; it must be fresh, and must take what the reader takes.

use landfall_model::json_schema;

#[test]
fn the_committed_schema_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema/landfall.schema.json");
    let text = serde_json::to_string_pretty(&json_schema()).expect("a schema is plain data") + "\n";
    landfall_testing::check_text(std::path::Path::new(path), &text);
}

#[test]
fn a_short_form_is_an_alternative() {
    let schema = json_schema();
    let options = schema["$defs"]["Replicas"]["anyOf"].as_array().expect("`Replicas` has a short form");
    assert_eq!(options.len(), 2);
}

#[test]
fn nothing_is_required_in_an_override() {
    let schema = json_schema();
    assert!(schema["$defs"]["Store"]["required"].is_array());
    assert!(schema["$defs"]["StoreOverride"].is_object());
    assert!(schema["$defs"]["StoreOverride"]["required"].is_null());
}

#[test]
fn every_key_can_be_removed_in_an_override_and_nowhere_else() {
    let null = serde_json::json!({ "type": "null" });
    let schema = json_schema();
    let takes_null = |definition: &str, key: &str| {
        let definition = &schema["$defs"][definition];
        let short = |options: &Vec<serde_json::Value>| options.last().cloned();
        let whole = definition["anyOf"].as_array().and_then(short).unwrap_or_else(|| definition.clone());
        let property = &whole["properties"][key];
        property["anyOf"].as_array().is_some_and(|options| options.contains(&null))
    };
    assert!(takes_null("ObjectivesOverride", "recovery"));
    assert!(takes_null("StoreOverride", "members"));
    assert!(takes_null("ReplicasOverride", "assumed"));
    assert!(!takes_null("Objectives", "recovery"));
    assert!(!takes_null("Store", "members"));
}
