//! Who may do what: bearer tokens (RFC 6750) with a role each.
//!
//! **Invariants.** Tokens are compared in constant time and never logged. There is no way in without one, but for
//! `/health`, `/ready` and the page's own files, which hold nothing of the cluster.
use std::path::Path;

use anyhow::{Context as _, bail};
use api::gateway::Role;
use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

/// Shorter tokens could be guessed.
const TOKEN_CHARS_MIN: usize = 16;

/// The users' tokens.
pub struct Tokens(Vec<(Role, String)>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.0.len())
    }
}

impl Tokens {
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!("could not read the tokens file {}; give it with --tokens-file", path.display())
        })?;
        Self::parse(&text).with_context(|| format!("in the tokens file {}", path.display()))
    }

    /// One `ROLE TOKEN` a line; empty lines and lines that begin with `#` are passed over.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut tokens = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((role, token)) = line.split_once(char::is_whitespace) else {
                bail!("line {}: write `ROLE TOKEN`", i + 1);
            };
            let role = match role {
                "view" => Role::View,
                "play" => Role::Play,
                "admin" => Role::Admin,
                _ => bail!("line {}: the role must be view, play or admin", i + 1),
            };
            let token = token.trim();
            if token.len() < TOKEN_CHARS_MIN {
                bail!(
                    "line {}: the token has fewer than {TOKEN_CHARS_MIN} characters; make one with `openssl rand -hex 16`",
                    i + 1
                );
            }
            tokens.push((role, token.to_owned()));
        }
        if tokens.is_empty() {
            bail!("there is no token; nobody could sign in. Add a line `admin TOKEN`");
        }
        Ok(Self(tokens))
    }

    /// The role of a request's bearer token. Every token is compared, so that time tells nothing.
    pub fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = given.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut found = None;
        for (role, token) in &self.0 {
            if bool::from(token.as_bytes().ct_eq(given.trim().as_bytes())) {
                found = found.max(Some(*role));
            }
        }
        found
    }
}

/// The one token that agents ask for.
pub fn load_agent_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("could not read the agents' token {}; give it with --agent-token-file", path.display())
    })?;
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN || token.contains(char::is_whitespace) {
        bail!("{} must hold one token of at least {TOKEN_CHARS_MIN} characters", path.display());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(tokens: &Tokens, header: &str) -> Option<Role> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, header.parse().unwrap());
        tokens.role(&headers)
    }

    #[test]
    fn a_token_gives_its_role_and_nothing_else_does() {
        let tokens = Tokens::parse("# users\nview 0123456789abcdef\n\nadmin fedcba9876543210\n").unwrap();
        assert_eq!(role(&tokens, "Bearer 0123456789abcdef"), Some(Role::View));
        assert_eq!(role(&tokens, "bearer fedcba9876543210"), Some(Role::Admin));
        for bad in [
            "Bearer 0123456789abcde",
            "Bearer ",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer 0123456789abcdeF",
        ] {
            assert_eq!(role(&tokens, bad), None, "{bad}");
        }
        assert_eq!(tokens.role(&HeaderMap::new()), None);
    }

    #[test]
    fn a_bad_tokens_file_is_refused_with_the_line() {
        for (text, want) in [
            ("", "there is no token"),
            ("admin short", "line 1: the token has fewer"),
            ("view 0123456789abcdef\nroot 0123456789abcdef", "line 2: the role"),
            ("0123456789abcdef", "line 1: write"),
        ] {
            let error = Tokens::parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
            assert!(!error.contains("0123456789abcdef"), "a token leaked: {error}");
        }
    }
}
