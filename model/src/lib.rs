//! Weir's resources: what people write, what controllers observe, and which transitions are legal. No I/O.
//!
//! Every resource travels as an [`Object`]: `apiVersion`, `kind`, `metadata`, `spec`, `status`. The store keeps
//! objects; code that knows the kind works with a typed [`Resource`]. Reading is strict: unknown fields are refused
//! with the path of the field and the nearest known name ([`parse`]). Each kind's legal transitions are one function
//! beside its types (for example [`change::ChangePhase::may_become`]); only controllers make transitions, and their
//! tests and simulations hold every step to it. What a person may still edit of a change that has begun is
//! [`ChangeSpec::may_be_edited_to`], which the API enforces.

pub mod app;
pub mod change;
pub mod change_policy;
pub mod change_record;
pub mod check;
pub mod encryption;
pub mod error;
pub mod freeze;
pub mod health;
pub mod instance;
pub mod kind;
pub mod meta;
pub mod object;
pub mod parse;
pub mod release;
pub mod route;
pub mod slo;
pub mod token;
pub mod train;
pub mod unit;
pub mod validate;
pub mod workload;

pub use app::{App, AppSpec};
pub use change::{Change, ChangeSpec};
pub use change_policy::{ChangePolicy, ChangePolicySpec};
pub use change_record::{ChangeRecord, ChangeRecordSpec};
pub use check::{Check, CheckSpec};
pub use encryption::{Encryption, EncryptionSpec};
pub use error::{FieldError, Invalid};
pub use freeze::{Freeze, FreezeSpec};
pub use instance::{Instance, InstanceSpec};
pub use kind::Kind;
pub use meta::{Author, Condition, ConditionStatus, Metadata};
pub use object::{API_VERSION, Key, NoStatus, Object, Resource, Spec};
pub use release::{Release, ReleaseSpec};
pub use route::{Route, RouteSpec};
pub use slo::{Slo, SloSpec};
pub use token::{Token, TokenSpec};
pub use train::{ReleaseTrain, ReleaseTrainSpec};
pub use unit::{Unit, UnitSpec};
pub use workload::{Workload, WorkloadSpec};
