//! Whole cycles: `limpet apply --once` on a temporary root, with a real repository signed by real git. Needs no root and no systemd.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops where something is wrong, and looks at the machine from outside"
)]

#[path = "../fixture/repository.rs"]
mod repository;
mod scene;

mod agent;
mod audit;
mod downloads;
mod enforcement;
mod guards;
mod health;
mod originals;
mod pauses;
mod purge;
mod refusals;
mod secrets;
mod silence;
mod unpacked;

/// What is logged while `run` runs, from info on.
fn said(run: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    let text = log.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}
