"""What names and paths mean here: inventories, workloads, projects, and what is bundled."""
