# Policy leasehold-prod-engines: the login of [[keys.engines]]. It makes tokens of one role, which read one environment's
# engines, and renews and revokes what they read. An accessor or a lease id must be known to be used; neither can be listed.
path "auth/token/create/leasehold-prod" {
  capabilities = ["update"]
}
path "auth/token/renew-accessor" {
  capabilities = ["update"]
}
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}
path "sys/leases/renew" {
  capabilities = ["update"]
}
path "sys/leases/revoke" {
  capabilities = ["update"]
}
