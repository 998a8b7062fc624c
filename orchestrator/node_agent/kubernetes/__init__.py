"""The node as a pod: starts the share of a plan that its index gives it, without a coordinator."""
