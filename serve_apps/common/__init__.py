"""What every application shares: configuration base, protocol, errors, secrets, metrics, logging. A leaf."""
