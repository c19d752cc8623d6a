//! limpet keeps a host as a signed Git repository declares it.
//!
//! One binary has three personalities. The *agent* is root and has no network: it verifies, plans and applies. The *fetcher* has the
//! network and no privileges: it polls the source and hands out objects by id. The *command line* looks, asks and checks.
//!
//! ```text
//!  tick, nudge          fetch.sock                      pure                      pure
//!  ──────────▶ cycle ──▶ fetcher ──objects by id──▶ trust ──VerifiedRevision──▶ fleet ──DesiredState──┐
//!                                                                                                     ├─ plan ─▶ Plan ─▶ apply ─▶ record ─▶ report
//!  Host ──observe (kinds)─────────────────────────────────────────────────────────────ObservedState──┘
//! ```
//!
//! # Reading order
//!
//! [`model`] has the words. [`cycle`] tells one reconciliation from top to bottom. From there: [`trust`] turns bytes into a
//! [`trust::VerifiedRevision`], [`fleet`] a repository into a [`fleet::DesiredState`], [`kinds`] look at and change the machine,
//! [`mod@plan`] compares, [`apply`] walks; [`recovery`] goes back to the last limpet that worked. [`fetch`] is the other process. [`agent`] is the daemon around it, [`doctor`]
//! looks for what is wrong with the host, [`cli`] is all that people type.
//!
//! # Invariants
//!
//! - A module imports only from floors below its own; the list below is in that order, and a test holds it.
//! - All access to the managed machine goes through [`sys::Host`]. What has no `Host` cannot touch the machine. (The fetcher is
//!   another process, which has none.)
//! - Only [`trust::verify`] and [`trust::resume`] make a [`trust::VerifiedRevision`], and only that is put in force, or what local root
//!   passes with `--unverified`. What `limpet plan` renders of others is shown and dropped.
//! - [`plan::plan`] and [`fleet::render`] are pure.
//! - Root opens no network socket and parses nothing from the network but objects whose hash it has just computed.
//! - Package managers and other programs run as transient units, so that nothing that happens to the agent can hurt them.
//!
//! # Files on disk
//!
//! | path | what | written by |
//! |---|---|---|
//! | `/etc/limpet/limpet.toml`, `limpet.toml.d/*.toml` | host configuration | the operator, [`cli::enroll`]; read by [`config`] |
//! | `/etc/limpet/allowed_signers`, `revoked` | who may sign, and who no longer | the operator, [`cli::enroll`]; read by [`trust`] |
//! | `/etc/limpet/enrolled` | the second mark of the trusted head | [`cycle::state`] |
//! | `/etc/limpet/age.key` | what decrypts this host's secrets | the operator, [`cli::secret`]; read by [`kinds::file`] |
//! | `/var/lib/limpet/state.db` | trusted head, inventory, debts, history | [`record`] |
//! | `/var/lib/limpet/objects/objects.db` | what the revision in force and the last good ones need | [`record::objects`] |
//! | `/var/lib/limpet/originals/<sha256>` | what files were before limpet | [`kinds::file`] |
//! | `/var/lib/limpet/on-probation` | there while a revision is on probation, for limpet-probation.timer | [`cycle`] |
//! | `/var/lib/limpet/previous/` | the last good program, the state of an older layout, what was taken back | [`recovery`], [`cycle`] |
//! | `/usr/sbin/policy-rc.d`, `policy-rc.d.before-limpet` | ours while packages are changed, and what was there before | [`kinds::package::withholding`] |
//! | `/run/limpet/withheld` | restarts that packages were kept from making | the same |
//! | `/var/lib/limpet/lock` | held while limpet may change the machine | [`sys::lock`] |
//! | `/var/cache/limpet/` | the fetcher's cache | [`fetch`] |
//! | `/run/limpet/control.sock` | where operators ask | [`agent`] |
//! | `/run/limpet/polled-at-start` | when the agent last polled because it started | [`cycle`] |
//! | `/run/limpet/recoveries` | how often in a row the agent had to be started again | [`recovery`] |
//! | `/run/limpet/fetch.sock` | where the agent asks the fetcher | systemd |

pub mod cli;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;

pub mod agent;
pub mod apply;
pub mod cycle;
pub mod doctor;
pub mod plan;
pub mod recovery;

pub mod control;
pub mod fetch;
pub mod fleet;
pub mod trust;

pub mod kinds;
pub mod record;
pub mod report;
pub mod sys;

pub mod age;
pub mod archive;
pub mod checksum;
pub mod config;
pub mod document;
pub mod git;
pub mod model;
pub mod schedule;
