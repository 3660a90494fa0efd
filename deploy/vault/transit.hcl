# Policy leasehold-prod-transit: the login of [keys.transit]. It wraps and unwraps the master key of one environment.
path "transit/encrypt/leasehold-prod" {
  capabilities = ["update"]
}
path "transit/decrypt/leasehold-prod" {
  capabilities = ["update"]
}
