"""A job as objects of Kubernetes: its nodes as pods, their plan, and the manifests. Pure."""
