"""A small Kubernetes for tests: an API server that the real kubectl talks to, and its kubelet."""
