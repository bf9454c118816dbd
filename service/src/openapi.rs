//! The API's description in OpenAPI's form: what routes say of themselves, and what all of them have.

use crate::api::{Answered, Shared};
use crate::server::Service;
use crate::shapes::ErrorBody;
use crate::{adapters, api, datanet_api, pages, registrations, settlement_api, training_api};
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Components, Content, Ref, RefOr, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The name of the one way to say who calls.
const KEY: &str = "key";

/// What is said of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "poa", description = "Answers, their attribution, and proofs of it. docs/service.md says how it is used."),
    components(schemas(ErrorBody)),
    security(("key" = []))
)]
struct Whole;

/// Adds what all routes have: the key that they need, and errors of one form.
fn finished(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a key of the service")).build();
    document.components.get_or_insert_with(Components::new).add_security_scheme(KEY, SecurityScheme::Http(scheme));
    for path in document.paths.paths.values_mut() {
        for operation in [&mut path.get, &mut path.post, &mut path.put, &mut path.delete].into_iter().flatten() {
            refusals(operation);
        }
    }
    document
}

fn refusals(operation: &mut Operation) {
    let error = |description: &str| {
        let mut response = Response::new(description);
        response.content.insert("application/json".into(), RefOr::T(Content::new(Some(Ref::from_schema_name("ErrorBody")))));
        RefOr::T(response)
    };
    let responses = &mut operation.responses.responses;
    if operation.security.is_none() {
        responses.insert("401".into(), error("no key, or none that is known"));
    }
    responses.insert("default".into(), error("refused or failed, with what to do"));
}

/// All routes of the API, with their description.
fn described() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::with_openapi(Whole::openapi())
        .merge(api::routes())
        .merge(datanet_api::routes())
        .merge(training_api::routes())
        .merge(adapters::routes())
        .merge(registrations::routes())
        .merge(settlement_api::routes())
        .merge(pages::explore::api_routes())
        .routes(routes!(description))
}

/// The API's description.
pub fn document() -> utoipa::openapi::OpenApi {
    finished(described().split_for_parts().1)
}

/// The API's routes.
pub fn router() -> Router<Arc<Service>> {
    described().split_for_parts().0
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service", security(()), responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn description(State(_): Shared) -> Answered {
    Ok(Json(document()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A route is described where it's made; only what answers for every other path is made without.
    #[test]
    fn no_route_is_made_without_a_description() {
        fn sources(directory: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, found);
                } else {
                    found.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let marker = concat!(".rou", "te(");
        let made = texts.iter().flat_map(|text| text.split(marker).skip(1)).map(|rest| rest.trim_start().chars().take(24).collect::<String>());
        let undescribed: Vec<String> = made.filter(|rest| rest.starts_with("\"/v1") || rest.starts_with("&format!(\"/v1")).collect();
        assert_eq!(undescribed, ["\"/v1/{*rest}\", axum::rou"]);
    }

    #[test]
    fn every_route_says_what_it_is_under_a_name_of_its_own() {
        let document: Value = serde_json::to_value(document()).unwrap();
        assert!(document["paths"]["/v1/completions"]["post"].is_object() && document["paths"]["/v1/models/{id}/registration"]["delete"].is_object());
        let mut ids = BTreeSet::new();
        for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values()) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "two operations are called {id}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{id} says nothing of itself");
        }
    }

    /// `POA_BLESS=1` writes it anew.
    #[test]
    fn the_description_in_the_tree_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("POA_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "{} is another one: look at the difference, then write it anew with POA_BLESS=1", path.display());
    }
}
