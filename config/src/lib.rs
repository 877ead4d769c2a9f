//! Configuration of SmartPulse: text in, checked and positioned values out.
//!
//! The way of a file: [`SourceText`] -> [`read_yaml`] (a tree of [`Node`]s that remember line and column,
//! with `${env:..}` and `${file:..}` filled in) -> [`PipelineSpec`] or [`Settings`] -> [`parse`] of each
//! component's parameters against the JSON Schema of its config struct.
//!
//! Invariants:
//!
//! - Problems are collected in [`Diagnostics`], never returned one at a time: a reader fixes a file once.
//! - This crate knows no component type. Schemas are handed in.
//! - The process environment is read only where a caller passes it in ([`LoadOptions`], [`Lookup`]).
//! - A secret's text appears in no message, no excerpt and no `Debug` output.

#![warn(missing_docs)]

mod diagnostics;
mod graph;
mod interpolate;
mod layers;
mod located;
mod node;
mod parse;
mod render;
mod retry;
mod scalar;
mod schema;
mod secret;
mod settings;
mod spec;
mod yaml;

pub use diagnostics::{Diagnostics, PROBLEMS_MAX, Problem, nearest};
pub use interpolate::{FILE_BYTES_MAX, Lookup};
pub use layers::{DEFAULT_YAML, LoadOptions};
pub use located::Located;
pub use node::{Entry, Key, Mapping, Node, NodeValue, Origin, Scalar, SourceText, Span, Style};
pub use parse::{parse, parse_with_schema};
pub use retry::{RetryPolicies, RetryPolicy, RetryRef};
pub use schema::check;
pub use secret::Secret;
pub use settings::{
    ApiSettings, AuthKey, AuthSettings, CacheSettings, ClaimNames, LogFormat, LogSettings, LogTableLevel,
    LogTableSettings, NotificationSettings, OperatorSettings, PlayerSettings, RateSettings, ResourceSpec,
    RuntimeSettings, Settings, StreamSettings, TraceSettings,
};
pub use spec::{ComponentSpec, Input, Kind, PipelineSpec, is_id};
pub use yaml::{DEPTH_MAX, EXPANDED_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX, read_yaml};
