//! What `cdc` promises, on SQL Server: over TDS, against the stand-in, in both capture modes.
//!
//! [`outages`]: the server restarts, falls silent, or breaks off in the middle of an answer. [`edges`]: edge cases of
//! change capture that are the source's to handle, by their numbers; those of the client are tested with it. [`handover`]: from
//! scan to stream while the capture job is behind. [`lease`]: two processes, one of them paused.

mod edges;
mod handover;
mod lease;
mod log;
mod outages;
mod site;
