//! The session cookie, said once for both layers.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{COOKIE, Entry};
use http::{HeaderMap, HeaderValue};
use sessionmesh::Cluster;
use tower_sessions::cookie::{Cookie, SameSite};
use tower_sessions::session::Id;
use tower_sessions::{Expiry, SessionManagerLayer};
use tower_sessions_sessionmesh_store::SessionMeshStore;

use crate::SessionMeshLayer;
use crate::suffix::{SEPARATOR, Suffix};

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
    /// How long a browser keeps it after the session was last written, in whole seconds. Default none: until it is
    /// closed.
    pub max_age: Option<Duration>,
    /// Whether its value ends in `~<token>.<route>`: what the client has seen of its session, so that no other node
    /// shows it less, and a node that holds the session, for balancers. Default yes. Without, such an end is still
    /// understood, and taken off again: switch it off before you take the layer out.
    pub token: bool,
}

impl Default for CookieConfig {
    fn default() -> Self {
        Self {
            name: "id".into(),
            path: "/".into(),
            domain: None,
            secure: true,
            same_site: SameSite::Lax,
            max_age: None,
            token: true,
        }
    }
}

/// The two layers that belong together: put `SessionMeshLayer` outside, that is, added last.
pub fn session_layers(
    cluster: &Cluster,
    cookie: CookieConfig,
) -> (SessionMeshLayer, SessionManagerLayer<SessionMeshStore>) {
    let store = SessionMeshStore::new(cluster);
    let max_age = cookie.max_age.and_then(|age| tower_sessions::cookie::time::Duration::try_from(age).ok());
    let mut manager = SessionManagerLayer::new(store.clone())
        .with_name(cookie.name.clone())
        .with_path(cookie.path.clone())
        .with_secure(cookie.secure)
        .with_same_site(cookie.same_site)
        .with_expiry(max_age.map_or(Expiry::OnSessionEnd, Expiry::OnInactivity));
    if let Some(domain) = cookie.domain.clone() {
        manager = manager.with_domain(domain);
    }
    (SessionMeshLayer::new(cluster, store, cookie), manager)
}

/// What a request's session cookie said.
#[derive(Debug)]
pub(crate) struct Carried {
    /// All of it.
    value: String,
    /// Where tower-sessions' own part ends.
    inner: usize,
    suffix: Option<Suffix>,
}

/// What tower-sessions set, and what this layer added.
fn split(value: &str) -> (&str, Option<&str>) {
    value.rsplit_once(SEPARATOR).map_or((value, None), |(inner, suffix)| (inner, Some(suffix)))
}

impl Carried {
    fn of(value: &str) -> Self {
        let (inner, suffix) = split(value);
        Self { value: value.to_owned(), inner: inner.len(), suffix: suffix.map(Suffix::parse) }
    }

    /// All of it.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    /// What tower-sessions set; signed or encrypted, if it was told to.
    pub(crate) fn inner(&self) -> &str {
        self.value.get(..self.inner).unwrap_or_default()
    }

    /// The session's id, if it is a plain one.
    pub(crate) fn id(&self) -> Option<Id> {
        self.inner().parse().ok()
    }

    pub(crate) fn suffix(&self) -> Option<&Suffix> {
        self.suffix.as_ref()
    }
}

impl CookieConfig {
    /// Takes what this layer had added off the session cookie of a request, for the layers inside. Of several such
    /// cookies (of other paths) the last counts, as it does for tower-sessions.
    pub(crate) fn take(&self, headers: &mut HeaderMap) -> Option<Carried> {
        let mut carried = None;
        if headers.contains_key(COOKIE)
            && let Entry::Occupied(mut entry) = headers.entry(COOKIE)
        {
            for header in entry.iter_mut() {
                // Scripts of a page set cookies that are no ASCII, and tower-sessions reads those headers.
                let Ok(text) = std::str::from_utf8(header.as_bytes()) else { continue };
                if let Some(bare) = self.read(text, &mut carried)
                    && let Ok(bare) = HeaderValue::try_from(bare)
                {
                    *header = bare;
                }
            }
        }
        carried
    }

    /// Looks for this cookie in a Cookie header; gives back what the header is without the end of its value, if it has one.
    fn read(&self, header: &str, carried: &mut Option<Carried>) -> Option<String> {
        let (mut bare, mut at) = (None::<String>, 0);
        for part in header.split_inclusive(';') {
            let (pair, end) = part.strip_suffix(';').map_or((part, ""), |pair| (pair, ";"));
            let value = pair.trim().strip_prefix(&*self.name).and_then(|rest| rest.strip_prefix('='));
            let found = value.map(Carried::of);
            if let Some(found) = found.as_ref().filter(|found| found.suffix.is_some()) {
                let bare = bare.get_or_insert_with(|| {
                    let mut before = String::with_capacity(header.len());
                    before.push_str(header.get(..at).unwrap_or_default());
                    before
                });
                let space = pair.len() - pair.trim_start().len();
                bare.extend([pair.get(..space).unwrap_or_default(), &self.name, "=", found.inner(), end]);
            } else if let Some(bare) = &mut bare {
                bare.push_str(part);
            }
            at += part.len();
            if found.is_some() {
                *carried = found;
            }
        }
        bare
    }

