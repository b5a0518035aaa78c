"""What every endpoint shares: strict JSON, strict fields, one shape of errors."""
