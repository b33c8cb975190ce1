//! The session cookie, said once for both layers.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sessionmesh::Cluster;
use tower_sessions::cookie::SameSite;
use tower_sessions::session::Id;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_sessionmesh_store::SessionMeshStore;

use crate::SessionMeshLayer;

/// The session cookie's attributes. Always `HttpOnly`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieConfig {
    /// Its name. Default `id`, that of tower-sessions.
    pub name: Cow<'static, str>,
    /// Its path. Default `/`.
    pub path: Cow<'static, str>,
    /// Its domain. Default none: only the host that set it.
    pub domain: Option<Cow<'static, str>>,
    /// Only over TLS. Default yes.
    pub secure: bool,
    /// Whether requests from other sites carry it. Default `Lax`: links from elsewhere find the user
    /// logged in, forms from elsewhere do not.
    pub same_site: SameSite,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self { name: "id".into(), path: "/".into(), domain: None, secure: true, same_site: SameSite::Lax }
    }
}

/// The two layers that belong together: put `SessionMeshLayer` outside, that is, added last.
pub fn session_layers(
    cluster: &Cluster,
    cookie: CookieConfig,
) -> (SessionMeshLayer, SessionManagerLayer<SessionMeshStore>) {
    let store = SessionMeshStore::new(cluster);
    let mut manager = SessionManagerLayer::new(store.clone())
        .with_name(cookie.name.clone())
        .with_path(cookie.path.clone())
        .with_secure(cookie.secure)
        .with_same_site(cookie.same_site)
        .with_expiry(Expiry::OnSessionEnd);
    if let Some(domain) = cookie.domain.clone() {
        manager = manager.with_domain(domain);
    }
    (SessionMeshLayer::new(cluster, store, cookie), manager)
}

impl CookieConfig {
    /// The session id that a request carries, if its cookie is a plain one.
    pub(crate) fn session_id(&self, headers: &HeaderMap) -> Option<Id> {
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == self.name)
            .and_then(|(_, value)| value.parse().ok())
    }

    /// Whether a Set-Cookie header is for this cookie.
    pub(crate) fn is_set_by(&self, header: &HeaderValue) -> bool {
        header.as_bytes().strip_prefix(self.name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    }

    /// A Set-Cookie header that removes the cookie.
    pub(crate) fn removal(&self) -> Option<HeaderValue> {
        let domain = self.domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        HeaderValue::try_from(format!("{}=; Path={}{domain}; Max-Age=0; HttpOnly", self.name, self.path)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_cookie_is_found_among_others_and_over_several_headers() {
        let id = Id::default();
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("theme=dark; xid=1"));
        headers.append(COOKIE, HeaderValue::try_from(format!("a=b; id={id}")).unwrap());
        assert_eq!(CookieConfig::default().session_id(&headers), Some(id));
        let other = CookieConfig { name: "sid".into(), ..CookieConfig::default() };
        assert_eq!(other.session_id(&headers), None);
    }

    #[test]
    fn a_malformed_id_is_none() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("id=bogus"));
        assert_eq!(CookieConfig::default().session_id(&headers), None);
    }
}
