//! What this layer adds to the session cookie: `~<token>.<route>`.
//!
//! The route comes last and after the only dot, so that what balances on the end of a session id (httpd's and mod_jk's
//! `stickysession`, a suffix match in nginx, HAProxy or Envoy) finds it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sessionmesh::{NodeName, Token};

/// Between what tower-sessions set and the rest. Not in any base64.
pub(crate) const SEPARATOR: char = '~';
const DOT: char = '.';

/// The end of a session cookie's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suffix {
    /// `None`: there is one, and it can't be read.
    pub(crate) token: Option<Token>,
    /// A node's name, if it can be one.
    pub(crate) route: Option<NodeName>,
}

impl Suffix {
    /// Of what follows the separator. A client may say anything.
    pub(crate) fn parse(text: &str) -> Self {
        let (token, route) = text.split_once(DOT).unwrap_or((text, ""));
        let token = BASE64_URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| Token::decode(&bytes).ok());
        Self { token, route: NodeName::new(route).ok() }
    }

    /// Behind the first of these, before the second. Every answer to a write has one: a text as long as it must be, filled once.
    pub(crate) fn between(&self, before: &str, after: &str) -> String {
        let token = self.token.as_ref().map(Token::encode).unwrap_or_default();
        let route = self.route.as_ref().map_or("", NodeName::as_str);
        let token_bytes = base64::encoded_len(token.len(), false).unwrap_or_default();
        let added = SEPARATOR.len_utf8() + token_bytes + DOT.len_utf8() + route.len();
        let mut text = String::with_capacity(before.len() + added + after.len());
        text.push_str(before);
        text.push(SEPARATOR);
        BASE64_URL_SAFE_NO_PAD.encode_string(token, &mut text);
        text.push(DOT);
        text.push_str(route);
        text.push_str(after);
        text
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.between("", "").trim_start_matches(SEPARATOR))
    }
}

#[cfg(test)]
mod tests {
    use sessionmesh::Version;

    use super::*;

    #[test]
    fn a_suffix_comes_back_as_it_went() {
        let suffix = Suffix { token: Some(Version::default().into()), route: NodeName::new("web-1_b").ok() };
        assert_eq!(Suffix::parse(&suffix.to_string()), suffix);
    }

    #[test]
    fn garbage_is_neither_token_nor_route() {
        for text in ["", ".", "!!!.n1", "AbC", "AbC.", "a.b.c", "é"] {
            let suffix = Suffix::parse(text);
            let expected = text.strip_prefix("!!!.").map(|name| NodeName::new(name).unwrap());
            assert_eq!(suffix.route, expected, "{text}");
            assert!(suffix.token.is_none() || text.is_empty() || text == ".", "{text}");
        }
    }
}
