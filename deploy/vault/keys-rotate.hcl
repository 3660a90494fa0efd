# Policy leasehold-prod-rotate: the login of [[keys.stores]] in the file of whoever rotates: the collector, or a sidecar that
# runs alone. Each step of a rotation writes the entry anew, by check-and-set; at its end older versions, which hold the
# old key, are destroyed. Nothing is listed, no entry is made or deleted.
path "secret/data/leasehold/prod/*" {
  capabilities = ["read", "update"]
}
path "secret/destroy/leasehold/prod/*" {
  capabilities = ["update"]
}
