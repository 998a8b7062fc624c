"""What this node has: GPUs, adapters, network, host, interpreters."""
