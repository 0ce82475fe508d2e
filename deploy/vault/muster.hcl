# The least that muster's credentials.vault needs, for the mount `database` and the path `muster`. A test runs under exactly this
# policy, and without each of its lines. It gives no other role's credentials, and no engine's configuration but muster's own.

path "database/config/muster-*" { capabilities = ["create", "update", "delete"] }
path "database/roles/muster-*" { capabilities = ["create", "update", "delete"] }
path "database/creds/muster-*" { capabilities = ["read"] }

# Leases of those roles alone. Vault asks `sudo` for whatever names leases by their beginning.
path "sys/leases/renew/database/creds/muster-*" { capabilities = ["update"] }
path "sys/leases/lookup/database/creds/muster-*" { capabilities = ["list", "sudo"] }
path "sys/leases/revoke-prefix/database/creds/muster-*" { capabilities = ["update", "sudo"] }
path "sys/leases/revoke-force/database/creds/muster-*" { capabilities = ["update", "sudo"] }

# muster's own token: what it may do, how it stays, how it goes.
path "sys/capabilities-self" { capabilities = ["update"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
