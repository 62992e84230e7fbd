"""A real Prometheus over what the chart renders: do its monitors find the pods, and its panels and alerts series?"""
