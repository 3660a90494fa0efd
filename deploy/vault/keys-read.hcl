# Policy leasehold-prod: the login of [[keys.stores]] of kind "vault". It reads the keys of one environment, and nothing else.
path "secret/data/leasehold/prod/*" {
  capabilities = ["read"]
}
