"""May work move to new hardware? Two bundles of evidence, a checklist, and what each box says."""
