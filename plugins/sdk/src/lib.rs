//! Write a check plugin for muster in Rust: implement [`Check`], name it in [`check!`], build for `wasm32-wasip2`.
//!
//! ```ignore
//! struct NoOrphans;
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Options {}
//!
//! impl Check for NoOrphans {
//!     const NAME: &str = "no-orphans";
//!     const VERSION: &str = env!("CARGO_PKG_VERSION");
//!     const SUMMARY: &str = "Every order has a customer.";
//!     type Options = Options;
//!
//!     fn run(_: Options) -> Result<Conclusion, Failure> {
//!         let orphans: i64 = sql::one("SELECT count(*) FROM orders WHERE customer IS NULL", &[])?;
//!         if orphans > 0 {
//!             report::failure("public.orders", format!("{orphans} orders without a customer"));
//!         }
//!         Ok(Conclusion::Completed(format!("{orphans} orphans")))
//!     }
//! }
//!
//! muster_check::check!(NoOrphans);
//! ```
//!
//! A plugin asks for a grant by using it: what it never calls of [`sql`], [`baseline`], [`catalog`] and
//! [`digest`] is not imported.
pub mod baseline;
pub mod bindings;
pub mod catalog;
pub mod context;
pub mod digest;
pub mod glob;
pub mod report;
pub mod sql;
pub mod text;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

pub use bindings::exports::muster::check::plugin::{Conclusion, Failure};

/// One check.
pub trait Check {
    /// A DNS label.
    const NAME: &str;
    const VERSION: &str;
    /// One line for people.
    const SUMMARY: &str;
    /// Put `#[serde(deny_unknown_fields)]` on it: a misspelled option must be an error.
    type Options: DeserializeOwned + JsonSchema;

    /// The result is the worst finding that was reported. An error makes the check inconclusive.
    fn run(options: Self::Options) -> Result<Conclusion, Failure>;
}

/// Exports a [`Check`] as the plugin of this component.
#[macro_export]
macro_rules! check {
    ($check:ty) => {
        const _: () = {
            struct Plugin;

            impl $crate::bindings::exports::muster::check::plugin::Guest for Plugin {
                fn describe() -> ::std::string::String {
                    $crate::describe::<$check>()
                }

                fn run(options: ::std::string::String) -> ::std::result::Result<$crate::Conclusion, $crate::Failure> {
                    $crate::run::<$check>(&options)
                }
            }

    $crate::bindings::export!(Plugin with_types_in $crate::bindings);
        };
    };
}

/// The JSON that the contract asks of `describe`. For [`check!`].
pub fn describe<C: Check>() -> String {
    serde_json::json!({
        "name": C::NAME,
        "version": C::VERSION,
        "summary": C::SUMMARY,
        "options": schemars::schema_for!(C::Options),
    })
    .to_string()
}

/// Reads the options and runs the check. For [`check!`].
pub fn run<C: Check>(options: &str) -> Result<Conclusion, Failure> {
    let options = serde_json::from_str(options).map_err(|error| Failure::Options(error.to_string()))?;
    C::run(options)
}

/// Asks for page after page until one is empty.
fn paged<T>(mut page: impl FnMut(u32, u32) -> Vec<T>) -> impl Iterator<Item = T> {
    const PAGE: u32 = 500;
    let mut seen = 0;
    std::iter::from_fn(move || {
        let items = page(seen, PAGE);
        seen += u32::try_from(items.len()).expect("a page has at most as many items as were asked for");
        (!items.is_empty()).then_some(items)
    })
    .flatten()
}
