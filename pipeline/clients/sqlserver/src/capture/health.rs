//! How capture is doing, as the database itself sees it.
use super::Capture;
use crate::connection::Connection;
use crate::errors::Outcome;
use smartpulse_clients::database::{CaptureHealth, CaptureMode};
use smartpulse_pipeline::Position;

/// How the capture of a table is doing for someone at a position.
pub(super) async fn read(
    _capture: &Capture,
    _connection: &mut Connection,
    _table: &str,
    _mode: CaptureMode,
    _position: &Position,
) -> Outcome<CaptureHealth> {
    Ok(CaptureHealth { stopped: None, runway: None })
}
