//! What `cdc` promises, held against the embedded database, with another program as the writer ([`place`]).

mod config;
mod loss;
mod place;
mod requests;
mod snapshot;
mod stream;
