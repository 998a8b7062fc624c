"""From a request and facts to a plan."""
