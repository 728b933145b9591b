//! What every process needs to start and to stop: settings, logs, metrics, health, TLS, the accept loop, the real clock, and the
//! keys that seal secrets. No decision of the product is made here.

pub mod certificates;
pub mod clock;
pub mod health;
pub mod http;
pub mod metrics;
pub mod seal;
pub mod settings;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod trials;
