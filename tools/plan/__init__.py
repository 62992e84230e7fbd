"""``make plan``: what a values file will cost and how long its models take to start, before anything is installed."""
