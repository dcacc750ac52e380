//! The bearer token of the agent's API.
use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use subtle::ConstantTimeEq as _;

use super::error::ApiError;
use crate::config::Token;

pub(super) async fn check(State(token): State<Token>, request: Request, next: Next) -> Result<Response, ApiError> {
    if authorized(request.headers(), &token) { Ok(next.run(request).await) } else { Err(ApiError::unauthorized()) }
}

/// The comparison takes the same time wherever the texts differ; only the length can be learned.
fn authorized(headers: &HeaderMap, token: &Token) -> bool {
    let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let Some((scheme, given)) = value.split_once(' ') else { return false };
    scheme.eq_ignore_ascii_case("bearer") && given.trim().as_bytes().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Token::new("s3cret");
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            authorized(&headers, &token)
        };
        assert!(check("Bearer s3cret") && check("bearer s3cret"));
        for bad in
            ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer S3CRET"]
        {
            assert!(!check(bad), "{bad}");
        }
        assert!(!authorized(&HeaderMap::new(), &token));
    }
}
