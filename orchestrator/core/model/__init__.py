"""What a run is about: inventory, facts, workload, request, plan."""
