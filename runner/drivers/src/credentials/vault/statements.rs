//! What Vault runs in the restored database. It fills in `{{name}}` and `{{expiration}}`; nothing of the backup stands in it.
use super::super::readonly::role;

/// Vault's own login, which is there while the doorway is open. Made by a superuser, because only one may make a role that row
/// policies do not bind.
pub(super) const VAULT_ROLE: &str = "muster_vault";

pub(super) fn make_vault_role() -> String {
    let name = format!("\"{VAULT_ROLE}\"");
    let mut statements = vec![format!("CREATE ROLE {name} LOGIN SUPERUSER CONNECTION LIMIT 8 PASSWORD NULL")];
    statements.extend(role::without_libraries(&name));
    statements.push(role::without_event_triggers(&name));
    statements.push(format!("ALTER ROLE {name} SET search_path = 'pg_catalog'"));
    statements.push(format!("ALTER ROLE {name} SET role = 'none'"));
    statements.join(";\n")
}

pub(super) fn creation() -> Vec<String> {
    role::make("\"{{name}}\"", "'{{expiration}}'")
}

pub(super) fn renewal() -> Vec<String> {
    vec!["ALTER ROLE \"{{name}}\" VALID UNTIL '{{expiration}}'".to_owned()]
}

/// One statement, which Vault does not split where it holds an `END`. A role that is not there is success.
pub(super) fn revocation() -> Vec<String> {
    let statement = "DO $muster$ BEGIN \
         IF EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = '{{name}}') THEN \
         ALTER ROLE \"{{name}}\" NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'; \
         PERFORM pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity WHERE usename = '{{name}}'; \
         DROP OWNED BY \"{{name}}\"; \
         DROP ROLE IF EXISTS \"{{name}}\"; \
         END IF; END $muster$";
    vec![statement.to_owned()]
}

/// The name of a database user: the run's, and three characters that tell it from the one it replaces. PostgreSQL has room for
/// 63 bytes.
pub(super) fn username_template(base: &str) -> String {
    format!("{base}-{{{{random 3}}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_statement_lets_vault_set_a_password() {
        let all = [creation(), renewal(), revocation()].concat().join("\n");
        assert!(!all.contains("{{password}}"), "{all}");
        assert!(creation()[0].contains("VALID UNTIL '{{expiration}}'"), "{all}");
        assert_eq!(username_template("muster-x"), "muster-x-{{random 3}}");
    }
}
