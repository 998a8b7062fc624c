"""Everything foreign is validated here, once: inventories, workloads, other tools' host lists."""
