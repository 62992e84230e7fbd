"""The local runner: the Serve config that the chart renders for a cluster, on one machine without a GPU."""
