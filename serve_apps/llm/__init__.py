"""One application per model: vLLM behind Ray Serve's direct streaming."""
