# Policy leasehold-prod-reads: of the tokens that the token role makes, one for each credential. One line for each engine's
# role; an AWS engine's would be "aws/sts/agents-prod".
path "database/creds/orders-prod" {
  capabilities = ["read"]
}
