//! Push services as they answer, and what becomes of messages and devices: Web Push and FCM against servers on this machine.

mod fcm;
mod graph;
mod place;
mod python;
mod server;
mod web_push;
