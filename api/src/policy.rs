//! Who may call which route. Denied by default: what was not added through [`Routes`] has no policy, and to the gate it is
//! not there.

use crate::auth::Role;
use crate::router::Shared;
use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, on};
use http::{HeaderValue, Method};
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

/// What there is at a path.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The path with its parameters: `/api/forecasts/{id}`.
    pub template: &'static str,
    /// Few.
    methods: Vec<(Method, Policy)>,
}

impl Place {
    /// The policy of a method; `None` if it has none. HEAD is answered by the handler of GET.
    pub fn policy(&self, method: &Method) -> Option<Policy> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.methods.iter().find(|(known, _)| known == method).map(|(_, policy)| *policy)
    }

    /// The value of `Allow`.
    pub fn allowed(&self) -> HeaderValue {
        let names =
            self.methods.iter().map(|(method, _)| if method == Method::GET { "GET,HEAD" } else { method.as_str() });
        HeaderValue::try_from(names.collect::<Vec<_>>().join(",")).expect("names of methods are visible ascii")
    }
}

/// The policies by path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    places: Vec<Place>,
    /// Where in `places` the templates are: the router's own matcher, so that both know the same paths.
    paths: matchit::Router<usize>,
}

impl Policies {
    /// What there is at a path, or at a template.
    pub fn at(&self, path: &str) -> Option<&Place> {
        self.paths.at(path).ok().map(|found| &self.places[*found.value])
    }

    fn add(&mut self, method: Method, template: &'static str, policy: Policy) {
        match self.places.iter_mut().find(|place| place.template == template) {
            Some(place) => place.methods.push((method, policy)),
            None => {
                self.paths.insert(template, self.places.len()).expect("routes have different paths");
                self.places.push(Place { template, methods: vec![(method, policy)] });
            }
        }
    }

    /// The methods of all paths, each once.
    pub fn methods(&self) -> Vec<Method> {
        let mut methods: Vec<Method> = Vec::new();
        for (method, _) in self.places.iter().flat_map(|place| &place.methods) {
            if !methods.contains(method) {
                methods.push(method.clone());
            }
        }
        methods
    }

    /// All of them, by path.
    pub fn all(&self) -> Vec<(Method, &'static str, Policy)> {
        let of = |place: &Place| {
            let template = place.template;
            place.methods.iter().map(|(method, policy)| (method.clone(), template, *policy)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = self.places.iter().flat_map(of).collect();
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
        self.policies.add(method, path, policy);
        self
    }

    pub fn into_parts(self) -> (Router<Arc<Shared>>, Policies) {
        (self.router, self.policies)
    }
}
