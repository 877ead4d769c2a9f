//! The API from outside. One binary: each further one would be linked with everything again.

mod access;
mod common;
mod embedded;
mod forecasts;
mod limits;
mod openapi;
mod people;
mod refusals;
mod schemathesis;
mod sockets;
mod streams;
mod tokens;
