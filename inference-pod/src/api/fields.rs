//! Typed access to a JSON request. `null` is the same as absent; unknown fields are nobody's business.

use super::error::ApiError;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of one object, with the path that leads to it.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

/// Parses a body that must be a JSON object.
///
/// # Errors
/// Says where the JSON breaks.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let malformed = |problem: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", problem);
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(malformed("the body must be a JSON object".into())),
        Err(error) => Err(malformed(format!("the body is no valid JSON: {error}"))),
    }
}

impl<'a> Fields<'a> {
    /// The fields of the request itself.
    #[must_use]
    pub fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, path: "" }
    }

    /// A field that is there and not null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The error for a field that is something else than `wanted`.
    #[must_use]
    pub fn wrong(&self, name: &str, wanted: &str) -> ApiError {
        ApiError::field(format!("{}{name}", self.path), format!("must be {wanted}"))
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        let read = |value: &'a Value| value.as_str().ok_or_else(|| self.wrong(name, "a text"));
        self.get(name).map(read).transpose()
    }

    /// A flag, false where absent.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A whole number of at least `least`.
    pub fn count(&self, name: &str, least: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Some(number) = whole(value) else { return Err(self.wrong(name, "a whole number")) };
        match u32::try_from(number) {
            Ok(count) if count >= least => Ok(Some(count)),
            _ if number > i128::from(least) => Ok(Some(u32::MAX)),
            _ => Err(self.wrong(name, &format!("at least {least}"))),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn within(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = whole(value).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| self.wrong(name, &format!("a whole number from {least} to {most}")))
    }

    /// A whole number of 64 bits.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = whole(value).and_then(|number| i64::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(name, "a whole number of 64 bits"))
    }

    /// A number from `least` to `most`.
    pub fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &format!("a number from {least} to {most}"))),
        }
    }

    /// A number from `least` to `most`, in single precision.
    pub fn single(&self, name: &str, least: f32, most: f32) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match f32::deserialize(value) {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.wrong(name, &format!("a number from {least} to {most}"))),
        }
    }

    /// A list of at most `most` items.
    pub fn list(&self, name: &str, most: usize) -> Result<Option<&'a [Value]>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= most => Ok(Some(items)),
            Some(_) => Err(self.wrong(name, &format!("a list of at most {most}"))),
        }
    }

    /// The fields of an object in here.
    pub fn object(&self, name: &str, path: &'a str) -> Result<Option<Fields<'a>>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { map, path })),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }
}

fn whole(value: &Value) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
}
