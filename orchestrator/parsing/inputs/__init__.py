"""Our own files and options: inventories, workloads, ``--set``, ``--nodes``."""
