//! What wasmtime makes of the contract in `wit/check-1.0`.
#![allow(clippy::pedantic, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../wit/check-1.0",
    world: "check",
    imports: {
        "muster:check/sql.query": async | trappable,
        "muster:check/sql.[method]rows.next": async | trappable,
        "muster:check/catalog.read": async | trappable,
        "muster:check/catalog.[method]objects.next": async | trappable,
        "muster:check/digest.start": async | trappable,
        "muster:check/digest.[method]scan.finish": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "muster:check/sql.rows": crate::guest::OpenRows,
        "muster:check/catalog.objects": crate::guest::OpenObjects,
        "muster:check/digest.scan": crate::guest::OpenScan,
        "muster:check/digest.outcome": crate::guest::FinishedScan,
    },
});
