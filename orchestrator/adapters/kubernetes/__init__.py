"""A job for Kubernetes: what its ConfigMaps hold, and its manifests as files."""
