//! What the operator may tell a pod that lives: which variant to serve. Behind a bearer token; closed without one.

use super::error::ApiError;
use super::fields::Fields;
use super::state::App;
use crate::args::TokenSha256;
use crate::exit::Reason;
use crate::swap::{SwapError, Swapper};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The admin endpoints.
pub struct Admin {
    /// What its bearer token is recognised by.
    pub token_sha256: TokenSha256,
    /// Does the work.
    pub swapper: Arc<Swapper>,
}

/// `POST /admin/variant {"variant": NAME}`: answers once new requests go to it.
pub(super) async fn swap(
    State(app): State<Arc<App>>,
    Extension(admin): Extension<Option<Arc<Admin>>>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let admin = allowed(admin.as_ref(), request.headers())?;
    let map = super::read(request).await?;
    let variant = Fields::new(&map).text("variant")?;
    let variant = variant.ok_or_else(|| ApiError::field("variant", "is required: the name of a variant"))?.to_owned();
    // In a task of its own: a caller that goes away must not leave a swap half done.
    let swap = tokio::spawn(async move { admin.swapper.to(&variant).await }).await;
    let swapped = swap.map_err(|error| ApiError::engine(&error.to_string()))?.map_err(|error| refused(&error))?;
    let variant = app.current().map(|loaded| loaded.variant.clone());
    Ok(Json(json!({"variant": variant, "seconds": swapped.took.as_secs_f64(), "drained": swapped.drained})))
}

/// `GET /admin/variant`: what is served now, what could be, and whether that is about to change.
pub(super) async fn serving(
    State(app): State<Arc<App>>,
    Extension(admin): Extension<Option<Arc<Admin>>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let admin = allowed(admin.as_ref(), &headers)?;
    let swapping = admin.swapper.is_busy();
    let variants: Vec<&str> = app.config.variants.iter().map(|file| file.name.as_str()).collect();
    Ok(Json(
        json!({"variant": app.current().map(|loaded| loaded.variant.clone()), "variants": variants, "swapping": swapping}),
    ))
}

fn allowed(admin: Option<&Arc<Admin>>, headers: &HeaderMap) -> Result<Arc<Admin>, ApiError> {
    let closed =
        || ApiError::new(StatusCode::FORBIDDEN, "admin_closed", "this pod has no admin token: start it with one");
    let admin = admin.ok_or_else(closed)?;
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let same = given.is_some_and(|given| bool::from(Sha256::digest(given).ct_eq(&admin.token_sha256)));
    let wrong = || ApiError::new(StatusCode::UNAUTHORIZED, "wrong_token", "the bearer token is missing or wrong");
    if same { Ok(Arc::clone(admin)) } else { Err(wrong()) }
}

fn refused(error: &SwapError) -> ApiError {
    let (status, code) = match error {
        SwapError::Busy => (StatusCode::CONFLICT, "swap_under_way"),
        SwapError::NotServing => (StatusCode::SERVICE_UNAVAILABLE, "engine_unavailable"),
        SwapError::Unknown(..) => (StatusCode::NOT_FOUND, "unknown_variant"),
        // It says nothing about the variant: the next try may go well.
        SwapError::Failed(failure) if failure.reason == Reason::SystemFailed => {
            (StatusCode::SERVICE_UNAVAILABLE, "swap_failed")
        }
        SwapError::Failed(_) => (StatusCode::UNPROCESSABLE_ENTITY, "swap_failed"),
    };
    ApiError::new(status, code, error.to_string())
}
