"""The Ray Serve applications that both images carry: gateway, llm, rag over common."""
