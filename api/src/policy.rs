//! Who may call which route. Denied by default: a route that was not added through [`Routes`] has no policy, and the
//! gate lets nobody pass to it.

use crate::auth::Role;
use crate::router::Shared;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use http::Method;
use std::collections::HashMap;
use std::sync::Arc;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Everybody: it tells nothing of anybody's data, and is never refused for load.
    Open,
    /// Callers of any role, who may send a ticket instead of a token: a stream.
    Stream,
    /// Callers of this role or a higher one; whose forecasts they see is the handler's to check.
    AtLeast(Role),
}

/// The routes with their policies.
pub(crate) struct Routes {
    router: Router<Arc<Shared>>,
    policies: Policies,
}

/// The policies by path template; few methods each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies(HashMap<&'static str, Vec<(Method, Policy)>>);

impl Policies {
    /// The policy of a route; `None` if it has none. HEAD is answered by the handler of GET.
    pub fn of(&self, path: &str, method: &Method) -> Option<Policy> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let methods = self.0.get(path)?;
        methods.iter().find(|(known, _)| known == method).map(|(_, policy)| *policy)
    }

    /// Whether the path has a policy for any method; the others are answered 405.
    pub fn knows(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// All of them, by path.
    pub fn all(&self) -> Vec<(Method, &'static str, Policy)> {
        let of = |(path, methods): (&&'static str, &Vec<(Method, Policy)>)| {
            methods.iter().map(|(method, policy)| (method.clone(), *path, *policy)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.0.iter().flat_map(of).collect();
        all.sort_by(|a, b| (a.1, a.0.as_str()).cmp(&(b.1, b.0.as_str())));
        all
    }
}

impl Routes {
    pub fn new() -> Self {
        Self { router: Router::new(), policies: Policies::default() }
    }

    /// Adds a route.
    pub fn on<H, T>(mut self, method: Method, path: &'static str, policy: Policy, handler: H) -> Self
    where
        H: Handler<T, Arc<Shared>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).expect("routes have standard methods");
        self.router = self.router.route(path, on(filter, handler));
        self.policies.0.entry(path).or_default().push((method, policy));
        self
    }

    pub fn into_parts(self) -> (Router<Arc<Shared>>, Policies) {
        (self.router, self.policies)
    }
}
