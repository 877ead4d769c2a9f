//! Mails from an event to a server: rendered, queued once, sent, and what becomes of those that are not.

mod queue;
mod send;
mod server;
mod site;
