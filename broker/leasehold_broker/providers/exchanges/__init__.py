"""Federation, one provider a file: a workload token for a short-lived token. Pure: what to ask, and how to read it."""