    /// Whether a Set-Cookie header is for this cookie.
    pub(crate) fn is_set_by(&self, header: &HeaderValue) -> bool {
        header.as_bytes().strip_prefix(self.name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
    }

    /// A Set-Cookie header of tower-sessions with this at the end of its value; `None` if it removes the cookie.
    pub(crate) fn with_suffix(&self, header: &HeaderValue, suffix: &Suffix) -> Option<HeaderValue> {
        let text = header.to_str().ok()?;
        let (pair, attributes) = text.split_at(text.find(';').unwrap_or(text.len()));
        // Looked at attribute by attribute only if one can say it.
        let is_over = |attribute: &str| attribute.trim().eq_ignore_ascii_case("max-age=0");
        let is_removal = pair.len() == self.name.len() + 1
            || attributes.contains("=0") && attributes.split(';').any(is_over);
        if is_removal {
            return None;
        }
        HeaderValue::try_from(suffix.between(pair, attributes)).ok()
    }

    /// A Set-Cookie header with this value and as much time as was left.
    pub(crate) fn set(&self, value: String, max_age: Option<Duration>) -> Option<HeaderValue> {
        let mut cookie = Cookie::build((self.name.clone(), value))
            .path(self.path.clone())
            .http_only(true)
            .secure(self.secure)
            .same_site(self.same_site);
        if let Some(domain) = self.domain.clone() {
            cookie = cookie.domain(domain);
        }
        if let Some(max_age) = max_age.and_then(|age| age.try_into().ok()) {
            cookie = cookie.max_age(max_age);
        }
        HeaderValue::try_from(cookie.build().to_string()).ok()
    }

    /// A Set-Cookie header that removes the cookie.
    pub(crate) fn removal(&self) -> Option<HeaderValue> {
        self.set(String::new(), Some(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use http::header::SET_COOKIE;
    use sessionmesh::Token;

    use super::*;

    fn cookies(headers: &[&str]) -> HeaderMap {
        headers.iter().map(|header| (COOKIE, HeaderValue::try_from(*header).unwrap())).collect()
    }

    fn texts(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(COOKIE).iter().map(|header| header.to_str().unwrap()).collect()
    }

    fn suffix() -> Suffix {
        Suffix { token: Some(Token::default()), route: sessionmesh::NodeName::new("n1").ok() }
    }

    #[test]
    fn a_cookie_of_somebody_else_that_is_no_ascii_hides_nothing() {
        let id = Id::default();
        let carried = format!("city=Zürich; id={id}~{}", suffix());
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(carried.as_bytes()).unwrap());
        let taken = CookieConfig::default().take(&mut headers).unwrap();
        assert_eq!((taken.id(), taken.suffix()), (Some(id), Some(&suffix())));
        assert_eq!(headers[COOKIE].as_bytes(), format!("city=Zürich; id={id}").as_bytes());
    }

    #[test]
    fn only_the_named_cookie_loses_its_end_over_several_headers_too() {
        let id = Id::default();
        let carried = format!("a=b~c.d; id={id}~{}", suffix());
        let mut headers = cookies(&["theme=dark; xid=1~2.3", &carried]);
        let taken = CookieConfig::default().take(&mut headers).unwrap();
        assert_eq!(texts(&headers), ["theme=dark; xid=1~2.3", &format!("a=b~c.d; id={id}")]);
        assert_eq!((taken.id(), taken.suffix()), (Some(id), Some(&suffix())));
        let other = CookieConfig { name: "sid".into(), ..CookieConfig::default() };
        assert!(other.take(&mut cookies(&[&carried])).is_none());
    }

    #[test]
    fn a_bare_value_passes_as_it_came() {
        let id = Id::default();
        let header = format!("theme=dark;id={id};x");
        let mut headers = cookies(&[&header]);
        let taken = CookieConfig::default().take(&mut headers).unwrap();
        assert_eq!(texts(&headers), [&header]);
        assert_eq!((taken.id(), taken.suffix()), (Some(id), None));
    }

    #[test]
    fn a_signed_value_keeps_all_but_the_end() {
        let mut headers = cookies(&["id=c2lnbmF0dXJl%2B%3D~AbC.n1"]);
        let taken = CookieConfig::default().take(&mut headers).unwrap();
        assert_eq!(texts(&headers), ["id=c2lnbmF0dXJl%2B%3D"]);
        assert_eq!(taken.id(), None);
        assert!(taken.suffix().unwrap().token.is_none(), "AbC is no token");
    }

    #[test]
    fn of_two_cookies_the_last_counts_and_both_lose_their_ends() {
        let (first, last) = (Id::default(), Id::default());
        let mut headers = cookies(&[&format!("id={first}~x.n1; id={last}~{}", suffix())]);
        let taken = CookieConfig::default().take(&mut headers).unwrap();
        assert_eq!(taken.id(), Some(last));
        assert_eq!(texts(&headers), [&format!("id={first}; id={last}")]);
    }

    #[test]
    fn what_tower_sessions_sets_gets_an_end_and_what_it_removes_does_not() {
        let config = CookieConfig::default();
        let with = |text: &str| config.with_suffix(&HeaderValue::try_from(text).unwrap(), &suffix());
        assert_eq!(
            with("id=abc; HttpOnly; Path=/").unwrap().to_str().unwrap(),
            format!("id=abc~{}; HttpOnly; Path=/", suffix())
        );
        assert_eq!(with("id=; Path=/; Max-Age=0"), None);
        assert_eq!(with("id=abc; Path=/; max-age=0"), None);
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, config.removal().unwrap());
        assert_eq!(with(headers[SET_COOKIE].to_str().unwrap()), None);
    }
}
