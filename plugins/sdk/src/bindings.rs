//! What wit-bindgen makes of the contract. The other modules are nicer to use.
#![allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, reason = "generated")]

wit_bindgen::generate!({
    path: "../../wit/check-1.0",
    world: "check",
    pub_export_macro: true,
    default_bindings_module: "muster_check::bindings",
    additional_derives: [PartialEq],
});
