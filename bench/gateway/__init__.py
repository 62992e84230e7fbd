"""What the gateway costs, beside other gateways and Ray Serve as it comes, in one run on one machine."""
