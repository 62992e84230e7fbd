"""``make doctor``: whether a cluster has what a release needs, before it is installed."""
