//! Who asks: a bearer key that the snapshot knows. No header of the client says anything else about tenant or route.

use crate::catalogue::View;
use crate::limits;
use crate::respond::Refusal;
use http::{HeaderMap, header};
use quartermaster_core::wire::gateway::ApiKey;

/// The key's owner, or the refusal. Missing and unknown keys differ only in what the client can do about it.
pub fn identify<'a>(headers: &HeaderMap, view: &'a View) -> Result<&'a ApiKey, Refusal> {
    let missing = "You didn't provide an API key. Send it as `Authorization: Bearer YOUR_KEY`.";
    let key = bearer(headers).ok_or_else(|| Refusal::unauthorized(missing))?;
    let unknown = || Refusal::unauthorized("Incorrect API key provided. Ask the owner of your TokenBudget for one.");
    if key.len() > limits::API_KEY_BYTES_MAX {
        return Err(unknown());
    }
    view.key(key).ok_or_else(unknown)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    // Two of them would leave it to chance which one counts.
    if values.next().is_some() {
        return None;
    }
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn only_one_bearer_key_counts() {
        assert_eq!(bearer(&headers(&["Bearer k"])), Some("k"));
        assert_eq!(bearer(&headers(&["bearer  k "])), Some("k"));
        for refused in [&[][..], &["Basic k"], &["Bearer"], &["Bearer  "], &["Bearer k", "Bearer j"]] {
            assert_eq!(bearer(&headers(refused)), None, "{refused:?}");
        }
    }
}
