"""The child process that holds one model; imports no trio and nothing of host, service or rpc."""
