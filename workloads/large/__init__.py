"""Speed and memory of a large dense model: prefill and decode apart."""
