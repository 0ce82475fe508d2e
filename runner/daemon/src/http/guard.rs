//! Who asks, and what they may do. Every route is behind it.
//!
//! Three ways in. The socket: whoever runs muster, or root, is an operator. TCP with a token: its role. TCP without one: looks,
//! where the daemon has no tokens, which the configuration allows on loopback only. Nothing is ever changed over TCP without an
//! operator's token, and a browser cannot be made to send one: there are no cookies, and what a browser remembers of a
//! password is good for looking only.
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drill::config::{Http, Role, Token};
use drill::id::Sha256Digest;
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tower_http::catch_panic::CatchPanicLayer;

use super::problem::Problem;
use super::throttle::Throttle;

const BODY_BYTES: u64 = 64 * 1_024;
const URI_BYTES: usize = 2_048;

/// Nothing that a page did not bring itself, and no script but its own file.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Peer {
    Network(IpAddr),
    Local { uid: u32 },
}

/// Who asks, for the ledger and the log.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) String);

pub(super) struct Guard {
    tokens: Vec<Token>,
    loopback: bool,
    throttle: Throttle,
    /// Until an answer begins; a stream may go on.
    answer: Duration,
}

impl Guard {
    pub(super) fn new(config: &Http, answer: Duration) -> Self {
        Self {
            tokens: config.tokens.clone(),
            loopback: config.listen.ip().is_loopback(),
            throttle: Throttle::default(),
            answer,
        }
    }

    fn admit(&self, peer: Peer, request: &Request) -> Result<Caller, Problem> {
        let path = request.uri().path();
        let (name, role) = match peer {
            Peer::Local { uid } => local(uid)?,
            Peer::Network(_) if matches!(path, "/healthz" | "/readyz") => ("anybody".to_owned(), Role::Viewer),
            Peer::Network(address) => {
                if self.loopback {
                    local_host(request.headers())?;
                }
                self.network(address, request)?
            }
        };
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return Ok(Caller(name));
        }
        if role < Role::Operator {
            let advice =
                "use the token of an operator, or `muster` on the daemon's own machine, as the user that runs it";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", format!("{name} may only look"), advice));
        }
        if !is_json(request.headers()) {
            let detail = "what changes something must be sent as `Content-Type: application/json`";
            let advice = "send that header, and `{}` where there is nothing to say";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail, advice));
        }
        Ok(Caller(name))
    }

    fn network(&self, address: IpAddr, request: &Request) -> Result<(String, Role), Problem> {
        let Some(given) = request.headers().get(header::AUTHORIZATION) else {
            let open = self.loopback && (self.tokens.is_empty() || request.uri().path() == "/metrics");
            return if open { Ok(("somebody without a token".to_owned(), Role::Viewer)) } else { Err(no_token()) };
        };
        if let Some(wait) = self.throttle.wait(address, Instant::now()) {
            let seconds = wait.as_secs() + 1;
            let problem = Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-bad-tokens",
                "too many bad tokens came from this address",
                format!("wait {seconds} s, and use a token that the configuration has"),
            );
            return Err(problem.header(header::RETRY_AFTER, seconds.to_string()));
        }
        let (token, by_password) = token(given).unwrap_or_default();
        let Some((name, role)) = self.find(&token) else {
            self.throttle.bad_token(address, Instant::now());
            tracing::warn!(%address, "a bad token");
            return Err(no_token());
        };
        // A browser sends what it remembers whoever made it ask.
        Ok((name, if by_password { Role::Viewer } else { role }))
    }

    /// Looks at every token, and always the same way.
    fn find(&self, given: &[u8]) -> Option<(String, Role)> {
        let digest = Sha256Digest::of(given);
        let mut found = u32::MAX;
        for (index, token) in (0..).zip(&self.tokens) {
            let same = token.sha256.as_bytes().ct_eq(digest.as_bytes());
            found.conditional_assign(&index, same);
        }
        let token = self.tokens.get(usize::try_from(found).ok()?)?;
        Some((format!("token {}", token.name), token.role))
    }
}

/// The routes, behind everything that every request must pass.
pub(super) fn around(routes: Router, guard: Arc<Guard>) -> Router {
    routes.layer(from_fn_with_state(guard, admit)).layer(CatchPanicLayer::custom(panicked)).layer(from_fn(headers))
}

async fn admit(
    State(guard): State<Arc<Guard>>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.uri().to_string().len() > URI_BYTES {
        let detail = format!("the address has more than {URI_BYTES} bytes");
        return Problem::new(StatusCode::URI_TOO_LONG, "uri-too-long", detail, "ask for less at one time")
            .into_response();
    }
    // No route reads more than this of a body, whatever its length is said to be.
    if length(request.headers()).is_some_and(|length| length > BODY_BYTES) {
        let detail = format!("the body has more than {BODY_BYTES} bytes");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail, "`{}` is enough").into_response();
    }
    match guard.admit(peer, &request) {
        Ok(caller) => request.extensions_mut().insert(caller),
        Err(problem) => return problem.into_response(),
    };
    let timeout = || {
        let detail = format!("there is no answer after {} s", guard.answer.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail, "try again; `/readyz` says what is slow")
    };
    tokio::time::timeout(guard.answer, next.run(request)).await.unwrap_or_else(|_| timeout().into_response())
}

async fn headers(request: Request, next: Next) -> Response {
    let asset = request.uri().path().starts_with("/assets/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, if asset { "private, max-age=300" } else { "no-store" });
    response
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> axum::http::Response<Body> {
    let advice = "this is a defect of muster; please report it with what the daemon's log says";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer could not be made", advice).into_response()
}

/// The kernel says who it is.
fn local(uid: u32) -> Result<(String, Role), Problem> {
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok((format!("user {uid}"), Role::Operator));
    }
    let detail = format!("user {uid} is not the one that runs this daemon");
    Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail, "ask as the user that runs it, or as root"))
}

/// A page elsewhere may let its own name point to loopback, and then ask what it likes.
fn local_host(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()) {
        return Ok(());
    }
    let detail = format!("this is not the server of `{host}`");
    let advice = "use 127.0.0.1 or localhost; for other names configure TLS and tokens, and listen on another address";
    Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", detail, advice))
}

fn no_token() -> Problem {
    let advice = "send `Authorization: Bearer TOKEN`; a browser asks for a name, which may be anything, and the token as password";
    Problem::new(StatusCode::UNAUTHORIZED, "no-token", "a token that the configuration has is needed", advice)
        .header(header::WWW_AUTHENTICATE, "Bearer realm=\"muster\"")
        .header(header::WWW_AUTHENTICATE, "Basic realm=\"muster\", charset=\"UTF-8\"")
}

/// The token, and whether it came as a password.
fn token(given: &HeaderValue) -> Option<(Vec<u8>, bool)> {
    let (scheme, given) = given.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((given.trim().as_bytes().to_vec(), false));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = STANDARD.decode(given.trim()).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        return Some((pair[colon + 1..].to_vec(), true));
    }
    None
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}
