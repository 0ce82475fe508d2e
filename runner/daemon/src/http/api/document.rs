//! The API's description, made from the code that answers.
use utoipa::OpenApi;

use super::{Json, changes, events, looks};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "muster",
        description = "Disaster-recovery drills: what is due, what ran, what it proved. Errors are RFC 9457 problems with `advice`. \
            Reading needs a token of any role where the daemon has tokens; what changes something needs an operator's token, or \
            the daemon's own socket, and `Content-Type: application/json`."
    ),
    paths(
        looks::drills,
        looks::drill,
        changes::start,
        looks::next,
        looks::runs,
        looks::run,
        changes::cancel,
        events::of_run,
        looks::evidence,
        events::all,
        looks::quarantine,
        changes::release,
        looks::problems,
        looks::alerts,
        openapi
    )
)]
pub(in crate::http) struct Document;

/// This description.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = Object)))]
pub(super) async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
