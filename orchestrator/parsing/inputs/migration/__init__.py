"""What migrations read: playbooks, and bundles that come from another machine."""
