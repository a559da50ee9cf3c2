//! From the derived CustomResourceDefinitions to committed YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Makes a derived definition what we install: no empty lists, and no `nullable`, so that the API server drops a null
/// as if the field were not there (and `has()` in a CEL rule means what it says).
pub(crate) fn tidy(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let names = &mut crd.spec.names;
    names.categories.take_if(|list| list.is_empty());
    names.short_names.take_if(|list| list.is_empty());
    for version in &mut crd.spec.versions {
        version.selectable_fields.take_if(|list| list.is_empty());
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            tidy_schema(schema);
        }
    }
    crd
}

/// Applies [`tidy`] to one schema and all below it.
fn tidy_schema(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    for property in schema.properties.iter_mut().flat_map(|map| map.values_mut()) {
        tidy_schema(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => tidy_schema(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(tidy_schema),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        tidy_schema(values);
    }
}
