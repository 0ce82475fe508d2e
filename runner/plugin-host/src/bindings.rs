//! What wasmtime makes of the contract in `wit/check-1.0`.
#![allow(clippy::pedantic, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit/check-1.0",
    world: "check",
    imports: {
        "muster:check/sql.query": async | trappable,
        "muster:check/sql.[method]rows.next": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: { "muster:check/sql.rows": crate::guest::OpenRows },
});
